"""Labels that a data set states next to its pictures: `metadata.csv`, `.jsonl` or `.parquet`, as in `imagefolder`.

Such a file has a column `file_name`, relative to its own folder, and a label column; it may be in the root or in the
folders directly below it. Stated labels come before the names of folders. A column `split` says where a row belongs.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_accel.config.sections import DataSettings
from hf_accel.data.labels import LABEL_COLUMNS
from hf_accel.data.plain_tables import plain_labels, read_plain_table
from hf_accel.data.split_names import split_role
from hf_accel.errors import UserError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMNS = ("file_name", "image_file_name")


@dataclass
class StatedLabels:
    """Rows by role, in the order of the files that state them."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # role -> path below the data folder -> label
    column: str = "label"
    label_names: list[str] = field(default_factory=list)  # of rows that have lists of labels, where the table says them
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReadCells:
    """The labels of a table, and where they were found."""

    column: str
    cells: list  # (N,) a label of each row, or a list of labels; None: there is none
    names: list[str] = field(default_factory=list)  # of the labels in lists, where the table says them


# What messages say of the table, its columns, the settings and the columns that hold something else -> its labels.
ReadLabels = Callable[[str, dict[str, list], DataSettings, Collection[str | None]], ReadCells | None]


def labels_by_name(
    where: str, table: dict[str, list], settings: DataSettings, taken: Collection[str | None]
) -> ReadCells | None:
    """One label of each row, from the column that is named or has a usual name; None: there is none.

    Raises:
        UserError: a cell holds something else than a label.
    """
    wanted = (settings.one_label_column,) if settings.one_label_column else LABEL_COLUMNS
    column = next((name for name in wanted if name in table), None)
    return None if column is None else ReadCells(column, plain_labels(where, column, table[column]))


def is_metadata(name: str) -> bool:
    return name.count("/") <= 1 and posixpath.basename(name) in METADATA_NAMES


def read_stated_labels(
    settings: DataSettings, folder: Path, files: list[str], read: ReadLabels = labels_by_name
) -> StatedLabels:
    """What the metadata files among `files` (paths below `folder`) state; no rows where they state no labels.

    Args:
        read: finds the labels in a table.
    Raises:
        UserError: a metadata file cannot be read, contradicts itself, or names a file outside the data folder.
    """
    stated = StatedLabels()
    names = [name for name in files if is_metadata(name)]
    places = [posixpath.dirname(name) for name in names]
    for name, place in zip(names, places, strict=True):
        where = f"data.name {settings.name}: {name}"
        if places.count(place) > 1:
            raise UserError(f"{where}: there is another metadata file next to it. Expected one: remove the others.")
        table = read_plain_table(where, folder / name)
        file_column = next((c for c in FILE_COLUMNS if c in table), None)
        labels = None if file_column is None else read(where, table, settings, (file_column, "split"))
        if file_column is None or labels is None:
            missing = "column file_name" if file_column is None else "label column"
            hint = "" if file_column is None else "; name it with data.label_column if there is one"
            stated.notes.append(f"{name} has no {missing} (its columns: {', '.join(table) or 'none'}): not read{hint}")
            continue
        stated.column = labels.column
        stated.label_names += [name for name in labels.names if name not in stated.label_names]
        _add_rows(where, place, table, file_column, labels.cells, stated)
    rows = [path for part in stated.rows.values() for path in part]
    if rows and not any((folder / path).exists() for path in rows):
        raise UserError(
            f"data.name {settings.name}: none of the {len(rows)} files that {', '.join(names)} names is there, the first "
            f"is {rows[0]}. Expected paths relative to the folder of the metadata file."
        )
    return stated


def _add_rows(
    where: str, place: str, table: dict[str, list], file_column: str, labels: list, stated: StatedLabels
) -> None:
    splits = table.get("split", [None] * len(labels))
    for number, (file_name, label, split) in enumerate(zip(table[file_column], labels, splits, strict=True)):
        path = posixpath.normpath(posixpath.join(place, str(file_name or "")))
        if not file_name or posixpath.isabs(str(file_name)) or path.split("/")[0] == "..":
            raise UserError(
                f"{where}, row {number}: {file_column} is {file_name!r}, expected the path of a file below the data folder."
            )
        top = path.split("/")[0] if "/" in path else ""
        role = split_role(top) or "train" if split in (None, "") else split_role(str(split))
        if role is None:
            raise UserError(
                f"{where}, row {number}: split is {split!r}, expected train, validation or test. Correct it, or rename the "
                "column if it means something else."
            )
        known = next((part for part in stated.rows.values() if path in part), None)
        if known is not None and known[path] != label:
            raise UserError(
                f"{where}, row {number}: {path} is {label!r} here and {known[path]!r} elsewhere: correct one."
            )
        if known is None:
            stated.rows.setdefault(role, {})[path] = label
