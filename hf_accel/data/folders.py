"""A folder of pictures -> a table for each split: `class/…/image`, `split/class/…/image`, or labels stated in a file.

Structure is never guessed: where folders look like splits that are not understood, or like a level above the classes,
the user is asked. `data.layout: classes` is the answer "every folder below data.name is a class".
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hf_accel.config.sections import DataSettings
from hf_accel.data.listing import (
    Listing,
    describe_unread,
    files_fingerprint,
    is_hidden,
    is_image_file,
    is_unread_picture,
    printable,
    require_utf8,
)
from hf_accel.data.metadata import StatedLabels, is_metadata, read_stated_labels
from hf_accel.data.plain_tables import TABLE_SUFFIXES
from hf_accel.data.split_names import resembling_splits, split_role
from hf_accel.errors import UserError

_EXPECTED = "Expected a folder of images for each of two or more classes"
_FLAG = "add --data.layout classes"


@dataclass(frozen=True)
class ImageTable:
    """The rows of one split of an image folder."""

    paths: list[str]  # (N,)
    labels: list  # (N,) as they are stated: text, whole numbers, truth values, or lists of text; None: there is none
    column: str  # the name of the labels
    fingerprint: str
    content: np.ndarray | None  # (N,) uint64, equal for files of equal content; None: the files were not read
    name: str  # the folder's own name for the split
    image_column: str = "image"  # the name of the paths
    groups: list[str] | None = None  # (N,) what `data.group_column` says of each row
    label_names: Sequence[str] = ()  # of rows that have lists of labels, where the data says them in an order


@dataclass
class _Reader:
    """What is known of a folder while it is read."""

    where: str
    folder: Path
    images: list[str]
    unread: list[str]  # pictures in formats that cannot be read here
    notes: list[str] = field(default_factory=list)
    used: int = 0


def parquet_files(listing: Listing) -> list[str]:
    """The tables of a folder; it is an image folder where there are none."""
    return [name for name in listing.files if name.endswith(".parquet") and Path(name).name != "metadata.parquet"]


def read_image_folder(
    settings: DataSettings, where: str, folder: Path, listing: Listing
) -> tuple[dict[str, ImageTable], list[str]]:
    """The splits of an image folder by role, and notes about what was not read.

    Raises:
        UserError: the structure is ambiguous, a class has no readable image, or a name is not UTF-8.
    """
    images = [name for name in listing.files if is_image_file(name)]
    unread = [name for name in listing.files if is_unread_picture(name)]
    reader = _Reader(where, folder, images, unread)
    require_utf8(where, (*images, *unread))
    stated = StatedLabels()
    if settings.layout != "classes":
        stated = read_stated_labels(settings, folder, listing.files)
        reader.notes += stated.notes
    tables = {role: _stated_table(reader, role, rows, stated.column) for role, rows in stated.rows.items()}
    prefixes = {"train": ""} if settings.layout == "classes" else _find_splits(reader, set(tables))
    for role, prefix in prefixes.items():
        tables[role] = _class_table(reader, prefix, role, stated.column)
    if unread:
        reader.notes.append(f"{len(unread):,} pictures are not read: {describe_unread(unread)}")
    other = len(listing.files) - reader.used - len(unread) - sum(map(is_metadata, listing.files))
    if other > 0:
        what = "are not named by the stated labels" if stated.rows else "lie outside the class folders"
        reader.notes.append(f"{other} files are not images, or {what}: not read")
    return {role: tables[role] for role in ("train", "validation", "test") if role in tables}, reader.notes


def _stated_table(reader: _Reader, role: str, rows: dict, column: str) -> ImageTable:
    names = list(rows)
    require_utf8(reader.where, names)
    labels = list(rows.values())
    return _table(reader, names, labels, column, role, salt=[str(label) for label in labels])


def _class_table(reader: _Reader, prefix: str, role: str, column: str) -> ImageTable:
    """The rows of `prefix/class/…/image`; the name of the first folder is the label."""
    rows = [name for name in reader.images if name.startswith(prefix) and "/" in name[len(prefix) :]]
    labels = [name[len(prefix) :].split("/")[0] for name in rows]
    _refuse_unread_classes(reader, prefix, set(labels))
    classes = {path.name for path in (reader.folder / prefix).iterdir() if path.is_dir() and not is_hidden(path.name)}
    empty = sorted(classes - set(labels)) if prefix or role == "train" else []
    if empty:
        reader.notes.append(f"no image in {', '.join(printable(prefix + name) for name in empty)}: not a class")
    return _table(reader, rows, labels, column, prefix.rstrip("/") or role)


def _table(
    reader: _Reader, names: list[str], labels: list, column: str, split: str, salt: Iterable[str] = ()
) -> ImageTable:
    root = os.path.abspath(reader.folder)
    paths = [f"{root}/{name}" for name in names]
    fingerprint, content = files_fingerprint(names, paths, salt)
    reader.used += len(names)
    return ImageTable(paths, labels, column, fingerprint, content, split)


def _refuse_unread_classes(reader: _Reader, prefix: str, read: set[str]) -> None:
    unread = defaultdict(list)
    for name in reader.unread:
        if name.startswith(prefix) and "/" in name[len(prefix) :]:
            unread[name[len(prefix) :].split("/")[0]].append(name)
    gone = sorted(set(unread) - read)
    if gone:
        pictures = [name for label in gone for name in unread[label]]
        raise UserError(
            f"{reader.where}: no image of {len(gone)} classes can be read ({_some(prefix + label for label in gone)}): "
            f"{describe_unread(pictures)}."
        )


def _find_splits(reader: _Reader, stated: set[str]) -> dict[str, str]:
    """Role -> the folder, with "/", whose folders are the classes; {"train": ""}: those of the data folder itself.

    Args:
        stated: the roles that already have rows.
    Raises:
        UserError: the folders could mean several things.
    """
    below: dict[str, set[str]] = defaultdict(set)  # top folder -> the folders inside it that hold pictures; "": itself
    for name in (*reader.images, *reader.unread):
        parts = name.split("/")
        if len(parts) > 1:
            below[parts[0]].add("/".join(parts[1:-1]))
    with_classes = []
    by_role: dict[str, list[str]] = defaultdict(list)
    for top in sorted(below):
        role = split_role(top)
        if role is not None and role not in stated and below[top] != {""}:
            with_classes.append(top)
            by_role[role].append(top)
    for role, names in by_role.items():
        if len(names) > 1:
            raise UserError(
                f"{reader.where}: the folders {_some(names)} all mean the {role} split. Expected one: rename the others."
            )
    if not with_classes:
        return {} if stated else _without_splits(reader, below)
    _check_neighbours(reader, below, with_classes, stated)
    for top in with_classes:
        inner = defaultdict(set)
        for path in below[top] - {""}:
            head, _, rest = path.partition("/")
            inner[head].add(rest)
        _refuse_level_above(reader, f"{top}/", inner)
    return {role: f"{names[0]}/" for role, names in by_role.items()}


def _check_neighbours(reader: _Reader, below: dict[str, set[str]], splits: list[str], stated: set[str]) -> None:
    """Folders next to the splits: each is refused if it could hold rows that belong to the data, else noted."""
    classes = {_key(path.split("/")[0]) for top in splits for path in below[top] if path}
    others = [top for top in sorted(below) if top not in splits]
    resembling = resembling_splits(below)
    is_train_there = "train" in stated or any(split_role(top) == "train" for top in splits)
    for top in others:
        if split_role(top) and split_role(top) in stated:
            continue
        if split_role(top) and is_train_there:
            reader.notes.append(f"folder {top} has no class folders, so its images have no labels: not read")
        elif (top in resembling and below[top] != {""}) or _key(top) in classes:
            raise _ambiguous(reader, [*splits, top])
        elif not is_train_there:
            raise _ambiguous(reader, [*splits, *others])
        else:
            reader.notes.append(f"folder {top} is not a split and is not read")
    read = {*splits, *others}
    visible = sorted(p.name for p in reader.folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    reader.notes += [f"folder {printable(name)} is not a split and is not read" for name in visible if name not in read]


def _ambiguous(reader: _Reader, names: list[str]) -> UserError:
    return UserError(
        f"{reader.where}: {_some(dict.fromkeys(names))} look like splits and classes, or other splits, next to each other. "
        f"Expected only splits (train/CLASS/1.jpg, test/CLASS/1.jpg) or only classes (CLASS/1.jpg): move or rename the "
        f"folders that are not, or {_FLAG} if every one of them is a class."
    )


def _without_splits(reader: _Reader, below: dict[str, set[str]]) -> dict[str, str]:
    resembling = resembling_splits(below)
    if resembling:
        raise _unclear_splits(reader, below, resembling)
    if not below:
        names = sorted(name for name in os.listdir(reader.folder) if name.lower().endswith(TABLE_SUFFIXES))
        hints = reader.notes or (
            [f"{_some(names)} may hold their labels: name the table with --data.labels {reader.folder / names[0]}"]
            if names
            else []
        )
        hint = f" {'; '.join(hints)}." if hints else ""
        raise UserError(
            f"{reader.where}: its images are not in class folders.{hint} {_EXPECTED}: cats/1.jpg, dogs/2.jpg; or a "
            "metadata.csv next to the images, with the columns file_name and label."
        )
    _refuse_level_above(reader, "", below)
    return {"train": ""}


def _unclear_splits(reader: _Reader, below: dict[str, set[str]], resembling: list[str]) -> UserError:
    rest = [top for top in sorted(below) if top not in resembling]
    if rest:
        seen = f"the folders {_some(resembling)} look like splits, next to {_some(rest)}, which look like classes"
    elif all(below[top] == {""} for top in resembling):
        seen = f"the folders {_some(resembling)} look like splits, and their images are not in class folders"
    else:
        seen = f"the folders {_some(resembling)} look like splits, but are not named train, validation and test"
    return UserError(
        f"{reader.where}: {seen}. Expected train/CLASS/1.jpg, test/CLASS/1.jpg; or a metadata.csv in such a folder, with "
        f"the columns file_name and label. Rename or move the folders, or {_FLAG} if every one of them is a class."
    )


def _refuse_level_above(reader: _Reader, prefix: str, below: dict[str, set[str]]) -> None:
    """Refuse folders that look like a level above the classes, or like classes that hold splits."""
    tops = sorted(below)
    keys = {_key(top) for top in tops}
    suspects = [
        f"{prefix}{top}/{path}"
        for top in tops
        for path in sorted(below[top])
        for part in path.split("/")
        if (_key(part) in keys and _key(part) != _key(top)) or split_role(part)
    ]
    no_images_themselves = all("" not in paths for paths in below.values())
    if no_images_themselves and any(len(paths) > 1 for paths in below.values()):
        suspects += [f"{prefix}{top}/{path}" for top in tops for path in sorted(below[top])]
    if not suspects:
        return
    if len(tops) == 1:
        inner = sorted({path.split("/")[0] for path in below[tops[0]] if path})
        raise UserError(
            f"{reader.where}: has one class only, {printable(prefix + tops[0])}. {_EXPECTED}. Are the classes the folders "
            f"in it ({_some(inner)})? Then name that folder. If it is a class, {_FLAG}."
        )
    raise UserError(
        f"{reader.where}: its folders look like a level above the classes, or hold splits or other classes: "
        f"{_some(dict.fromkeys(suspects))}. Expected CLASS/1.jpg or train/CLASS/1.jpg: name the folder that holds the "
        f"class folders, move the folders, or {_FLAG} if {_some(tops)} are the classes."
    )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _some(names: Iterable[str]) -> str:
    names = [printable(name) for name in names]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
