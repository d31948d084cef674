"""The texts that `hf-accel predict` is given: on its command line, in files, and line by line on standard input.

Which argument is a file is decided by its ending and by nothing else, so that a command means the same in every folder. What
looks like neither is refused where it could be a mistake: a folder without its slash, a file of another kind.
"""

from __future__ import annotations

import glob
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hf_accel.config.sections import DataSettings
from hf_accel.data.listing import list_files, matching_files, near_names
from hf_accel.data.text import unlabelled_split
from hf_accel.data.text_sources import KINDS, open_text_source
from hf_accel.errors import UserError

LINES = ".txt"  # one text per line
ENDINGS = (LINES, *KINDS)
EXPECTED = (
    f"Expected a text, a file of texts ({', '.join(ENDINGS)}), a folder of them with a slash at its end, or a glob such as "
    "'*.csv'. A text that ends as a file does can be given on standard input, to -."
)
STANDARD_INPUT = "standard input"
_BLANK, _NOT_UTF8 = "it is blank", "it is not UTF-8"
_BLOCK = 1 << 20  # bytes


class UnusableTextError(UserError):
    """A row that has no text. `reason` is the message without the place of the row."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: cannot be classified: {reason}")
        self.where, self.reason = where, reason

    def __reduce__(self) -> tuple[type[UnusableTextError], tuple[str, str]]:
        return type(self), (self.where, self.reason)  # an exception is copied to another process by its arguments


@dataclass(frozen=True)
class TextSource:
    """A text to be classified, and where it was found."""

    text: str
    row: int  # number in its file, on standard input or on the command line, from 0
    file: str | None = None  # None: it is not from a file
    problem: str = ""  # why it cannot be classified; empty: it can

    @property
    def where(self) -> str:
        return f"row {self.row} of {self.file or 'the texts that are given'}"

    def require_text(self) -> str:
        """Raises UnusableTextError: there is none."""
        if self.problem:
            raise UnusableTextError(self.where, self.problem)
        return self.text


class TextFile(ABC):
    """A file of texts, which are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int:
        """The number of its texts, those that cannot be classified included."""

    @abstractmethod
    def __iter__(self) -> Iterator[TextSource]: ...


class LinesFile(TextFile):
    """One text per line."""

    def __len__(self) -> int:
        lines, end = 0, b"\n"
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                lines += block.count(b"\n")
                end = block[-1:]
        return lines + (end != b"\n")

    def __iter__(self) -> Iterator[TextSource]:
        with self.path.open("rb") as file:
            yield from texts_of_lines(file, str(self.path))


class TableFile(TextFile):
    """One text per row, in the columns in which training would find it; see `data.text.text_columns`.

    Raises:
        UserError: the file cannot be read, or its columns of text are not clear.
    """

    def __init__(self, path: Path, text_column: str | list[str] | None = None) -> None:
        super().__init__(path)
        settings = DataSettings(name=str(path), text_column=text_column)
        (table,) = open_text_source(settings).parts.values()
        self.split = unlabelled_split(table, settings, str(path))

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[TextSource]:
        texts = itertools.chain.from_iterable(self.split.portions())
        problem = f"it has no text in {' and '.join(self.split.columns)} (null, blank or not text)"
        for row, text in enumerate(texts):
            yield TextSource(text, row, str(self.path), "" if text else problem)


class TextList:
    """Texts of several places, in their order."""

    def __init__(self, parts: list[TextFile | list[TextSource]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[TextSource]:
        return itertools.chain.from_iterable(self.parts)


def find_texts(arguments: Sequence[str], text_column: str | list[str] | None = None) -> TextList:
    """The texts that words of a command line stand for.

    Args:
        arguments: an argument that ends as a file of texts does is a file or a glob; one that ends in a slash is a folder,
            whose files of texts are read, to its depth; any other is a text.
        text_column: of tables; None: found by name.
    Raises:
        UserError: there is no such file or folder, a table cannot be read, or what looks like a text is the name of a file.
    """
    parts: list[TextFile | list[TextSource]] = []
    for position, argument in enumerate(arguments):
        if not is_file_name(argument):
            _refuse_other_file(argument)
            parts.append([_source(argument, position)])
            continue
        for path in _files_of(argument):
            parts.append(LinesFile(path) if _ending(path) == LINES else TableFile(path, text_column))
    return TextList(parts)


def listed_texts(stream: TextIO) -> Iterator[TextSource]:
    """One text per line, read as they come."""
    return texts_of_lines(getattr(stream, "buffer", stream), STANDARD_INPUT)


def single_texts(given: Any) -> Iterator[TextSource]:
    """Each text that a Python caller gives: a text, the `Path` of a file or a folder of texts, or several of these.

    Raises:
        UserError: it is something else, or there is no such file.
    """
    listed = [given] if isinstance(given, str | Path) or not isinstance(given, Iterable) else given
    for row, item in enumerate(listed):
        if isinstance(item, str):
            yield _source(item, row)
        elif isinstance(item, Path) and (item.is_dir() or is_file_name(str(item))):
            yield from find_texts([f"{item}/" if item.is_dir() else str(item)])
        else:
            what = f"the path {item}" if isinstance(item, Path) else f"of the type {type(item).__name__}"
            raise UserError(
                f"texts: row {row} is {what}, expected a text, or the path of a file ({', '.join(ENDINGS)})"
            )


def texts_of_lines(lines: Iterable[bytes | str], file: str) -> Iterator[TextSource]:
    """The text of each line; one that is blank or not UTF-8 says so."""
    for row, line in enumerate(lines):
        try:
            text = line if isinstance(line, str) else line.decode("utf-8-sig" if row == 0 else "utf-8")
        except UnicodeDecodeError:
            yield TextSource("", row, file, _NOT_UTF8)
        else:
            yield _source(text, row, file)


def is_file_name(argument: str) -> bool:
    """Whether an argument is the name of a file, a folder or a glob, and not a text.

    >>> [is_file_name(word) for word in ("reviews.csv", "reviews/", "It works.")]
    [True, True, False]
    """
    return argument.endswith(("/", os.sep)) or _ending(Path(argument)) in ENDINGS


def _source(text: str, row: int, file: str | None = None) -> TextSource:
    text = text.strip()
    return TextSource(text, row, file, "" if text else _BLANK)


def _files_of(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = [path / inner for inner in list_files(path).files]
        problem = "the folder holds no file of texts"
    elif path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise UserError(f"{name}: no such file or folder{near_names(path)}. {EXPECTED}")
        if not path.is_file():
            raise UserError(f"{name}: is not a regular file (a pipe, socket or device). {EXPECTED}")
        return [path]
    else:
        found, problem = matching_files(str(path)), "no file of texts matches this pattern"
    files = [path for path in found if _ending(path) in ENDINGS]
    if not files:
        raise UserError(f"{name}: {problem}. {EXPECTED}")
    return files


def _refuse_other_file(argument: str) -> None:
    """A text may be longer than the name of a file can be, which is an error of its own."""
    try:
        path = Path(argument).expanduser()
        kind = "folder" if path.is_dir() else "file" if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return
    if kind == "folder":
        raise UserError(
            f"{argument}: is a folder. Write {argument}/ for the texts in it, or give a text on standard input."
        )
    if kind == "file":
        raise UserError(f"{argument}: is a file of another kind. {EXPECTED}")


def _ending(path: Path) -> str:
    return path.suffix.lower()
