"""Rows that stand where a table of `datasets` stands in an `ImageSplit`, without that library and PyTorch."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, overload

import numpy as np

from hf_accel.errors import UserError


class Rows(ABC):
    """Images by number.

    Args:
        column: the name under which an image is handed over.
    """

    is_fixed = True  # a row is the same whenever it is read
    is_streamed = False  # only neighbouring rows are read quickly
    is_prepared = False  # the rows are tensors that the model takes as they are, instead of images

    def __init__(self, column: str) -> None:
        self.column = column

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def cell(self, row: int) -> dict[str, Any]:
        """The image of a row as a table has it: {"bytes", "path"}, one of them None."""

    @abstractmethod
    def select(self, rows: np.ndarray) -> Self:
        """Only these rows, in this order."""

    @abstractmethod
    def paths(self) -> list[str | None]:
        """The file of each row; None where an image has none."""

    @overload
    def __getitem__(self, key: int) -> dict[str, dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: slice) -> dict[str, list[dict[str, Any]]]: ...
    def __getitem__(self, key: int | slice) -> dict[str, Any]:
        if isinstance(key, slice):
            return {self.column: [self.cell(row) for row in range(*key.indices(len(self)))]}
        return {self.column: self.cell(key)}


class FileRows(Rows):
    """Image files, each a row."""

    def __init__(self, files: Sequence[str], column: str) -> None:
        super().__init__(column)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def cell(self, row: int) -> dict[str, Any]:
        return {"bytes": None, "path": self.files[row]}

    def select(self, rows: np.ndarray) -> Self:
        return type(self)([self.files[row] for row in rows], self.column)

    def paths(self) -> list[str | None]:
        return list(self.files)


def require_datasets(where: str) -> None:
    """Raises:
    UserError: tables cannot be read here.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{where}: is read with the library datasets, which is not installed. pip install datasets")
