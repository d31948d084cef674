"""Tables as text: in the terminal, in Markdown, in LaTeX and as CSV.

Names of classes and files come from other people's folders and data sets. Here they lose everything that would act
instead of being shown: control characters in a terminal, markup in a page, formulas in a spreadsheet.
"""

from __future__ import annotations

import csv
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TextIO

FORMATS = {"plain": "plain", "markdown": "pipe", "latex": "latex_booktabs"}  # their names in tabulate
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Characters that move the cursor, hide text or reverse its direction; a lone surrogate cannot be encoded at all.
UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def format_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Any]],
    style: Literal["plain", "markdown", "latex"] = "plain",
    align: str | None = None,
    min_widths: Sequence[int] = (),
    indent: int = 0,
) -> str:
    """Lay out a table; the text does not end in a newline.

    Args:
        headings: one per column; empty for a table without headings, which Markdown and LaTeX cannot have.
        rows: cells of any type, shown as `str` shows them; format figures before.
        align: "l" or "r" per column; None is left for the first column and right for the others.
        min_widths: characters per column, so that tables below each other line up; plain style only.
        indent: spaces before each line.

    >>> print(format_table(["class", "F1"], [["cat", "0.9"], ["horse", "0.75"]]))
    class    F1
    cat     0.9
    horse  0.75
    """
    from tabulate import tabulate  # here, because it takes a fifth of a second, and --help needs no table

    show = markdown_text if style == "markdown" else printable
    lines = [[show(str(cell)) for cell in line] for line in ([headings, *rows] if headings else rows)]
    if not lines:
        return ""
    align = align or "l" + "r" * (len(lines[0]) - 1)
    if min_widths:
        lines[0] = [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, side, width in zip(lines[0], align, min_widths, strict=True)
        ]
    # A heading that is a plain row gets no extra space from tabulate.
    table = tabulate(
        lines if style == "plain" else lines[1:],
        headers=() if style == "plain" else lines[0],
        tablefmt=FORMATS[style],
        colalign=[{"l": "left", "r": "right"}[side] for side in align],
        disable_numparse=True,
        preserve_whitespace=True,
    )
    if style == "latex":
        table = table.replace("±", r"$\pm$")
    return textwrap.indent("\n".join(line.rstrip() for line in table.splitlines()), " " * indent)


def printable(text: str) -> str:
    r"""The text with each character that a terminal would obey, or could not show, as a visible escape.

    >>> print(printable("cat\x1b[2J"))
    cat\x1b[2J
    """
    return "".join(_escape(character) if _is_unsafe(character) else character for character in text)


def markdown_text(text: str) -> str:
    r"""The text on one line, without effect as Markdown or HTML.

    >>> print(markdown_text("a|b <i>"))
    a\|b \<i\>
    """
    escaped = re.sub(r"([\\|<>`*~\[\]])", r"\\\1", printable(" ".join(text.split())))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)  # an underscore within a word is not markup


def csv_cell(value: Any) -> Any:
    """A value for a CSV file: text that a spreadsheet would run as a formula begins with `'`; other types stay.

    >>> [csv_cell(value) for value in ("=1+1", "cat", -0.5)]
    ["'=1+1", 'cat', -0.5]
    """
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(FORMULA_STARTS) else "") + printable(value)


def write_csv(file: TextIO, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV; None is an empty cell. Pass figures as numbers: negative ones as text would be quoted.

    Without headings, rows are added to a table that has them.
    """
    writer = csv.writer(file, lineterminator="\n")
    if headings:
        writer.writerow([csv_cell(heading) for heading in headings])
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in UNSAFE_CATEGORIES or character in DIRECTION_MARKS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
