"""An image folder as splits that are only scored: its files and their labels, without `datasets` and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_accel.config.sections import DataSettings
from hf_accel.data.folders import ImageTable, parquet_files, read_image_folder
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.label_file import read_label_file
from hf_accel.data.labels import numbered
from hf_accel.data.listing import is_image_file, is_unread_picture, list_files
from hf_accel.data.rows import FileRows
from hf_accel.errors import UserError


@dataclass(frozen=True)
class ImageFolder:
    """The splits of a folder by role; see `sources.Source`."""

    parts: Mapping[str, ImageTable]
    names: Mapping[str, str]  # by role: the folder's own name for the split
    notes: list[str]


def open_image_folder(settings: DataSettings) -> ImageFolder | None:
    """The folder that `data.name` names; None where it does not name a folder of pictures.

    Raises:
        UserError: its structure is ambiguous, or it cannot be read.
    """
    folder = Path(settings.name).expanduser()
    if settings.labels is not None:
        parts, notes = read_label_file(settings)
        return ImageFolder(parts, {role: part.name for role, part in parts.items()}, notes)
    if settings.name == "digits" or not folder.is_dir():
        return None
    listing = list_files(folder)
    if parquet_files(listing) or not any(is_image_file(name) or is_unread_picture(name) for name in listing.files):
        return None
    parts, notes = read_image_folder(settings, f"data.name {settings.name}", folder, listing)
    return ImageFolder(parts, {role: part.name for role, part in parts.items()}, listing.notes() + notes)


def labelled_files(table: ImageTable, settings: DataSettings, role: str) -> ImageSplit | None:
    """The rows of a split with their class numbers, -1 where there is none; None: no row has a label."""
    _refuse_other_columns(table, settings)
    labels, names = numbered(table.labels)
    if not names:
        return None
    content = f"{table.fingerprint} {table.image_column} {table.column}"
    return ImageSplit.from_settings(
        settings,
        content,
        dataset=FileRows(table.paths, table.image_column),
        image_column=table.image_column,
        labels=labels,
        label_names=names,
        source=f"{settings.name}, {role} split",
        folder=Path(settings.name).expanduser(),
        content=table.content,
    )


def _refuse_other_columns(table: ImageTable, settings: DataSettings) -> None:
    for setting, named, known in (
        ("image_column", settings.image_column, table.image_column),
        ("label_column", settings.one_label_column, table.column),
    ):
        if named not in (None, known):
            raise UserError(
                f"data.{setting} is {named}, and data.name {settings.name} has no such column. Columns: {table.image_column}, "
                f"{table.column}."
            )
