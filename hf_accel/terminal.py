"""The screen: its width, its colours, progress bars, and what `--quiet` leaves out.

A bar or a colour is for people: where stdout or stderr is a file or a pipe there are plain lines, without either.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

WIDEST = 100  # columns of wrapped text: longer lines are hard to read
NARROWEST = 20
FULL_BAR_COLUMNS = 80  # on a narrower terminal a bar leaves out the elapsed time
STYLES = {"bold": "1", "red": "1;31", "yellow": "33", "dim": "2"}  # SGR codes
# In a terminal that cannot move its cursor back, each state of a bar would be a line.
WITHOUT_CURSOR = ("dumb", "emacs")
_NARROW_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_SPACE = "\ue000"  # of a private area, in place of a space where no line may be broken
_quiet = False


def be_quiet(quiet: bool) -> None:
    """Leave out bars and messages other than warnings and errors, from now on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def columns(stream: TextIO) -> int:
    """The width for text on this stream: the terminal's, at most `WIDEST`; `WIDEST` where it is not a terminal."""
    if not is_terminal(stream):
        return WIDEST
    return max(NARROWEST, min(WIDEST, _terminal_columns(stream)))


def _terminal_columns(stream: TextIO) -> int:
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdigit() else found or 80


def has_colour(stream: TextIO) -> bool:
    """Whether to colour text on this stream; NO_COLOR (https://no-color.org) and FORCE_COLOR decide first."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return os.environ["FORCE_COLOR"] != "0"
    return is_terminal(stream) and os.environ.get("TERM") not in WITHOUT_CURSOR


def paint(text: str, style: str, stream: TextIO) -> str:
    """The text in one of `STYLES` where the stream has colours."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if has_colour(stream) else text


def wrap(text: str, stream: TextIO, indent: str = "") -> str:
    """The text broken between words to fit the stream's terminal.

    Commands stay in one piece, so that they can be copied: indented lines, and words between backticks.
    """
    if not is_terminal(stream):
        return text
    width = columns(stream)
    text = re.sub(r"`[^`\n]+`", lambda command: command[0].replace(" ", _SPACE), text)
    lines: list[str] = []
    for line in text.splitlines():
        if len(line) <= width or line.startswith(" "):
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
            )
    return "\n".join(lines).replace(_SPACE, " ")


def marked(mark: str, style: str, text: str, stream: TextIO, indent: str = "") -> str:
    """A message that begins with a mark in a colour, such as "error:", wrapped to the stream's terminal."""
    return paint(mark, style, stream) + wrap(f"{mark} {text}", stream, indent)[len(mark) :]


def say(text: str) -> None:
    """A message to the person at the terminal, on stderr: no result and no error. One that begins as a warning is one."""
    if text.startswith("warning: "):
        warn(text)
    elif not _quiet:
        print(wrap(text, sys.stderr), file=sys.stderr)


def say_each(texts: Iterable[str]) -> None:
    """Messages as of `say`, each of them once."""
    for text in dict.fromkeys(texts):
        say(text)


def warn(text: str) -> None:
    """A warning on stderr, which --quiet leaves."""
    print(marked("warning:", "yellow", text.removeprefix("warning: "), sys.stderr), file=sys.stderr)


def shows_bars() -> bool:
    """Whether a bar can be drawn on stderr, and is wanted there; one process of several draws it."""
    is_first = os.environ.get("RANK", "0") == "0"
    return is_first and not _quiet and is_terminal(sys.stderr) and os.environ.get("TERM") not in WITHOUT_CURSOR


def bar(total: int | None, title: str, unit: str, *, delay: float = 0.5, **options: Any) -> tqdm:
    """A progress bar on stderr, hidden where `shows_bars` says so.

    Args:
        total: units in all; None: not known.
        delay: seconds after which it appears, so that short work shows none.
        options: further ones of tqdm.
    """
    from tqdm import tqdm

    is_hidden = bool(options.pop("disable", False)) or not shows_bars()
    if not is_hidden and _terminal_columns(sys.stderr) < FULL_BAR_COLUMNS and total is not None:
        options.setdefault("bar_format", _NARROW_BAR)
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        delay=delay,
        dynamic_ncols=True,
        disable=is_hidden,
        file=sys.stderr,
        **options,
    )


@contextmanager
def above_bars() -> Iterator[None]:
    """Print lines within, which then stand above the bars that are on the screen."""
    if "tqdm.std" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield


def close_bars() -> None:
    """End the bars that are on the screen, so that what is printed next begins a line."""
    if "tqdm.std" in sys.modules:
        from tqdm import tqdm

        for open_bar in list(getattr(tqdm, "_instances", ())):
            open_bar.close()


def accept_any_text(streams: Iterable[TextIO | Any]) -> None:
    """Let streams take every character, as an escape where their encoding has none for it; bytes of file names, too."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
