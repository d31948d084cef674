"""`hf-accel VERB`: finds the command's module, and turns a user's mistake into one message and exit code 2.

Command modules are imported only when called, so `--help` answers without torch.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NoReturn

from hf_accel import __version__
from hf_accel.errors import RunError, UserError

COMMANDS = {
    "train": "fine-tune an image classifier by a recipe",
    "evaluate": "score a trained folder or Hub model on a data set",
    "predict": "classify files, folders or globs of images",
    "compare": "run variants or recipes side by side: which technique pays here",
    "recipe": "list, show, validate and copy recipes",
    "page": "write the page, plots and card of a finished run again",
    "push": "upload a finished run to the Hub",
    "demo": "a page to drop an image on",
}


def command_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser in the style of all commands: no abbreviations, the text kept as written."""
    return argparse.ArgumentParser(
        prog=f"hf-accel {verb}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse_with_overrides(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    check: Callable[[dict[str, str]], object] | None = None,
) -> tuple[argparse.Namespace, dict[str, str]]:
    """Parse a command's own flags and return the rest as `{name: text}`: `--bf16` alone is true, a dash an underscore.

    Args:
        check: called with the rest, before a stray word is refused: it may be one of several values of a refused flag.
    Raises:
        UserError: a word that is neither a flag nor the value of one, or a flag given twice.
    """
    own = {option for action in parser._actions for option in action.option_strings}
    words = sys.argv[1:] if argv is None else list(argv)
    flags: dict[str, str] = {}
    rest: list[str] = []  # what argparse gets: otherwise it hands the value of a flag it does not know to a positional
    while words:
        word = words.pop(0)
        written, has_value, value = word.partition("=")
        name = written[:2] + written[2:].replace("-", "_")  # as the scripts of transformers take it
        if not _is_flag(word) or written in own or name in own:
            rest.append(word.replace(written, name, 1) if name in own else word)
            continue
        if not has_value:
            value = words.pop(0) if words and not _is_flag(words[0]) and words[0] != "--" else "true"
        name = name.removeprefix("-").removeprefix("-")
        if name in flags:
            raise UserError(f"{parser.prog}: {written} is given twice, expected once")
        flags[name] = value
    known, stray = parser.parse_known_args(rest)
    if check is not None:
        check(flags)
    if stray:
        name, equals, value = stray[0].partition("=")
        expected = f"--{name} {shlex.quote(value)}" if equals and name.isidentifier() else "--name value"
        raise UserError(f"{parser.prog}: unexpected {stray[0]!r}, expected {expected}. See {parser.prog} --help")
    return known, flags


def _is_flag(word: str) -> bool:
    """Whether a word is `--name`, or as short as other tools have it: `-b`, `-vb`; `-1` is a number."""
    return re.match(r"--.|-[a-zA-Z]{1,2}(=|$)", word, re.DOTALL) is not None


def is_main_process() -> bool:
    """Whether this is the first of all processes; before torch.distributed is up, the launcher's environment says so."""
    return os.environ.get("RANK", "0") == "0"


def leave_process_group() -> None:
    """Close the connections between ranks: a process that ends with them open can abort on its way out."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def run(main: Callable[[list[str] | None], int], argv: list[str] | None = None) -> int:
    """Run a command: 0 done, 2 the user's input is wrong (message on stderr), 1 the run failed (a message, or a traceback)."""
    try:
        code = main(argv)
        leave_process_group()
        return code
    except UserError as error:
        say_error(str(error))
        return 2
    except RunError as error:
        say_error(str(error))
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # safetensors and torch.save wrap a full disk in errors of their own
        if not any(sign in str(error) for sign in ("No space left", "os error 28")):
            raise
        print("error: no space left on the device; what was saved before stays. Free some and repeat the same command "
              "to resume, or choose another --output_dir.", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def say_error(message: str) -> None:
    rank = "" if is_main_process() else f" (process {os.environ['RANK']})"
    print(f"error{rank}: {message}", file=sys.stderr)


def run_and_exit(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a command that has its process to itself, and end the process without deallocating its modules.

    Python deallocates the modules of torch and transformers object by object, which takes 2 s and more after the last
    line of a command; the kernel frees their memory at once. Functions that others registered with atexit are called first.
    """
    code = None

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
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[1] in COMMANDS:  # hf-accel help train
            return main([argv[1], "--help"])
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in COMMANDS.items())
        print(
            f"usage: hf-accel VERB ...\n\n{lines}\n\nhf-accel VERB --help explains a verb; hf-accel version prints the version."
        )
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        print(f"hf_accel {__version__}")
        return 0
    verb = argv[0]
    if verb not in COMMANDS:
        from hf_accel.errors import did_you_mean

        print(f"error: hf-accel {verb}: no such verb. {did_you_mean(verb, COMMANDS)}", file=sys.stderr)
        return 2
    return run(import_module(f"hf_accel.{verb}").main, argv[1:])


def console() -> NoReturn:
    """Entry point of the `hf-accel` console script."""
    run_and_exit(main)


if __name__ == "__main__":
    console()
