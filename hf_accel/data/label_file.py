"""Labels in a table of their own, `data.labels`, or in a DataFrame of a Python caller -> the rows of each split.

A row names a file, its label and, if there are such columns, its split and its group. Rows without a label are left out.
Paths are relative to `data.name` or to the folder of the table, and only files below these are read: whoever wrote a table
must not decide which of the reader's files are shown in reports. A caller's DataFrame may name any file.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_accel.config.sections import DataSettings
from hf_accel.data.arrays import is_array_file
from hf_accel.data.folders import ImageTable
from hf_accel.data.labels import LABEL_COLUMNS
from hf_accel.data.listing import files_fingerprint, is_image_file, list_files, printable, require_utf8
from hf_accel.data.metadata import FILE_COLUMNS, ReadCells, ReadLabels
from hf_accel.data.plain_tables import TABLE_SUFFIXES, plain_labels, read_plain_table
from hf_accel.data.split_names import split_role
from hf_accel.errors import UserError, did_you_mean

FILES = (*FILE_COLUMNS, "filename", "file", "image", "img", "image_path", "img_path", "file_path", "filepath", "path",
         "image_name", "image_id")  # fmt: skip
LABELS = (*LABEL_COLUMNS, "class", "class_name", "category", "target")
ROLES = ("train", "validation", "test")
IS_VALID = "is_valid"  # of fastai: which rows validate
_TRUTH = {"true": "validation", "false": "train"}
_NUMBERS = {"1": "validation", "0": "train"}  # in a column of that name alone: elsewhere they may mean anything
SPLITS = ("split", IS_VALID)
LABEL = "label"  # the column of the labels in the tables that are made here
_SHOWN = 3


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read."""

    file: str
    split: str | None
    group: str | None


@dataclass
class _Rows:
    """The labelled rows of one split, in the order of the table."""

    names: list[str] = field(default_factory=list)
    labels: list = field(default_factory=list)
    groups: list = field(default_factory=list)


def labels_by_name_or_left(
    where: str, table: dict[str, list], settings: DataSettings, taken: Collection[str | None]
) -> ReadCells | None:
    """One label of each row, from the column that is named, else by name, else the only one left; None: there is none.

    Args:
        taken: the columns that hold something else.
    Raises:
        UserError: a named column is absent, or a cell holds something else than a label.
    """
    column = _named(where, table, "label", settings.one_label_column)
    if column is None:
        left = [name for name in table if name not in taken]
        by_name = [name for name in LABELS if name in left]
        column = next(iter(by_name or (left if len(left) == 1 else [])), None)
    if column is None:
        return None
    return ReadCells(column, plain_labels(where, column, [plain_cell(cell) for cell in table[column]]))


def read_label_file(
    settings: DataSettings, read: ReadLabels = labels_by_name_or_left
) -> tuple[dict[str, ImageTable], list[str]]:
    """The splits of the table that `data.labels` names, by role, and notes about what was not read.

    Args:
        read: finds the labels in the table.
    Raises:
        UserError: the table cannot be read or understood, contradicts itself, or names files that are not there.
    """
    where, path, folder = f"data.labels {settings.labels}", Path(str(settings.labels)), Path(settings.name)
    path, folder = path.expanduser(), folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"data.name {settings.name}: no such folder. With data.labels it is the folder of the images.")
    if not path.is_file():
        near = os.listdir(path.parent) if path.parent.is_dir() else []
        raise UserError(f"{where}: no such file. {did_you_mean(path.name, near)}")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise UserError(f"{where}: is a file of another kind, expected {', '.join(TABLE_SUFFIXES)}")
    table = read_plain_table(where, path)
    columns = find_columns(where, table, settings)
    labels = _found(read, where, table, settings, columns)
    roots = [os.path.abspath(place) for place in dict.fromkeys((folder, path.parent))]
    root, names = _found_below(where, columns.file, [_text(cell) for cell in table[columns.file]], roots)
    return _tables(where, root, names, table, columns, labels, settings)


def is_frame(rows: Any) -> bool:
    """Whether it is a DataFrame of pandas."""
    return hasattr(rows, "iloc") and hasattr(rows, "columns")


def read_frame(
    frame: Any, settings: DataSettings, where: str, read: ReadLabels = labels_by_name_or_left
) -> tuple[dict[str, ImageTable], list[str]]:
    """The same of a pandas DataFrame; paths are relative to the current folder, and may lead anywhere."""
    table = {str(name): [plain_cell(value) for value in frame[name].tolist()] for name in frame.columns}
    columns = find_columns(where, table, settings)
    labels = _found(read, where, table, settings, columns)
    other = next((cell for cell in table[columns.file] if not isinstance(cell, str | Path | None)), None)
    if other is not None:
        raise UserError(
            f"{where}: {columns.file} holds {type(other).__name__}, expected the paths of images. Give images in memory as a "
            f'pair: (frame["{columns.file}"], frame["{labels.column}"])'
        )
    names = [os.path.abspath(os.path.expanduser(_text(cell))) if cell else "" for cell in table[columns.file]]
    return _tables(where, "", names, table, columns, labels, settings)


def find_columns(where: str, table: dict[str, list], settings: DataSettings) -> Columns:
    """The columns as the settings name them; else by name; else the only one that holds names of images.

    Raises:
        UserError: a named column is absent, or none can be chosen; the columns are listed.
    """
    if any(map(_is_image, table)):
        raise UserError(f"{where}: its first row is an image, expected the names of the columns. {_listed(table)}")
    split = _named(where, table, "split", settings.split_column) or next((c for c in SPLITS if c in table), None)
    group = _named(where, table, "group", settings.group_column)
    file = _named(where, table, "image", settings.image_column)
    if file is None:
        of_images = [name for name, cells in table.items() if cells and all(_is_image(_text(c)) for c in cells)]
        by_name = [name for name in FILES if name in table]
        file = next(
            iter([n for n in by_name if n in of_images] or by_name or (of_images if len(of_images) == 1 else [])), None
        )
    if file is None:
        raise _no_column(where, table, "file names", "image")
    return Columns(file, split, group)


def _found(read: ReadLabels, where: str, table: dict[str, list], settings: DataSettings, columns: Columns) -> ReadCells:
    labels = read(where, table, settings, (columns.file, columns.split, columns.group))
    if labels is None:
        raise _no_column(where, table, "labels", "label")
    return labels


def _is_image(name: str) -> bool:
    return is_image_file(name) or is_array_file(name)


def _named(where: str, table: dict[str, list], what: str, name: str | None) -> str | None:
    if name is not None and name not in table:
        raise UserError(f"data.{what}_column is {name}, and {where} has no such column. {_listed(table)}")
    return name


def _no_column(where: str, table: dict[str, list], what: str, setting: str) -> UserError:
    return UserError(
        f"{where}: no column of {what} can be chosen. {_listed(table)} Name one with data.{setting}_column."
    )


def _listed(table: dict[str, list]) -> str:
    return f"Columns: {', '.join(printable(name) for name in table) or 'none'}."


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def plain_cell(value: Any) -> Any:
    """A value as other tables have it: pandas has NaN for a missing one, and then floats for whole numbers."""
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _found_below(where: str, column: str, cells: list[str], roots: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that the paths of a column are relative to, and the paths: the first folder that has any of the files.

    Names without the ending of an image, as in many tables, stand for the one image of that name.
    """
    read = {root: [_relative(cell, root, roots) for cell in cells] for root in roots}
    inside = {root: [name for name in names if name is not None] for root, names in read.items() if None not in names}
    for root, names in inside.items():
        if any(name and os.path.isfile(f"{root}/{name}") for name in names):
            return root, names
    for root, names in inside.items():
        stems = _stems(root)
        if any(name in stems for name in names):
            return root, [stems.get(name, name) for name in names]
    first = next(filter(None, cells), "none")
    if not inside:
        row = read[roots[0]].index(None)
        raise UserError(
            f"{where}, row {row}: {column} is {printable(cells[row])}, expected the path of a file below {' or '.join(roots)}. "
            "Name the folder that holds all images with data.name."
        )
    raise UserError(
        f"{where}: none of the files that its {len(cells)} rows name is there, the first is {printable(first)}. Expected paths "
        f"relative to {' or '.join(roots)}.{_elsewhere(first, roots[0])}"
    )


def _relative(cell: str, root: str, roots: Sequence[str]) -> str | None:
    """A path relative to the folder; "" for an empty cell; None for a path that leads out of all the folders."""
    if not cell.strip():
        return ""
    path = os.path.normpath(os.path.join(root, cell.strip().replace("\\", "/")))
    is_inside = any(path.startswith(place.rstrip("/") + "/") for place in roots)
    return os.path.relpath(path, root) if is_inside else None


def _stems(root: str) -> dict[str, str]:
    """Path without its ending -> path, of the images below a folder whose name no other one has."""
    images = [name for name in list_files(Path(root)).files if is_image_file(name)]
    counts = Counter(posixpath.splitext(name)[0] for name in images)
    return {stem: name for name in images if counts[stem := posixpath.splitext(name)[0]] == 1}


def _elsewhere(name: str, root: str) -> str:
    base = posixpath.basename(name.replace("\\", "/"))
    found = next((file for file in list_files(Path(root)).files if posixpath.basename(file) == base), None)
    return "" if found is None else f" There is a {printable(found)}: do the paths begin at another folder?"


def _tables(
    where: str,
    root: str,
    names: list[str],
    table: dict[str, list],
    columns: Columns,
    labels: ReadCells,
    settings: DataSettings,
) -> tuple[dict[str, ImageTable], list[str]]:
    """The rows as tables.

    Args:
        root: the folder of the names, an absolute path; "": they are absolute.
        names: (N,) the file of each row; "" where the row names none.
    """
    roles = _roles(where, columns, table)
    groups = [None] * len(names) if columns.group is None else table[columns.group]
    parts: dict[str, _Rows] = {role: _Rows() for role in ROLES}
    unlabelled = missing = repeated = 0
    seen: dict[str, tuple[Any, str]] = {}
    for row, (name, label, role, group) in enumerate(zip(names, labels.cells, roles, groups, strict=True)):
        if not name:
            raise UserError(f"{where}, row {row}: {columns.file} is empty, expected the path of a file")
        if label is None or (isinstance(label, str) and not label.strip()):
            unlabelled += 1
        elif name in seen:
            _refuse_contradiction(where, row, name, (label, role), seen[name])
            repeated += 1
        elif settings.on_bad_image == "skip" and not os.path.exists(os.path.join(root, name)):
            missing += 1
        else:
            seen[name] = (label, role)
            parts[role].names.append(name)
            parts[role].labels.append(label)
            parts[role].groups.append(group)
    _refuse_missing(where, root, seen)
    counted = ((unlabelled, "have no label"), (repeated, "name a file again, with the same label"),
               (missing, "name a file that is not there"))  # fmt: skip
    notes = [f"{number:,} rows of {where} {what}: not used" for number, what in counted if number]
    found = {role: _image_table(root, rows, labels, role, settings) for role, rows in parts.items() if rows.names}
    if not found:
        raise UserError(f"{where}: none of its {len(names)} rows has a label. Expected labelled images.")
    return found, notes


def _roles(where: str, columns: Columns, table: dict[str, list]) -> list[str]:
    if columns.split is None:
        return ["train"] * len(table[columns.file])
    cells = [_text(cell).strip() for cell in table[columns.split]]
    truth = {**_TRUTH, **_NUMBERS} if columns.split == IS_VALID else _TRUTH
    is_truth = set(map(str.lower, cells)) <= {*truth, ""}
    roles = []
    for row, cell in enumerate(cells):
        role = "train" if not cell else truth[cell.lower()] if is_truth else split_role(cell)
        if role is None:
            raise UserError(
                f"{where}, row {row}: {columns.split} is {cell!r}, expected train, validation or test. Correct it, or name the "
                "column of the splits with data.split_column."
            )
        roles.append(role)
    return roles


def _refuse_contradiction(where: str, row: int, name: str, here: tuple[Any, str], before: tuple[Any, str]) -> None:
    for this, other in zip(here, before, strict=True):
        if this != other:
            raise UserError(
                f"{where}, row {row}: {printable(name)} is {this!r} here and {other!r} before: correct one."
            )


def _refuse_missing(where: str, root: str, names: Iterable[str]) -> None:
    gone = [name for name in names if not os.path.exists(os.path.join(root, name))]
    if gone:
        shown = ", ".join(map(printable, gone[:_SHOWN])) + (", …" if len(gone) > _SHOWN else "")
        raise UserError(
            f"{where}: {len(gone)} of the files that it names are not there{f', below {root}' if root else ''}: {shown}. Add "
            "them, remove the rows, or set data.on_bad_image: skip to leave them out."
        )


def _image_table(root: str, rows: _Rows, labels: ReadCells, role: str, settings: DataSettings) -> ImageTable:
    require_utf8("data.labels", rows.names)
    paths = [os.path.join(root, name) for name in rows.names]
    salt = [f"{label} {group}" for label, group in zip(rows.labels, rows.groups, strict=True)]
    fingerprint, content = files_fingerprint(rows.names, paths, salt)
    groups = None if settings.group_column is None else list(map(_text, rows.groups))
    return ImageTable(
        paths,
        rows.labels,
        column=settings.label_column if isinstance(settings.label_column, str) else LABEL,
        fingerprint=fingerprint,
        content=content,
        name=role,
        image_column=settings.image_column or "image",
        groups=groups,
        label_names=labels.names,
    )
