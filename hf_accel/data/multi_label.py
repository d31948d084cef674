"""A data set whose images have any number of labels -> train, validation and test rows; no image is decoded.

`data.name` stands for a table (parquet files, a data set of the Hub) or for a folder of pictures with metadata files; a table of
its own is named with `data.labels`. What the labels may look like is in `label_sets.py`; which rows train, select and score is
decided as for images of one class each: see `splits.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import datasets
import numpy as np

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import Table, image_column, listed_columns
from hf_accel.data.duplicates import duplicate_notes
from hf_accel.data.folders import ImageTable, parquet_files
from hf_accel.data.holding_out import subset
from hf_accel.data.label_file import read_label_file
from hf_accel.data.label_sets import (
    LABEL_SET_COLUMNS,
    choose_label_columns,
    label_sets_of_table,
    ordered_names,
    read_label_sets,
    separator_of,
)
from hf_accel.data.labelling import labelled_images, unused_note
from hf_accel.data.labels import normal_name
from hf_accel.data.listing import (
    Listing,
    files_fingerprint,
    is_local_name,
    list_files,
    neighbouring_folders,
    require_utf8,
)
from hf_accel.data.metadata import METADATA_NAMES, read_stated_labels
from hf_accel.data.multi_label_images import MultiLabelImages
from hf_accel.data.scored_rows import ScoredRows, scored_role
from hf_accel.data.sources import DIGITS, Source, open_hub, open_parquet_folder, source_of_files
from hf_accel.data.splits import (
    TEST_SEED,
    Splits,
    deep_grey_notes,
    readable_rows,
    single_class,
    split_fingerprint,
    splits_of_parts,
    train_table,
)
from hf_accel.errors import UserError
from hf_accel.formatting import format_count

EXPECTED = (
    "Expected a metadata.csv next to the images with the columns file_name and labels (or a column of 0 and 1 for each label), "
    "parquet files with such columns, or such a table named with data.labels."
)
_PLAIN = ("bool", "string", "large_string", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_READ = (*_PLAIN, "float32", "float64")  # pandas makes floats of whole numbers


def load_multi_label_splits(settings: DataSettings, seed: int, selection: bool = True) -> Splits[MultiLabelImages]:
    """Open a data set and decide which rows train, select and score; see `splits.load_splits`.

    Raises:
        UserError: the data cannot be found, understood or divided, or has one label only.
    """
    return multi_label_splits_of_source(*open_label_sets(settings), settings, seed, selection)


def multi_label_splits_of_source(
    source: Source,
    reading: DataSettings,
    settings: DataSettings,
    seed: int,
    selection: bool = True,
    name_classes: Callable[[list[str]], list[str]] = list,
) -> Splits[MultiLabelImages]:
    """`load_multi_label_splits` of tables that are open.

    Args:
        reading: names the columns of these tables, which may be made of others.
        name_classes: the labels that the train split names -> the same in the order of their numbers.
    """
    found = LabelSets.of(train_table(source, settings), reading, f"{settings.name}, train split")
    if len(found.names) < 2:
        raise single_class(settings, found.names)
    parts, notes = labelled_parts(source, reading, replace(found, names=name_classes(found.names)))
    if "train" not in parts:
        raise UserError(f"data.name {settings.name}: none of its train images has a label. {EXPECTED}")
    return splits_of_parts(parts, settings, seed, selection, notes + unlabelled_notes(parts))


def load_multi_label_split(settings: DataSettings, role: str = "test") -> ScoredRows:
    """Everything that data holds of one split, for evaluation alone; see `scored_rows.load_split`."""
    source, reading = open_label_sets(settings)
    taken = scored_role(source, settings, role)
    labels = LabelSets.of(source.parts[taken], reading, f"{settings.name}, {taken} split")
    one = replace(source, parts={taken: source.parts[taken]})
    parts, notes = labelled_parts(one, reading, labels)
    if taken not in parts:
        raise UserError(f"data.name {settings.name}: {'; '.join(notes)}. Expected labelled images to score.")
    most = settings.max_train_rows if role == "train" else settings.max_test_rows
    part, skipped = subset(parts[taken], most, TEST_SEED), list[str]()
    if settings.on_bad_image == "skip":
        part = readable_rows(part, skipped, refuse_gone=False)
    if taken != role:
        notes.append(f"no {role} split: all its rows ({source.names[taken]}) are scored")
    notes += deep_grey_notes({taken: part}) + duplicate_notes({taken: part}, settings.name)
    return ScoredRows(replace(part, content=None), split_fingerprint(part), taken, skipped, notes)


def unlabelled_notes(parts: dict[str, MultiLabelImages]) -> list[str]:
    """How many images have none of the labels."""
    found = []
    for role, part in parts.items():
        without = int((part.labels.sum(axis=1) == 0).sum())
        if without:
            found.append(f"{format_count(without)} of the {format_count(len(part))} {role} images have no label")
    return found


@dataclass(frozen=True)
class LabelSets:
    """The columns of a table that hold the labels, and the names of these in the order of their numbers."""

    columns: tuple[str, ...]
    names: list[str]
    separator: str | None = None  # of names in a column of text, where the train split has one

    @classmethod
    def of(cls, train: Table, settings: DataSettings, where: str) -> Self:
        """The labels of the train split: a label that only another split has is refused, as a class is.

        Raises:
            UserError: no column can be chosen, or a cell cannot be understood.
        """
        cells = plain_cells(train, settings)
        chosen = choose_label_columns(where, cells, settings, ())
        if chosen is None:
            raise UserError(
                f"data.name {settings.name}: no columns of labels can be chosen. {listed_columns(train)} Name one, or several of "
                "0 and 1, with data.label_column."
            )
        read = read_label_sets(where, cells, chosen)
        stated = read.names or _names_of_feature(train.features[chosen[0]])
        names = stated or ordered_names({name for row in read.cells for name in row})
        return cls(chosen, names, separator_of(cells, chosen))

    def are_in(self, table: Table) -> bool:
        """Whether a split has these columns."""
        return all(name in table.features for name in self.columns)

    def matrix(self, table: Table, where: str) -> np.ndarray:
        """(N, C) int64: 1 where a row has the label.

        Raises:
            UserError: a row has a label that is none of these.
        """
        cells = {name: _cells_of(table, name) for name in self.columns}
        return label_matrix(read_label_sets(where, cells, self.columns, self.separator).cells, self.names, where)


def label_matrix(rows: Sequence[Sequence[str]], names: list[str], where: str) -> np.ndarray:
    """(N, C) int64: 1 where a row has the label.

    Args:
        rows: (N,) the names of the labels of each.
    Raises:
        UserError: a row has a label that is none of `names`.
    """
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), np.int64)
    for row, found in enumerate(rows):
        for name in found:
            if name not in numbers:
                shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
                raise UserError(
                    f"{where}, row {row}: has the label {name!r}, expected some of the {len(names)} labels of the train split "
                    f"({shown}). Correct it, or remove the row."
                )
            labels[row, numbers[name]] = 1
    return labels


def labelled_parts(
    source: Source, settings: DataSettings, labels: LabelSets
) -> tuple[dict[str, MultiLabelImages], list[str]]:
    """Every part with its labels; those in which no image has one are left out, and a note says so."""
    parts, notes = {}, list(source.notes)
    for role, table in source.parts.items():
        found = labels.matrix(table, f"{settings.name}, {role} split") if labels.are_in(table) else np.zeros((0, 1))
        if not found.any():
            notes.append(unused_note(role, len(table)))
            continue
        columns, image = " ".join(labels.columns), image_column(table, settings)
        parts[role] = labelled_images(
            source, settings, role, image, columns, found, labels.names, kind=MultiLabelImages
        )
    return parts, notes


def plain_cells(table: Table, settings: DataSettings) -> dict[str, list[Any]]:
    """The columns that may hold labels, by name: those that are named, else those of their types; text only by its name."""
    named = [settings.label_column] if isinstance(settings.label_column, str) else settings.label_column
    others = {settings.image_column, settings.group_column, settings.split_column}
    names = [name for name in table.features if name not in others and _may_hold_labels(name, table.features[name])]
    names = names if named is None else [name for name in named if name in table.features]
    return {name: _cells_of(table, name) for name in names}


def _may_hold_labels(name: str, feature: Any) -> bool:
    if isinstance(feature, datasets.List):
        return isinstance(feature.feature, datasets.ClassLabel) or getattr(feature.feature, "dtype", "") in (
            *_PLAIN,
            "null",
        )
    if isinstance(feature, datasets.ClassLabel):
        return True
    if not isinstance(feature, datasets.Value) or feature.dtype not in _READ:
        return False
    return "string" not in feature.dtype or name in LABEL_SET_COLUMNS


def _cells_of(table: Table, name: str) -> list[Any]:
    """The cells of a column; class numbers that have names as these."""
    feature, cells = table.features[name], table.select_columns([name]).with_format(None)[:][name]
    names = _names_of_feature(feature)
    if not names:
        return list(cells)
    if isinstance(feature, datasets.ClassLabel):
        return [None if cell is None or cell < 0 else names[cell] for cell in cells]
    return [[names[number] for number in cell or ()] for cell in cells]


def _names_of_feature(feature: Any) -> list[str]:
    inner = feature.feature if isinstance(feature, datasets.List) else feature
    return [normal_name(name) for name in inner.names] if isinstance(inner, datasets.ClassLabel) else []


def open_label_sets(settings: DataSettings) -> tuple[Source, DataSettings]:
    """Find and open what `data.name` stands for; and the settings, with the columns of the tables that were made.

    Raises:
        UserError: there is no such thing, it states no labels for its images, or it cannot be read.
    """
    path, where = Path(settings.name).expanduser(), f"data.name {settings.name}"
    if settings.labels is not None:
        parts, notes = read_label_file(settings, label_sets_of_table)
        return _of_files(parts, notes, settings)
    if settings.name == DIGITS:
        raise UserError(f"{where}: is the built-in data set, whose images have one label each. {EXPECTED}")
    if path.is_dir():
        listing = list_files(path)
        tables = parquet_files(listing)
        if tables:
            return open_parquet_folder(settings, path, listing, tables), settings
        return _of_files(*_stated_tables(settings, path, listing), settings)
    if path.exists():
        raise UserError(f"{where}: is a file, expected a folder, with the table in it or named with data.labels")
    if is_local_name(settings.name):
        raise UserError(f"{where}: no such folder. {neighbouring_folders(path)}")
    return open_hub(settings), settings


def _of_files(parts: dict[str, ImageTable], notes: list[str], settings: DataSettings) -> tuple[Source, DataSettings]:
    column = next(part.column for part in parts.values())
    return source_of_files(parts, notes, settings), replace(settings, label_column=column)


def _stated_tables(settings: DataSettings, folder: Path, listing: Listing) -> tuple[dict[str, ImageTable], list[str]]:
    """The splits of a folder of pictures by role, as its metadata files state them."""
    where = f"data.name {settings.name}"
    stated = read_stated_labels(settings, folder, listing.files, label_sets_of_table)
    if not stated.rows:
        hint = f" {'; '.join(stated.notes)}." if stated.notes else ""
        raise UserError(f"{where}: no {', '.join(METADATA_NAMES)} states the labels of its images.{hint} {EXPECTED}")
    root, tables = os.path.abspath(folder), {}
    for role, rows in stated.rows.items():
        names = list(rows)
        require_utf8(where, names)
        paths = [f"{root}/{name}" for name in names]
        fingerprint, content = files_fingerprint(names, paths, [str(labels) for labels in rows.values()])
        tables[role] = ImageTable(
            paths, list(rows.values()), stated.column, fingerprint, content, role, label_names=stated.label_names
        )
    return tables, [*listing.notes(), *stated.notes]
