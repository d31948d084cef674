"""The rows that a Python caller brings -> `Splits`, with the same rules as those of a data set that a recipe names.

Forms of the rows of one split: a `datasets.Dataset`; a DataFrame of paths and labels; a torch data set, or anything else
with a length and numbered rows, of (image, label) or of mappings; a pair (images, labels) of two columns, or a mapping of
them. An image is a path, a PIL image, uint8 pixels, or the model's input as a float tensor (3, H, W). Files and tables are
read as those of a recipe are, so they can be cached; a torch data set is asked for each row whenever it is needed, because it
may transform at random.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import ConcatDataset, IterableDataset, Subset

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import find_columns
from hf_accel.data.given_rows import COLUMN, IMAGE_KEYS, LABEL_KEYS, image_of, label_of, part_of_rows
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.label_file import is_frame, read_frame
from hf_accel.data.labels import normal_name
from hf_accel.data.sources import source_of_files, source_of_tables
from hf_accel.data.split_names import split_role
from hf_accel.data.splits import Splits, splits_of_parts, splits_of_source
from hf_accel.errors import UserError, did_you_mean

logger = logging.getLogger(__name__)

SELECTION = 0.1  # of train, where data.validation is 0 and the caller brings validation rows all the same
EXPECTED = (
    "expected a datasets.Dataset, a DataFrame, a torch data set of (image, label) or of dictionaries, a list of such rows, "
    "or a pair (images, labels)"
)


@dataclass(frozen=True)
class Classes:
    """What is known of the classes before the rows are read."""

    names: list[str] | None = None  # in the order of their numbers, as the caller gives them
    of_model: list[str] | None = None  # of the given model; their order is kept where the data has the same classes

    def chosen(self, found: list[str], are_numbers: bool = False) -> list[str]:
        """The classes in the order of their numbers.

        Args:
            found: the names that the train rows have.
            are_numbers: they are only numbers of classes, not names.
        Raises:
            UserError: a class of the train rows is not among those that the caller names.
        """
        if self.names is not None:
            _require_known(found, self.names, are_numbers)
            return self.names
        if self.of_model is not None and (set(found) == set(self.of_model) or are_numbers):
            _require_known(found, self.of_model, are_numbers)
            return self.of_model
        return found


def _require_known(found: list[str], names: list[str], are_numbers: bool) -> None:
    known = [str(number) for number in range(len(names))] if are_numbers else names
    unknown = [name for name in found if name not in known]
    if unknown and are_numbers:
        raise UserError(
            f"the train rows have the label {unknown[0]}, expected 0 to {len(names) - 1} for {len(names)} classes"
        )
    if unknown:
        raise UserError(f"the train rows have the class {unknown[0]!r}. {did_you_mean(unknown[0], names)}")


class Columns:
    """Images and labels that are given as two columns, as rows."""

    def __init__(self, images: Any, labels: Any, where: str) -> None:
        if labels is not None and len(images) != len(labels):
            raise UserError(
                f"{where}: {len(images)} images and {len(labels)} labels, expected one label for each image"
            )
        self.images, self.targets = _numbered(images), _numbered(labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.images[row], None if self.targets is None else self.targets[row]


def _numbered(column: Any) -> Any:
    return column.to_numpy() if hasattr(column, "iloc") else column  # a pandas Series is read by its index otherwise


def given_splits(given: Any, settings: DataSettings, seed: int, classes: Classes) -> Splits:
    """Decide which of the given rows train, select and score, as `load_splits` does.

    Args:
        given: the train rows, or a mapping of roles (train, validation, test) to rows, `datasets.DatasetDict` included.
            With train, validation and test rows all three are what they are called.
        settings: the `data:` section of a recipe; its `name` is not read.
        seed: draws the held-out rows.
        classes: what is known of the classes.
    Raises:
        UserError: rows that cannot be understood or divided; the message names them.
    """
    settings = replace(settings, name=f"given as {type(given).__name__}")
    parts_given = by_role(given, settings.name)
    if all(map(is_frame, parts_given.values())):
        return _frame_splits(given, parts_given, settings, seed, classes)
    if {"validation", "test"} <= set(parts_given):
        settings = replace(settings, validation=settings.validation or SELECTION)  # not drawn: only not zero
    sources = {role: rows_of(rows, f"the given {role} rows") for role, rows in parts_given.items()}
    sources = {role: _as_table(rows, f"the given {role} rows", settings) for role, rows in sources.items()}
    if all(map(is_table, sources.values())):
        columns = {role: find_columns(table, settings)[1] for role, table in sources.items()}
        numbered = {role: with_class_names(sources[role], columns[role], settings, classes) for role in sources}
        source = source_of_tables(f"data.name {settings.name}", numbered)
        return splits_of_source(source, settings, seed, name_classes=classes.chosen)
    read = {
        role: _labels_of(rows, f"the given {role} rows", settings.one_label_column) for role, rows in sources.items()
    }
    if "train" not in read:
        raise UserError(f"data.name {settings.name}: has no train rows, only {', '.join(read)}.")
    notes = [f"the given {role} rows have no labels: not used" for role in read if role != "train" and not read[role]]
    found = read["train"].named(classes)
    names = classes.chosen(sorted(set(found), key=_by_number), read["train"].are_numbers(classes))
    if read["train"].names is not None and names is not classes.names and names is not classes.of_model:
        names = read["train"].names
    parts = {
        role: _part(sources[role], f"the given {role} rows", settings, labels.numbers(names, classes, role), names)
        for role, labels in read.items()
        if labels
    }
    if any(not part.is_fixed for part in parts.values()):
        notes.append("data.cache: not used: a torch data set may change its rows, so it is asked for them every time")
    return splits_of_parts(parts, settings, seed, True, notes)


def _frame_splits(given: Any, parts: dict[str, Any], settings: DataSettings, seed: int, classes: Classes) -> Splits:
    """Splits of a DataFrame, which may have a column that names them, or of one for each role."""
    import pandas as pd

    frame = given if is_frame(given) else pd.concat([rows.assign(split=role) for role, rows in parts.items()])
    read, notes = read_frame(frame, settings, settings.name)
    if {"validation", "test"} <= set(read):
        settings = replace(settings, validation=settings.validation or SELECTION)  # not drawn: only not zero
    source = source_of_files(read, notes, settings)
    return splits_of_source(source, settings, seed, name_classes=classes.chosen)


def given_split(given: Any, settings: DataSettings, label_names: list[str]) -> ImageSplit:
    """Rows to be predicted or scored by a model of these classes; they may have no labels.

    Raises:
        UserError: rows that cannot be understood, or a label that the model does not know.
    """
    where = "the given rows"
    source = rows_of(given, where)
    labels = _labels_of(source, where, settings.one_label_column)
    numbers = labels.numbers(label_names, Classes(names=label_names), where) if labels else np.full(len(source), -1)
    return _part(source, where, settings, numbers, label_names)


def by_role(given: Any, where: str, column_names: Collection[str] = IMAGE_KEYS) -> dict[str, Any]:
    """The given rows by role: train, validation or test.

    Args:
        column_names: a mapping that has one of these keys is one of columns, and not of splits.
    """
    if (
        not isinstance(given, Mapping)
        or isinstance(given, datasets.Dataset)
        or any(name in given for name in column_names)
    ):
        return {"train": given}
    by_role: dict[str, Any] = {}
    for name, rows in given.items():
        role = split_role(str(name))
        if role is None or role in by_role:
            raise UserError(f"data.name {where}: has the key {name!r}, expected train, validation and test, each once")
        if rows is not None:
            by_role[role] = rows
    return by_role


def rows_of(given: Any, where: str) -> Any:
    """An object with a length and numbered rows."""
    if isinstance(given, IterableDataset | datasets.IterableDataset):
        raise UserError(
            f"{where}: are a {type(given).__name__}, which has no length and no row numbers. Expected rows that "
            "can be read by their number, such as a datasets.Dataset or a torch data set with __len__ and __getitem__."
        )
    if isinstance(given, Mapping) and not isinstance(given, datasets.Dataset):
        first = dict(given)
        return Columns(image_of(first, None, where), label_of(first, None), where)
    if is_pair_of_columns(given):
        images, labels = given
        return Columns(images, labels, where)
    if isinstance(given, str | Path | bytes) or not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise UserError(f"{where}: are of the type {type(given).__name__}, {EXPECTED}")
    if not len(given):
        raise UserError(f"{where}: are empty, expected one row or more")
    return given


def is_pair_of_columns(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and all(_is_column(part) for part in given)


def _is_column(part: Any) -> bool:
    return hasattr(part, "__len__") and hasattr(part, "__getitem__") and not isinstance(part, str | bytes | Mapping)


def _as_table(rows: Any, where: str, settings: DataSettings) -> Any:
    """A plain table where the rows are one, or files; other rows as they are."""
    if isinstance(rows, datasets.Dataset):
        return rows.with_format(None) if is_table(rows) else rows
    if not is_fixed(rows) or not isinstance(image_of(rows[0], settings.image_column, where), str | Path):
        return rows
    paths = [image_of(rows[row], settings.image_column, where) for row in range(len(rows))]
    labels = _labels_of(rows, where, settings.one_label_column)
    for number, path in enumerate(paths):
        if not isinstance(path, str | Path) or not os.path.isfile(path):
            raise UserError(f"{where}: row {number} is {str(path)!r}, and there is no such file")
    if not labels:
        return rows
    table = datasets.Dataset.from_dict(
        {COLUMN: [{"bytes": None, "path": str(path)} for path in paths], "label": labels.values},
    )
    return table.cast_column(COLUMN, datasets.Image(decode=False))


def is_table(rows: Any) -> bool:
    """Whether the rows are a table as it is stored; one with a transform is read through it, as a torch data set is."""
    return isinstance(rows, datasets.Dataset) and rows.format["type"] != "custom"


def is_fixed(rows: Any) -> bool:
    return isinstance(rows, Columns | list | tuple | np.ndarray | torch.Tensor)


def with_class_names(
    table: datasets.Dataset, column: str, settings: DataSettings, classes: Classes
) -> datasets.Dataset:
    """A column of class numbers without names gets the names that are known from elsewhere."""
    feature, names = table.features[column], classes.names or classes.of_model
    if names is None or not isinstance(feature, datasets.Value) or "int" not in feature.dtype:
        return table
    values = table.select_columns([column])[:][column]
    wrong = next((value for value in values if value is not None and value >= len(names)), None)
    if wrong is not None:
        raise UserError(
            f"data.name {settings.name}: column {column} holds {wrong}, expected 0 to {len(names) - 1} for {len(names)} classes"
        )
    return table.cast_column(column, datasets.ClassLabel(names=names))


@dataclass(frozen=True)
class GivenLabels:
    """The labels of rows as they were given: numbers or names of classes."""

    values: list[int | str]
    names: list[str] | None  # of the numbers

    def __bool__(self) -> bool:
        return len(self.values) > 0

    def are_numbers(self, classes: Classes) -> bool:
        """Whether they are numbers that have no name but those which the caller or the model gives."""
        return bool(self.values) and isinstance(self.values[0], int) and self.names is None

    def named(self, classes: Classes) -> list[str]:
        """The name of each row's class; a number without a name is its own."""
        if self.names is not None:
            return [self.names[value] if isinstance(value, int) else value for value in self.values]
        return [str(value) for value in self.values]

    def numbers(self, names: list[str], classes: Classes, role: str) -> np.ndarray:
        """(N,) int64 class numbers; raises UserError for a label that is none of the classes."""
        known = {name: number for number, name in enumerate(names)}
        if self.are_numbers(classes) and (names is classes.names or names is classes.of_model):
            known |= {str(number): number for number in range(len(names))}
        named = self.named(classes)
        numbers = np.array([known.get(normal_name(name), -1) for name in named], dtype=np.int64)
        outside = np.flatnonzero(numbers < 0)
        if len(outside):
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise UserError(
                f"the given {role} rows: row {outside[0]} has the label {self.values[outside[0]]!r}, expected one of the "
                f"{len(names)} classes ({shown})"
            )
        return numbers


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (0, name)


def _labels_of(rows: Any, where: str, key: str | None) -> GivenLabels:
    """The labels of all rows, without reading images where the object has them apart; empty: there are none."""
    values, names = raw_labels(rows, where, key)
    plain = [_plain(value, f"{where}: row {number}") for number, value in enumerate(values)]
    missing = [number for number, value in enumerate(plain) if value is None or value == -1]
    if len(missing) == len(plain):
        return GivenLabels([], None)
    if missing:
        raise UserError(f"{where}: row {missing[0]} has no label, and others have one. Expected one for each row.")
    kinds = {type(value) for value in plain}
    if len(kinds) > 1:
        raise UserError(f"{where}: some labels are numbers and some are text. Expected one kind.")
    numbers = [value for value in plain if isinstance(value, int)]
    if names is not None and numbers and max(numbers) >= len(names):
        names = None
    return GivenLabels([value for value in plain if value is not None], names if numbers else None)


def raw_labels(rows: Any, where: str, key: str | None) -> tuple[list[Any], list[str] | None]:
    """The labels as they stand in the rows, and the names of the classes where the object says them."""
    if isinstance(rows, Subset):
        values, names = raw_labels(rows.dataset, where, key)
        return [values[number] for number in rows.indices], names
    if isinstance(rows, ConcatDataset):
        pieces = [raw_labels(piece, where, key) for piece in rows.datasets]
        return [value for values, _ in pieces for value in values], pieces[0][1]
    if isinstance(rows, datasets.Dataset):
        return _table_labels(rows, key)
    names = getattr(rows, "classes", None)
    names = [str(name) for name in names] if isinstance(names, list | tuple) else None
    for attribute in ("targets", "labels"):
        listed = getattr(rows, attribute, None)
        listed = listed.tolist() if isinstance(listed, torch.Tensor | np.ndarray) else listed
        if isinstance(listed, Collection) and len(listed) == len(rows) > 0:
            values = list(listed)
            if _same_label(values[0], label_of(rows[0], key)):  # a target_transform changes them
                return values, names
    if not is_fixed(rows):
        logger.info("%s: read once for their labels, because %s does not list them", where, type(rows).__name__)
    return [label_of(rows[row], key) for row in range(len(rows))], names


def _table_labels(table: datasets.Dataset, key: str | None) -> tuple[list[Any], list[str] | None]:
    column = next((name for name in ([key] if key else LABEL_KEYS) if name in table.features), None)
    if column is None:
        return [None] * len(table), None
    feature = table.features[column]
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return list(table.with_format(None).select_columns([column])[:][column]), names


def _same_label(one: Any, other: Any) -> bool:
    try:
        return bool(_plain(one, "") == _plain(other, ""))
    except UserError:
        return False


def _plain(value: Any, where: str) -> int | str | None:
    """A class number or name as Python has it."""
    if isinstance(value, torch.Tensor | np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    raise UserError(f"{where} has the label {value!r}, expected one class for each image: a whole number or text")


def _part(source: Any, where: str, settings: DataSettings, labels: np.ndarray, names: list[str]) -> ImageSplit:
    return part_of_rows(source, where, settings, labels, names, is_fixed=is_fixed(source), kind=ImageSplit)
