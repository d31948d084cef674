"""Predictions as rows: one shape for `predictions.csv` of a run, for `evaluate` and for `predict`, and its one writer."""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TextIO

import numpy as np

from hf_accel.errors import UserError, did_you_mean
from hf_accel.tables import csv_cell, write_csv

if TYPE_CHECKING:
    from hf_accel.data.splits import ImageSplit
    from hf_accel.models.exported import Exported
    from hf_accel.models.loaded import Loaded

COLUMNS = ("row", "file", "label", "predicted", "confidence")
VERDICT = "verdict"  # a column, or key, of `predict`
EARLIER_COLUMNS = ("row", "label", "predicted", "confidence")  # of version 0.1, with numbers of classes and of rows
ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMS = ("csv", "jsonl")  # of a file


@dataclass(frozen=True)
class PredictedRow:
    """The prediction for one row."""

    best: Sequence[tuple[str, float]]  # the likeliest classes and their probabilities, best first
    row: int | None = None  # number in the data set; None: it is not of one
    file: str | None = None  # None: it has no file
    text: str | None = None  # of a row that is a text
    label: str | list[str] | None = None  # the true class, or labels; None: not known
    probabilities: Sequence[float] | None = None  # of all classes
    verdict: str | None = None  # sure, unsure or unlike; None: not known


@dataclass(frozen=True)
class PredictionShape:
    """Which columns, or keys, the rows have."""

    label_names: Sequence[str]
    top_k: int = 1  # classes with their probabilities
    probabilities: bool = False  # those of all classes, too
    has_text: bool = False  # rows are texts, which stand in a column of their own
    verdicts: bool = False  # whether the answers are sure
    ranks_classes: ClassVar[bool] = True  # False: it has no place for the likeliest classes

    @classmethod
    def of(cls, loaded: Loaded | Exported, top_k: int, probabilities: bool, has_text: bool) -> Self:
        """That of the answers of a model."""
        return cls(loaded.label_names, top_k, probabilities, has_text, loaded.confidence.is_learned)

    @property
    def columns(self) -> list[str]:
        others = [f"{name}_{rank}" for rank in range(2, self._ranks + 1) for name in COLUMNS[-2:]]
        others += [VERDICT] if self.verdicts else []
        text = ["text"] if self.has_text else []
        named = (f"p({name})" for name in (self.label_names if self.probabilities else ()))
        return [*COLUMNS[:2], *text, *COLUMNS[2:], *others, *named]

    def row(
        self, probabilities: np.ndarray, verdict: str | None = None, chosen: np.ndarray | None = None, **known: Any
    ) -> PredictedRow:
        """
        Args:
            probabilities: (C,)
            verdict, chosen: as in `models.confidence.Answer`.
            known: `row`, `file`, `text` and `label`, where they are known.
        """
        order = np.argsort(-probabilities, kind="stable")[: self._ranks]
        best = [(self.label_names[number], float(probabilities[number])) for number in order]
        whole = probabilities.tolist() if self.probabilities else None
        return PredictedRow(best, **known, verdict=verdict, probabilities=whole)

    def words(self, row: PredictedRow) -> list[str]:
        """The answer in the cells of a table for people; of all rows as many."""
        return [f"{name} {score:.3f}" for name, score in row.best]

    def cells(self, row: PredictedRow) -> list[Any]:
        """For the columns of a CSV file."""
        best = [cell for name, score in row.best[: self._ranks] for cell in (name, figure(score))]
        text = [row.text] if self.has_text else []
        verdict = [row.verdict] if self.verdicts else []
        return [row.row, row.file, *text, row.label, *best, *verdict, *map(figure, row.probabilities or ())]

    def record(self, row: PredictedRow) -> dict[str, Any]:
        """For JSON; what is not known is left out."""
        name, score = row.best[0]
        record: dict[str, Any] = {
            "row": row.row,
            "file": row.file,
            "text": row.text,
            "label": row.label,
            "predicted": name,
            "confidence": score,
            VERDICT: row.verdict,
        }
        record["labels"] = [{"label": name, "score": score} for name, score in row.best[: self._ranks]]
        if row.probabilities is not None:
            record["probabilities"] = dict(zip(self.label_names, row.probabilities, strict=True))
        return {key: value for key, value in record.items() if value is not None}

    @property
    def _ranks(self) -> int:
        return min(self.top_k, len(self.label_names))


def figure(probability: float) -> str:
    return f"{probability:.6f}"


def write_predictions(
    file: TextIO, shape: PredictionShape, rows: Iterable[PredictedRow], form: str = "csv", header: bool = True
) -> None:
    """Write rows as CSV, or as JSON lines, where `header` means nothing; each is flushed before the next is asked for."""
    if form == "csv":
        write_csv(file, shape.columns if header else (), ())
    for row in rows:
        if form == "csv":
            write_csv(file, (), [shape.cells(row)])
        else:
            file.write(json.dumps(shape.record(row)) + "\n")
        file.flush()


def form_of(path: Path, asked: str | None) -> str:
    """csv or jsonl: what was asked for, else what the ending says.

    Raises:
        UserError: neither says one of the two.
    """
    if asked in FORMS:
        return asked
    if asked is not None:
        raise UserError(f"--format {asked}: a file is written as csv or jsonl. Leave it out, or choose one of them.")
    form = ENDINGS.get(path.suffix.lower())
    if form is None:
        hint = did_you_mean(path.suffix.lower(), ENDINGS) if path.suffix else "It has no ending."
        raise UserError(
            f"--output {path}: expected a name that ends in .csv or .jsonl, or --format csv or jsonl. {hint}"
        )
    return form


def refuse_unwritable(path: Path) -> None:
    """Raises:
    UserError: the file cannot be written; nothing was tried.
    """
    where = f"--output {path}"
    if not path.parent.is_dir():
        raise UserError(f"{where}: the folder {path.parent} does not exist. Make it, or choose another file.")
    if path.exists() and not path.is_file():
        raise UserError(f"{where}: is not a regular file, expected a file to write the rows to")
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise UserError(f"{where}: {place} may not be written. Choose another file.")


class RowPredictions(ABC):
    """The base of a frozen dataclass with these fields: one entry for each row of a split, in its order."""

    label_names: Sequence[str]
    labels: np.ndarray  # (N,) or (N, C), of which row
    rows: np.ndarray  # (N,) int64, numbers in the data set
    files: Sequence[str | None]  # relative to the data set; empty where it has no files

    @abstractmethod
    def shape(self) -> PredictionShape: ...

    @abstractmethod
    def __iter__(self) -> Iterator[PredictedRow]: ...

    def of(self, split: ImageSplit) -> Self:
        """The same with the row numbers and the files of the split that was predicted.

        Raises:
            ValueError: the split has more or fewer rows.
        """
        if len(split) != len(self.labels):
            raise ValueError(f"{len(self.labels)} predictions for {len(split)} rows")
        this: Any = self
        return replace(this, rows=split.row_numbers(), files=split.file_names())

    def to_text(self, form: str = "csv") -> str:
        text = io.StringIO()
        write_predictions(text, self.shape(), self, form)
        return text.getvalue()


def read_columns(path: Path, *expected: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The cells of a `predictions.csv` by column, in its order.

    Args:
        expected: the columns that it may have, those of the present version first.
    Raises:
        OSError: there is no such file.
        ValueError: it has other columns.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if tuple(header) not in expected:
        raise ValueError(f"{path}: the columns are {', '.join(header)}, expected {', '.join(expected[0])}")
    return dict(zip(header, list(zip(*lines, strict=True)) or [()] * len(header), strict=True))


@dataclass(frozen=True)
class Predictions(RowPredictions):
    """The predictions of one class for each row."""

    label_names: Sequence[str]
    labels: np.ndarray  # (N,) int64
    predicted: np.ndarray  # (N,) int64
    confidence: np.ndarray  # (N,) float, the model's confidence in its prediction, in [0, 1]
    rows: np.ndarray  # (N,) int64, numbers in the data set
    files: Sequence[str | None] = field(default=())  # relative to the data set; empty where it has no files
    probabilities: np.ndarray | None = None  # (N, C), where they were asked for

    def shape(self) -> PredictionShape:
        return PredictionShape(self.label_names, probabilities=self.probabilities is not None)

    def __iter__(self) -> Iterator[PredictedRow]:
        columns = (self.rows, self.labels, self.predicted, self.confidence)
        for position, (row, label, predicted, confidence) in enumerate(zip(*columns, strict=True)):
            yield PredictedRow(
                best=[(self.label_names[predicted], float(confidence))],
                row=int(row),
                file=self.files[position] if self.files else None,
                label=self.label_names[label],
                probabilities=None if self.probabilities is None else self.probabilities[position].tolist(),
            )

    @classmethod
    def load(cls, path: Path, label_names: Sequence[str]) -> Self:
        """Read a run's `predictions.csv` back, also one of an earlier version, which has numbers of classes.

        Args:
            label_names: the classes of the run.
        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged, or of other classes.
        """
        columns = read_columns(path, COLUMNS, EARLIER_COLUMNS)
        numbers = {csv_cell(name): number for number, name in enumerate(label_names)}
        if tuple(columns) == EARLIER_COLUMNS:
            numbers = {str(number): number for number in range(len(label_names))}
        unknown = {*columns["label"], *columns["predicted"]} - numbers.keys()
        if unknown:
            raise ValueError(f"{path}: {min(unknown)!r} is not one of the run's {len(numbers)} classes")
        labels, predicted = (np.array([numbers[name] for name in columns[column]], np.int64) for column in COLUMNS[2:4])
        files = [name or None for name in columns.get("file", ())]
        confidence, rows = np.array(columns["confidence"], np.float64), np.array(columns["row"], np.int64)
        return cls(label_names, labels, predicted, confidence, rows, files if any(files) else ())
