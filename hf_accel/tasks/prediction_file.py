"""A file of predictions that grows row by row, and that the same command continues after an interruption.

What the rows were made by is in a second file next to it, `FILE.settings.json`: a CSV file has no place for it that every
reader would skip.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.tables import csv_cell
from hf_accel.tasks.predictions import PredictedRow, PredictionShape, refuse_unwritable, write_predictions

WRITTEN_BY = "hf-accel predict"
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
    """The file, and which images it has rows of; use `open`."""

    def __init__(self, path: Path, form: str, shape: PredictionShape, settings: dict[str, Any]) -> None:
        self.path, self.form, self.shape, self.settings = path, form, shape, settings
        self._before: set[str] = set()
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
            output._before = set(output._files_done())
        return output

    def __len__(self) -> int:
        """Rows in the file."""
        return len(self._before) + self._added

    def holds(self, file: str) -> bool:
        return self._key(file) in self._before

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

    def _key(self, file: str) -> str:
        return csv_cell(file) if self.form == "csv" else file

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

    def _files_done(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8", newline="") as file:
            whole = (line for line in file if line.endswith("\n"))
            try:
                if self.form == "csv":
                    yield from (row["file"] for row in csv.DictReader(whole))
                else:
                    yield from (json.loads(line)["file"] for line in whole)
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
