"""The rows that a Python caller brings, each with any number of labels -> `Splits`; see `data.given` for the forms of rows.

The labels of a row are a list of names, a list of class numbers, or an array or tensor (C,) of 0 and 1. Lists of whole numbers
are taken as 0 and 1 where all have one length, hold nothing else, and one of them has a number twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import datasets
import numpy as np
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import SELECTION, Classes, by_role, is_fixed, is_table, raw_labels, rows_of
from hf_accel.data.given_rows import part_of_rows
from hf_accel.data.label_file import is_frame, read_frame
from hf_accel.data.label_sets import choose_label_columns, label_sets_of_table, ordered_names
from hf_accel.data.labels import normal_name
from hf_accel.data.multi_label import (
    LabelSets,
    label_matrix,
    multi_label_splits_of_source,
    plain_cells,
    unlabelled_notes,
)
from hf_accel.data.multi_label_images import MultiLabelImages
from hf_accel.data.sources import Source, source_of_files, source_of_tables
from hf_accel.data.splits import Splits, splits_of_parts
from hf_accel.errors import UserError

EXPECTED = "expected a list of names or of whole numbers, or an array of 0 and 1"


def given_multi_label_splits(
    given: Any, settings: DataSettings, seed: int, classes: Classes
) -> Splits[MultiLabelImages]:
    """Decide which of the given rows train, select and score; see `data.given.given_splits`.

    Raises:
        UserError: rows that cannot be understood or divided; the message names them.
    """
    settings = replace(settings, name=f"given as {type(given).__name__}")
    parts = by_role(given, settings.name)
    if {"validation", "test"} <= set(parts):
        settings = replace(settings, validation=settings.validation or SELECTION)  # not drawn: only not zero
    if all(map(is_frame, parts.values())):
        source, reading = _source_of_frames(given, parts, settings)
        return multi_label_splits_of_source(source, reading, settings, seed, name_classes=classes.chosen)
    rows = {role: rows_of(part, f"the given {role} rows") for role, part in parts.items()}
    if all(map(is_table, rows.values())):
        tables = {role: table.with_format(None) for role, table in rows.items()}
        source = source_of_tables(f"data.name {settings.name}", tables)
        return multi_label_splits_of_source(source, settings, settings, seed, name_classes=classes.chosen)
    if "train" not in rows:
        raise UserError(f"data.name {settings.name}: has no train rows, only {', '.join(rows)}.")
    sets = {role: GivenLabelSets.of(part, f"the given {role} rows", settings) for role, part in rows.items()}
    names = classes.chosen(sets["train"].found(), sets["train"].are_numbers)
    split = {
        role: _part(rows[role], f"the given {role} rows", settings, found.matrix(names), names)
        for role, found in sets.items()
        if role == "train" or any(found.rows)
    }
    notes = [f"the given {role} rows have no labels: not used" for role in rows if role not in split]
    return splits_of_parts(split, settings, seed, True, notes + unlabelled_notes(split))


def given_multi_label_split(given: Any, settings: DataSettings, label_names: list[str]) -> MultiLabelImages:
    """Rows to be predicted or scored by a model of these labels; they may have none.

    Raises:
        UserError: rows that cannot be understood, or a label that the model does not know.
    """
    where = "the given rows"
    source = rows_of(given, where)
    if is_table(source):
        source = source.with_format(None)
        labels = _labels_of_table(source, settings, label_names, where)
    else:
        is_labelled = any(value is not None for value in raw_labels(source, where, _key(settings))[0])
        labels = GivenLabelSets.of(source, where, settings).matrix(label_names) if is_labelled else None
    unknown = np.full((len(source), len(label_names)), -1)
    return _part(source, where, settings, unknown if labels is None else labels, label_names)


def _labels_of_table(
    table: datasets.Dataset, settings: DataSettings, label_names: list[str], where: str
) -> np.ndarray | None:
    """(N, C) int64; None: the table has no columns of labels."""
    cells = plain_cells(table, settings)
    chosen = choose_label_columns(where, cells, settings, ()) if cells else None
    return None if chosen is None else LabelSets(chosen, label_names).matrix(table, where)


def _source_of_frames(given: Any, parts: dict[str, Any], settings: DataSettings) -> tuple[Source, DataSettings]:
    """A DataFrame, which may have a column that names its splits, or one for each role; see `multi_label.open_label_sets`."""
    import pandas as pd

    frame = given if is_frame(given) else pd.concat([rows.assign(split=role) for role, rows in parts.items()])
    tables, notes = read_frame(frame, settings, settings.name, label_sets_of_table)
    return source_of_files(tables, notes, settings), replace(settings, label_column=next(iter(tables.values())).column)


@dataclass(frozen=True)
class GivenLabelSets:
    """The labels of rows as they were given."""

    rows: list[list[str]]  # (N,) names, or numbers as text
    where: str
    are_numbers: bool = False  # which have names only if the caller or the model gives them
    width: int = 0  # of arrays of 0 and 1

    @classmethod
    def of(cls, rows: Any, where: str, settings: DataSettings) -> Self:
        """Raises:
        UserError: a row has something else than labels.
        """
        values, names = raw_labels(rows, where, _key(settings))
        cells = [_plain(value, f"{where}: row {row}") for row, value in enumerate(values)]
        lengths = {len(cell) for cell in cells if cell is not None}
        if any(map(_is_array, values)) or _look_like_flags(cells):
            if len(lengths) > 1 or not all(label in (0, 1) for cell in cells for label in cell or ()):
                raise UserError(f"{where}: arrays of labels are of one length and hold 0 and 1, got others. {EXPECTED}")
            found = [[str(number) for number, flag in enumerate(cell or ()) if flag] for cell in cells]
            return cls(found, where, True, max(lengths, default=0))
        are_numbers = names is None and any(isinstance(label, int) for cell in cells for label in cell or ())
        named = names or []
        found = [
            [named[label] if isinstance(label, int) and named else normal_name(str(label)) for label in cell or ()]
            for cell in cells
        ]
        return cls(found, where, are_numbers)

    def found(self) -> list[str]:
        """The labels that occur; of arrays all."""
        return ordered_names({name for row in self.rows for name in row} | {str(n) for n in range(self.width)})

    def matrix(self, names: list[str]) -> np.ndarray:
        """(N, C) int64; raises UserError for a label that is none of these."""
        numbered = {str(number): name for number, name in enumerate(names)} if self.are_numbers else {}
        return label_matrix([[numbered.get(label, label) for label in row] for row in self.rows], names, self.where)


def _is_array(value: Any) -> bool:
    """Whether it is one of numbers, and not of names."""
    return isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind not in "UO")


def _look_like_flags(cells: Sequence[list[Any] | None]) -> bool:
    known = [cell for cell in cells if cell is not None]
    are_binary = all(type(label) in (int, bool) and label in (0, 1) for cell in known for label in cell)
    has_twice = any(len(set(cell)) < len(cell) for cell in known)
    return are_binary and has_twice and len({len(cell) for cell in known}) == 1


def _plain(value: Any, where: str) -> list[Any] | None:
    """The labels of a row as Python has them; None: they are not known."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 1:
        value = value.tolist()
        if not any(isinstance(label, str) for label in value):
            return value
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        value = [value]
    if value is None:
        return None
    if not isinstance(value, list | tuple | set):
        raise UserError(f"{where} has the labels {value!r}, {EXPECTED}")
    plain = [label.item() if hasattr(label, "item") else label for label in value]
    wrong = [label for label in plain if not isinstance(label, str | int)]
    if wrong:
        raise UserError(f"{where} has the label {wrong[0]!r}, {EXPECTED}")
    return plain


def _key(settings: DataSettings) -> str | None:
    return settings.label_column if isinstance(settings.label_column, str) else None


def _part(source: Any, where: str, settings: DataSettings, labels: np.ndarray, names: list[str]) -> MultiLabelImages:
    return part_of_rows(source, where, settings, labels, names, is_fixed=is_fixed(source), kind=MultiLabelImages)
