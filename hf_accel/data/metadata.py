"""Labels that a data set states next to its pictures: `metadata.csv`, `.jsonl` or `.parquet`, as in `imagefolder`.

Such a file has a column `file_name`, relative to its own folder, and a label column; it may be in the root or in the
folders directly below it. Stated labels come before the names of folders. A column `split` says where a row belongs.
"""

from __future__ import annotations

import posixpath
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
    notes: list[str] = field(default_factory=list)


def is_metadata(name: str) -> bool:
    return name.count("/") <= 1 and posixpath.basename(name) in METADATA_NAMES


def read_stated_labels(settings: DataSettings, folder: Path, files: list[str]) -> StatedLabels:
    """What the metadata files among `files` (paths below `folder`) state; no rows where they state no labels.

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
        wanted = (settings.label_column,) if settings.label_column else LABEL_COLUMNS
        label_column = next((c for c in wanted if c in table), None)
        if file_column is None or label_column is None:
            missing = "column file_name" if file_column is None else "label column"
            hint = "" if file_column is None else "; name it with data.label_column if there is one"
            stated.notes.append(f"{name} has no {missing} (its columns: {', '.join(table) or 'none'}): not read{hint}")
            continue
        stated.column = label_column
        _add_rows(where, place, table, file_column, label_column, stated)
    rows = [path for part in stated.rows.values() for path in part]
    if rows and not any((folder / path).exists() for path in rows):
        raise UserError(
            f"data.name {settings.name}: none of the {len(rows)} files that {', '.join(names)} names is there, the first "
            f"is {rows[0]}. Expected paths relative to the folder of the metadata file."
        )
    return stated


def _add_rows(
    where: str, place: str, table: dict[str, list], file_column: str, label_column: str, stated: StatedLabels
) -> None:
    labels = plain_labels(where, label_column, table[label_column])
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
