"""Predictions as rows where a row has any number of labels: in a cell of a CSV file names stand between `|`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from hf_accel.data.multi_label_images import NONE
from hf_accel.tables import csv_cell, printable
from hf_accel.tasks.predictions import COLUMNS, PredictedRow, PredictionShape, RowPredictions, figure, read_columns

if TYPE_CHECKING:
    from hf_accel.models.exported import Exported
    from hf_accel.models.loaded import Loaded

BETWEEN = "|"


@dataclass(frozen=True)
class LabelSetShape(PredictionShape):
    """As `PredictionShape`, of rows whose `best` are all labels that the row is given, the surest first."""

    ranks_classes: ClassVar[bool] = False

    @classmethod
    def of(cls, loaded: Loaded | Exported, top_k: int, probabilities: bool, has_text: bool) -> Self:
        return cls(loaded.label_names, probabilities=probabilities, has_text=has_text)

    def row(
        self, probabilities: np.ndarray, verdict: str | None = None, chosen: np.ndarray | None = None, **known: Any
    ) -> PredictedRow:
        assert chosen is not None, "the model says which labels it gives"
        order = [number for number in np.argsort(-probabilities, kind="stable").tolist() if chosen[number]]
        best = [(self.label_names[number], float(probabilities[number])) for number in order]
        return PredictedRow(best, **known, probabilities=probabilities.tolist() if self.probabilities else None)

    def words(self, row: PredictedRow) -> list[str]:
        return [", ".join(super().words(row)) or NONE]

    def cells(self, row: PredictedRow) -> list[Any]:
        label = row.label if isinstance(row.label, str | None) else BETWEEN.join(row.label)
        names, scores = (BETWEEN.join(column) for column in (_names(row), [figure(score) for _, score in row.best]))
        text = [row.text] if self.has_text else []
        return [row.row, row.file, *text, label, names, scores, *map(figure, row.probabilities or ())]

    def record(self, row: PredictedRow) -> dict[str, Any]:
        record: dict[str, Any] = {"row": row.row, "file": row.file, "text": row.text, "label": row.label}
        record = {key: value for key, value in record.items() if value is not None}
        record["predicted"] = _names(row)
        record["labels"] = [{"label": name, "score": score} for name, score in row.best]
        if row.probabilities is not None:
            record["probabilities"] = dict(zip(self.label_names, row.probabilities, strict=True))
        return record


def _names(row: PredictedRow) -> list[str]:
    return [name for name, _ in row.best]


@dataclass(frozen=True)
class LabelSetPredictions(RowPredictions):
    """The predictions of labels for each row, with the scores of all labels."""

    label_names: Sequence[str]
    labels: np.ndarray  # (N, C) int, 1 where a row has the label
    predicted: np.ndarray  # (N, C) bool
    probabilities: np.ndarray  # (N, C) in [0, 1]
    rows: np.ndarray  # (N,) int64, numbers in the data set
    files: Sequence[str | None] = field(default=())  # relative to the data set; empty where it has no files

    def shape(self) -> LabelSetShape:
        return LabelSetShape(self.label_names, probabilities=True)

    def __iter__(self) -> Iterator[PredictedRow]:
        shape = self.shape()
        for place, (row, labels) in enumerate(zip(self.rows, self.labels, strict=True)):
            yield shape.row(
                self.probabilities[place],
                chosen=self.predicted[place],
                row=int(row),
                file=self.files[place] if self.files else None,
                label=[self.label_names[number] for number in np.flatnonzero(labels > 0).tolist()],
            )

    @classmethod
    def load(cls, path: Path, label_names: Sequence[str]) -> Self:
        """Read a run's `predictions.csv` back.

        Args:
            label_names: the labels of the run.
        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged, or of other labels.
        """
        names = LabelSetShape(label_names, probabilities=True).columns
        columns = read_columns(path, tuple(csv_cell(name) for name in names))
        sets = [_matrix(columns[name], label_names, path) for name in COLUMNS[2:4]]
        scores = np.array(list(columns.values())[len(COLUMNS) :], np.float64).T.reshape(-1, len(label_names))
        files = [name or None for name in columns["file"]]
        rows = np.array(columns["row"], np.int64)
        return cls(label_names, sets[0].astype(np.int64), sets[1], scores, rows, files if any(files) else ())


def _matrix(cells: Sequence[str], label_names: Sequence[str], path: Path) -> np.ndarray:
    """(N, C) bool: whether the names in a cell are the label's."""
    numbers = {printable(name): number for number, name in enumerate(label_names)}
    found = np.zeros((len(cells), len(label_names)), bool)
    for row, cell in enumerate(cells):
        names = cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell
        for name in names.split(BETWEEN) if names else ():
            if name not in numbers:
                raise ValueError(f"{path}: {name!r} is not one of the run's {len(numbers)} labels")
            found[row, numbers[name]] = True
    return found
