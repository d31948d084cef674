"""The predictions of a model for the rows of a split; `predictions.csv` of a run has one line for each."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

COLUMNS = ("row", "label", "predicted", "confidence")


@dataclass(frozen=True)
class Predictions:
    """One entry per evaluated row, in the order of rows."""

    rows: np.ndarray  # (N,) int64, numbers in the split
    labels: np.ndarray  # (N,) int64
    predicted: np.ndarray  # (N,) int64
    confidence: np.ndarray  # (N,) float, the model's confidence in its prediction, in [0, 1]

    def to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for row, label, predicted, confidence in zip(
            self.rows.tolist(), self.labels.tolist(), self.predicted.tolist(), self.confidence.tolist(), strict=True
        ):
            writer.writerow([row, label, predicted, f"{confidence:.6f}"])
        return text.getvalue()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a run's `predictions.csv` back.

        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged.
        """
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"{path}: the columns are {', '.join(header)}, expected {', '.join(COLUMNS)}")
        columns = list(zip(*lines, strict=True)) or [()] * len(COLUMNS)
        rows, labels, predicted = (np.array(column, dtype=np.int64) for column in columns[:3])
        return cls(rows, labels, predicted, np.array(columns[3], dtype=np.float64))
