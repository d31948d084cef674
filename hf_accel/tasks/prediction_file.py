"""A file of predictions that grows row by row, and that the same command continues after an interruption.

What the rows were made by is in a second file next to it, `FILE.settings.json`: a CSV file has no place for it that every
reader would skip.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.tables import csv_cell
from hf_accel.tasks.predictions import PredictedRow, PredictionShape, refuse_unwritable, write_predictions

WRITTEN_BY = "hf-accel predict"
PLACE = ("row", "file", "text")  # keys that tell a row from the others
_CHUNK = 1 << 16  # bytes


def settings_of(content: str, name: str, shape: PredictionShape, **others: Any) -> dict[str, Any]:
    """What the rows of a file are made by: the model by its content, the columns, and `others`."""
    return {
        "written_by": WRITTEN_BY,
        "model": name,
        "model_content": content,
        "top_k": shape.top_k,
        "probabilities": shape.probabilities,
        **others,
    }


class PredictionFile:
    """The file, and what it has rows of; use `open`."""

    def __init__(self, path: Path, form: str, shape: PredictionShape, settings: dict[str, Any]) -> None:
        self.path, self.form, self.shape, self.settings = path, form, shape, settings
        self._before: set[bytes] = set()
        self._added = 0
        self._file: TextIO | None = None

    @classmethod
    def open(cls, path: Path, form: str, shape: PredictionShape, settings: dict[str, Any]) -> Self:
        """Find out what the file holds already; it is written from the first row on.

        Args:
            form: csv or jsonl.
            settings: of `settings_of`.

        Raises:
            UserError: it is not a file that the same command wrote, or it cannot be written.
        """
        output = cls(path, form, shape, settings)
        where = f"--output {path}"
        refuse_unwritable(path)
        if path.exists() and path.stat().st_size:
            output._refuse_foreign(where)
            output._before = set(output._done())
        return output

    def __len__(self) -> int:
        """Rows in the file."""
        return len(self._before) + self._added

    def holds(self, place: Mapping[str, Any]) -> bool:
        """Whether there is a row of this place: its `file`, and for a text its `row` and `text`."""
        return self._key(place) in self._before

    def write(self, rows: Iterable[PredictedRow]) -> None:
        """Add rows; each is in the file before the next is asked for."""
        for row in rows:
            if self._file is None:
                self._file = self._begin()
            write_predictions(self._file, self.shape, [row], self.form, header=False)
            self._added += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> TextIO:
        """The file with its header, or without the row of which an interruption left only a part."""
        is_new = not self.path.exists() or not self.path.stat().st_size
        if is_new:
            write_whole(_settings_file(self.path), json.dumps(self.settings, indent=2) + "\n")
        else:
            os.truncate(self.path, _whole_lines_end(self.path))
        file = self.path.open("a", encoding="utf-8", newline="")
        write_predictions(file, self.shape, (), self.form, header=is_new)
        return file

    def _key(self, place: Mapping[str, Any]) -> bytes:
        """A hash, because the texts of all rows may take more memory than there is."""
        cells = ["" if place.get(name) is None else str(place[name]) for name in PLACE]
        if self.form == "csv":
            cells = [csv_cell(cell) for cell in cells]
        return hashlib.blake2b("\0".join(cells).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _key_of_row(self, row: Mapping[str, Any]) -> bytes:
        """Raises KeyError: it is not a row of predictions."""
        if "predicted" not in row:
            raise KeyError("predicted")
        return self._key(row)

    def _refuse_foreign(self, where: str) -> None:
        kept, settings = _settings_file(self.path), self.settings
        again = f"remove {self.path} and {kept.name} to start from scratch, or choose another file"
        try:
            before = json.loads(kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict) or before.get("written_by") != WRITTEN_BY:
            raise UserError(
                f"{where}: exists, and {kept.name} next to it does not say that {WRITTEN_BY} wrote it. It is left as it is: "
                "choose another file, or move it."
            )
        if before.get("model_content") != settings["model_content"]:
            raise UserError(f"{where}: holds the rows of another model ({before.get('model')}): {again}.")
        names = sorted((before.keys() | settings.keys()) - {"model", "model_content"})
        changed = [
            f"{name} was {json.dumps(before.get(name))} and is {json.dumps(settings.get(name))}"
            for name in names
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise UserError(f"{where}: was begun with other settings ({', '.join(changed)}): {again}.")

    def _done(self) -> Iterator[bytes]:
        with self.path.open(encoding="utf-8", newline="") as file:
            whole = (line for line in file if line.endswith("\n"))
            try:
                if self.form == "csv":
                    yield from map(self._key_of_row, csv.DictReader(whole))
                else:
                    yield from (self._key_of_row(json.loads(line)) for line in whole)
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise UserError(
                    f"--output {self.path}: holds lines that are not rows of predictions ({type(error).__name__}: {error}). It "
                    "is left as it is: correct or move it."
                ) from error


def _settings_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.settings.json")


def _whole_lines_end(path: Path) -> int:
    """The size in bytes of the lines that are complete."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
