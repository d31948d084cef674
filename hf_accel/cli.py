"""`hf-accel VERB`: finds the command's module, and turns a user's mistake into one message and exit code 2.

Command modules are imported only when called, so `--help` answers without torch.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import takewhile
from typing import Any, NoReturn

from hf_accel import __version__, ranks, terminal
from hf_accel.errors import (
    Interrupted,
    RunError,
    Stopped,
    UserError,
    did_you_mean,
    is_lost_connection,
    machine_failure,
    name_too_long,
    own_words,
)
from hf_accel.tables import printable

COMMANDS = {
    "train": "fine-tune an image classifier by a recipe",
    "evaluate": "score a trained folder or Hub model on a data set",
    "predict": "classify files, folders or globs of images",
    "audit": "find images whose labels are probably wrong",
    "compare": "run variants or recipes side by side: which technique pays here",
    "profile": "measure each phase of a run: what bounds it, and which recipe lines may help",
    "tune": "find the fastest safe settings of a recipe on this machine",
    "recipe": "list, show, validate and copy recipes",
    "page": "write the page, plots and card of a finished run again",
    "compress": "export a trained model to ONNX, also as int8, and measure each file",
    "verify": "check that a run, a checkpoint or a model is as it was written",
    "doctor": "what this machine gives, whether a recipe can run here, what is wrong with the data",
    "push": "upload a finished run to the Hub",
    "demo": "a page to drop an image on",
}
HELP = """\
usage: hf-accel VERB ...

{verbs}

hf-accel help VERB explains a verb; hf-accel version prints the version. Your own images: hf-accel train ./photos
Every verb takes --quiet (results, warnings and errors only) and --json (the result as one JSON document).
Completion of verbs, flags and recipes in bash and zsh: eval "$(register-python-argcomplete hf-accel)"
"""


class CommandParser(argparse.ArgumentParser):
    """The parser of a command, or of a verb of one: no abbreviations, the text kept as written, --quiet and --json.

    Where a command has `--format`, --json stands for `--format json`. A mistake is a `UserError`, without the usage.
    """

    answer: Callable[[argparse.ArgumentParser], NoReturn] | None = (
        None  # ends a command that a shell asks for completions
    )

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self.add_argument("--quiet", action="store_true", help="print the result, warnings and errors only")
        self.add_argument("--json", action="store_true", help="print the result as one JSON document")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if CommandParser.answer is not None:
            CommandParser.answer(self)
        words = list(sys.argv[1:] if args is None else args)
        known, rest = super().parse_known_args(words, namespace)
        for name in ("quiet", "json"):  # a verb of a command would overwrite what stands before it
            setattr(known, name, f"--{name}" in (words[: words.index("--")] if "--" in words else words))
        terminal.be_quiet(known.quiet)
        if known.json and hasattr(known, "format"):
            if known.format not in (self.get_default("format"), "json"):
                raise UserError(f"{self.prog}: --json and --format {known.format} exclude each other. Leave one out.")
            known.format = "json"
        return known, rest

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}. See {self.prog} --help")


def command_parser(verb: str, description: str) -> CommandParser:
    """The parser of `hf-accel VERB`."""
    return CommandParser(prog=f"hf-accel {verb}", description=description)


def print_result(args: argparse.Namespace, document: Any, text: str, last_line: str | None = None) -> None:
    """Print what a command has found, the only thing that it prints on stdout.

    Args:
        args: the parsed command line: `--json` prints the document, `--quiet` the last line.
        document: the result in JSON types.
        text: the result for people.
        last_line: what is left of the text with --quiet, such as the folder that was written; None: all of it.
    """
    if args.json:
        text = json.dumps(document, indent=2, default=str)
    elif args.quiet and last_line is not None:
        text = last_line
    print(text, flush=True)


def parse_with_overrides(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    check: Callable[[dict[str, str]], object] | None = None,
) -> tuple[argparse.Namespace, dict[str, str]]:
    """Parse a command's own flags and return the rest as `{name: text}`: `--bf16` alone is true, a dash an underscore.

    Args:
        check: called with the rest, before a stray word is refused; it may refuse a flag.
    Raises:
        UserError: a word that is neither a flag nor the value of one, or a flag given twice.
    """
    own = {option for action in parser._actions for option in action.option_strings}
    words = sys.argv[1:] if argv is None else list(argv)
    flags: dict[str, str] = {}
    in_full: dict[str, str] = {}  # the flags with all their values, if they are those of another tool: --scale 0.08 1.0
    misspelled: list[str] = []
    rest: list[str] = []  # what argparse gets: otherwise it hands the value of a flag it does not know to a positional
    while words:
        word = words.pop(0)
        written, has_value, value = word.partition("=")
        name = written[:2] + written[2:].replace("-", "_")  # as the scripts of transformers take it
        if (
            check is not None
            and written.isidentifier()
            and has_value
            and not ((rest and rest[-1] in own) or os.path.exists(word))
        ):
            in_full[written] = value  # Ultralytics' epochs=3
            misspelled.append(word)
        if not _is_flag(word) or written in own or name in own:
            rest.append(word.replace(written, name, 1) if name in own else word)
            continue
        if not has_value:
            value = words.pop(0) if words and not _is_flag(words[0]) and words[0] != "--" else "true"
        name = name.removeprefix("-").removeprefix("-")
        if name in flags:
            raise UserError(f"{parser.prog}: {written} is given twice, expected once")
        flags[name] = value
        in_full[name] = " ".join([value, *takewhile(_is_number, words)])
    known, stray = parser.parse_known_args(rest)
    if check is not None:
        check(in_full)
    stray = misspelled or stray
    if stray:
        name, equals, value = stray[0].partition("=")
        expected = f"--{name} {shlex.quote(value)}" if equals and name.isidentifier() else "--name value"
        raise UserError(f"{parser.prog}: unexpected {stray[0]!r}, expected {expected}. See {parser.prog} --help")
    return known, flags


def _is_flag(word: str) -> bool:
    """Whether a word is `--name`, or as short as other tools have it: `-b`, `-vb`; `-1` is a number."""
    return re.match(r"--.|-[a-zA-Z]{1,2}(=|$)", word, re.DOTALL) is not None


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", word) is not None


def is_main_process() -> bool:
    """Whether this is the first of all processes; before torch.distributed is up, the launcher's environment says so."""
    return os.environ.get("RANK", "0") == "0"


def leave_process_group() -> None:
    """Close the connections between ranks: a process that ends with them open can abort on its way out."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def run(main: Callable[[list[str] | None], int], argv: list[str] | None = None) -> int:
    """Run a command: 0 done, 2 the user's input is wrong (message on stderr), 1 the run failed (a message, or a traceback).

    A signal that ends it: 128 + its number.
    """
    try:
        code = main(argv)
        leave_process_group()
        return code
    except (UserError, RunError) as error:
        return _failed(own_words(error), 2 if isinstance(error, UserError) else 1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = name_too_long(error)
        if message is not None:
            return _failed(message, 2)
        message = machine_failure(error)
        if message is None:
            _let_others_speak()
            raise
        return _failed(message, 1, others_know=is_lost_connection(error))
    except KeyboardInterrupt as interrupt:
        number = signal_of(interrupt)
        terminal.close_bars()
        if is_main_process():
            what = str(interrupt) if isinstance(interrupt, Interrupted) else ""
            how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
            print(terminal.wrap(how + (f": {what}" if what else ""), sys.stderr), file=sys.stderr)
        return 128 + number


def _failed(message: str, code: int, others_know: bool = False) -> int:
    """Say why the command failed, if no other process does; returns the exit code.

    Args:
        others_know: another process failed first, and says why.
    """
    _let_others_speak(others_know)
    say_error(message)
    ranks.record_failure(message)
    return code


def _let_others_speak(others_know: bool = False) -> None:
    if others_know or not ranks.speaks_first():
        ranks.wait_to_be_ended()


def say_error(message: str) -> None:
    """Print a message to stderr; names of files and classes in it must not act on the terminal."""
    terminal.close_bars()
    message = "\n".join(map(printable, message.splitlines()))
    rank = "" if is_main_process() else f" (process {os.environ['RANK']})"
    print(terminal.marked(f"error{rank}:", "red", message, sys.stderr), file=sys.stderr)


@contextlib.contextmanager
def interrupt_says(message: Callable[[], str] | str) -> Iterator[None]:
    """Let ^C, or another signal, within end the command with this message: what is kept, and how to continue."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted(message() if callable(message) else message, signal_of(interrupt)) from None


def signal_of(interrupt: KeyboardInterrupt) -> int:
    """The number of the signal that caused the exception."""
    return interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT


def run_and_exit(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a command that has its process to itself, and end the process without deallocating its modules.

    Python deallocates the modules of torch and transformers object by object, which takes 2 s and more after the last
    line of a command; the kernel frees their memory at once. Functions that others registered with atexit are called first.
    """
    code = None
    terminal.accept_any_text((sys.stdout, sys.stderr))

    def exit_now() -> None:
        if code is None:  # an exception, whose exit code Python knows
            return
        with contextlib.suppress(OSError):  # the reader has gone: Python reports it in its own way
            sys.stdout.flush()
            sys.stderr.flush()
            logging.shutdown()
            os._exit(code)

    atexit.register(exit_now)  # the first to register is the last to be called
    code = run(main)
    raise SystemExit(code)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import without garbage collection, which would search the objects of modules for a second and free none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def main(argv: list[str] | None = None) -> int:
    """`hf-accel VERB ...`."""
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:  # a shell asks which words may come next
        import_module("hf_accel.completion").complete()
    if not argv or argv[0] in ("-h", "--help", "help"):
        return help_about(argv[1] if len(argv) > 1 else None, code=0 if argv else 2)
    if argv[0] in ("--version", "version"):
        print(f"hf_accel {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        return unknown_verb(argv[0])
    return run(import_module(f"hf_accel.{argv[0]}").main, argv[1:])


def help_about(verb: str | None, code: int = 0) -> int:
    """Print the help of one verb, or the list of verbs; without any word it is an answer to a mistake, on stderr."""
    if verb in COMMANDS:
        return main([str(verb), "--help"])
    if verb is not None:
        return unknown_verb(verb)
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    print(HELP.format(verbs=lines).rstrip(), file=sys.stderr if code else sys.stdout)
    return code


def unknown_verb(verb: str) -> int:
    say_error(f"hf-accel {verb}: no such verb. {did_you_mean(verb, [*COMMANDS, 'help', 'version'])}")
    return 2


def console() -> NoReturn:
    """Entry point of the `hf-accel` console script."""
    run_and_exit(main)


if __name__ == "__main__":
    console()
