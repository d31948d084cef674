"""What the rows of a split have in common, whatever they hold: labels, classes, and where they come from."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np


class LabelledRows(ABC):
    """The base of a frozen dataclass with these fields, and others for what the rows hold."""

    unit: ClassVar[str]  # what a row is: image or text
    stratified: ClassVar[str] = "stratified"  # how rows are drawn from it, in words
    labels: np.ndarray  # (N,) int64; all -1 where they are not known; see also `MultiLabelImages`
    label_names: list[str]
    source: str  # for messages: "data/cifar10, train split"
    fingerprint: str  # changes with the content and with the rows selected
    rows: np.ndarray | None  # (N,) the number of each row in `source`; None: 0..N-1
    groups: np.ndarray | None  # (N,) int64, equal for rows that `data.group_column` keeps together; None: it is not set

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_labelled(self) -> bool:
        return not len(self.labels) or bool(self.labels.max() >= 0)

    @property
    def is_streamed(self) -> bool:
        """Whether only neighbouring rows are read quickly, so that none are drawn from all over the split."""
        return False

    def row_numbers(self) -> np.ndarray:
        """(N,) int64: the number of each row in the data set."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def class_counts(self) -> np.ndarray:
        """(C,) int64: the number of rows of each class."""
        return np.bincount(self.labels, minlength=len(self.label_names))

    def rows_of_class(self, number: int) -> np.ndarray:
        """Row numbers, ascending."""
        return np.flatnonzero(self.labels == number)

    def strata(self) -> np.ndarray:
        """(N,) int64: rows that are drawn keep the share of each of these numbers."""
        return self.labels

    def label_text(self, row: int) -> str:
        """The label of a row, in words."""
        return self.label_names[int(self.labels[row])]

    def renumbered(self, numbers: np.ndarray, label_names: list[str]) -> Self:
        """The same rows with other numbers of their classes.

        Args:
            numbers: (C,) old number -> new one.
        """
        return self.relabelled(numbers[self.labels], label_names)

    def relabelled(self, labels: np.ndarray, label_names: list[str]) -> Self:
        """The same rows with other classes."""
        this: Any = self
        return dataclasses.replace(this, labels=labels, label_names=label_names)

    @abstractmethod
    def select(self, rows: np.ndarray) -> Self:
        """The split that has only these rows, in this order."""

    @abstractmethod
    def where(self, row: int) -> str:
        """The place of a row, for messages."""

    @abstractmethod
    def read(self, row: int) -> Any:
        """What a row holds: the pixels of an image, (H, W, channels) uint8, or a text."""

    def shown(self, row: int) -> Any:
        """What a row holds, as people see it: an image in colour."""
        return self.read(row)

    def file_names(self) -> list[str | None]:
        """The file of each row, relative to the folder of the data; None where a row has none."""
        return [None] * len(self)
