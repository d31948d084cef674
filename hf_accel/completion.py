"""Completion in the shell: verbs, flags, recipes, variants, and the values of settings that have choices.

`argcomplete` starts the command at each press of the tab key with the line so far in environment variables. The command
answers from its own parser, before it does anything else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NoReturn

from hf_accel.cli import COMMANDS, CommandParser
from hf_accel.config.recipe import shipped_recipes, variant_names
from hf_accel.config.schema import options, section_schema
from hf_accel.config.sections import SECTIONS
from hf_accel.errors import UserError

WORDS = (*COMMANDS, "help", "version")
VERBS_WITH_SETTINGS = ("train", "evaluate", "audit", "compare", "profile", "tune", "doctor")
TAKE_SETTINGS = tuple(f"hf-accel {verb}" for verb in VERBS_WITH_SETTINGS)


def complete() -> NoReturn:
    """Answer the shell; ends the process where argcomplete is installed."""
    before = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split(" ")
    words = [word for word in before if word] + ([""] if not before[-1] else [])
    if len(words) > 2 and words[1] in COMMANDS:
        os.environ["_ARGCOMPLETE"] = "2"  # the verb is to argcomplete what the name of a command is
        CommandParser.answer = staticmethod(answer)
        import_module(f"hf_accel.{words[1]}").main([])
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("verb", choices=WORDS)
    parser.add_argument("about", nargs="?", choices=COMMANDS)
    _ask(parser)


def answer(parser: argparse.ArgumentParser) -> NoReturn:
    """Print the words that may come next in the command of this parser, and end the process."""
    CommandParser.answer = None
    if parser.prog in TAKE_SETTINGS:
        own = {option for action in parser._actions for option in action.option_strings}
        for flag, values in (found for found in _settings() if found[0] not in own):
            parser.add_argument(flag, nargs="?", choices=values)
    for action in _actions(parser):
        completer = _COMPLETERS.get(action.dest)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]  # as argcomplete wants it
    _ask(parser)


def _ask(parser: argparse.ArgumentParser) -> NoReturn:
    try:
        import argcomplete
    except ImportError:
        raise SystemExit(1) from None
    argcomplete.safe_actions.add(argparse._ExtendAction)  # --recipe a --recipe b: its values choose the variants
    argcomplete.autocomplete(parser, always_complete_options=False)
    raise SystemExit(1)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def _settings() -> Iterator[tuple[str, list[str] | None]]:
    """The flags of all settings, and the values of those that have few."""
    for section in ("training", *SECTIONS):
        for name, schema in section_schema(section)["properties"].items():
            found = [option for option in options(schema) if "enum" in option or option.get("type") == "boolean"]
            values = [str(value) for option in found for value in option.get("enum", ("true", "false"))]
            yield f"--{name}" if section == "training" else f"--{section}.{name}", values or None


def _recipes(prefix: str, **_: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*shipped_recipes(), *FilesCompleter(("yaml", "yml"))(prefix)]


def _variants(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    asked = getattr(parsed_args, "recipe", None) or getattr(parsed_args, "name", None) or "finetune"
    try:
        return [variant for name in ([asked] if isinstance(asked, str) else asked) for variant in variant_names(name)]
    except UserError:  # the recipe is not there
        return []


_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "recipe": _recipes,
    "name": _recipes,
    "variant": _variants,
    "variants": _variants,
    "baseline": _variants,
}
