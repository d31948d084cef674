"""The tables of a data set, or the files of an image folder -> splits with class numbers; no image is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hf_accel.config.sections import DataSettings
from hf_accel.data.image_folder import ImageFolder, labelled_files
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.rows import Rows
from hf_accel.errors import UserError

if TYPE_CHECKING:  # an exported model is scored on an image folder without `datasets`
    import datasets

    from hf_accel.data.columns import LabelMap
    from hf_accel.data.sources import Source

Images = TypeVar("Images", bound=ImageSplit)


def label_tables(
    source: Source, settings: DataSettings, label_map: LabelMap
) -> tuple[dict[str, ImageSplit], list[str]]:
    """Every part with its class numbers; empty and unlabelled ones are left out, and a note says so."""
    from hf_accel.data.columns import find_columns, is_unlabelled, label_text, read_column

    parts, notes = {}, list(source.notes)
    for role, table in source.parts.items():
        image_column, label_column = find_columns(table, settings)
        column = read_column(table, label_column)
        if role != "train" and is_unlabelled(column):
            notes.append(unused_note(role, len(table)))
            continue
        labels = label_map.ids(table, label_column)
        part = labelled_images(source, settings, role, image_column, label_column, labels, label_map.names, ImageSplit)
        refuse_unknown_labels(part, label_column, partial(label_text, table, label_column))
        parts[role] = part
    return parts, notes


def labelled_images(
    source: Source,
    settings: DataSettings,
    role: str,
    image_column: str,
    label_column: str,
    labels: np.ndarray,
    label_names: list[str],
    kind: type[Images],
) -> Images:
    """The images of a split with their labels.

    Args:
        label_column: where the labels were found; the fingerprint depends on it.
        kind: of the split.
    """
    from hf_accel.data.groups import groups_of

    where, folder = f"{settings.name}, {role} split", Path(settings.name).expanduser()
    images, numbers, of_files = _images_of(source, role, image_column, settings, where)
    content = f"{source.fingerprints[role]} {image_column} {label_column}{of_files}"
    return kind.from_settings(
        settings,
        content,
        dataset=images,
        image_column=image_column,
        labels=labels,
        label_names=label_names,
        source=where,
        folder=folder if folder.is_dir() else None,
        groups=groups_of(source.parts[role], settings, role),
        content=numbers,
    )


def label_one_table(source: Source, settings: DataSettings, role: str) -> tuple[ImageSplit | None, list[str]]:
    from hf_accel.data.columns import LabelMap, find_columns

    table = source.parts[role]
    labels = LabelMap.of(table, find_columns(table, settings)[1])
    parts, notes = label_tables(replace(source, parts={role: table}), settings, labels)
    return parts.get(role), notes


def label_files(folder: ImageFolder, settings: DataSettings, role: str) -> tuple[ImageSplit | None, list[str]]:
    part, labels = labelled_files(folder.parts[role], settings, role), folder.parts[role].labels
    if part is None:
        return None, [*folder.notes, unused_note(role, len(labels))]
    refuse_unknown_labels(part, folder.parts[role].column, lambda row: repr(labels[row]))
    return part, list(folder.notes)


def _images_of(
    source: Source, role: str, column: str, settings: DataSettings, where: str
) -> tuple[datasets.Dataset | Rows, np.ndarray | None, str]:
    """The images of a split, their content numbers (None: not known), and a fingerprint of the files that they are in."""
    import datasets

    from hf_accel.data.encoded import content_numbers, with_own_files
    from hf_accel.data.streaming import SHUFFLE_BUFFER, StreamedTable

    table = source.parts[role]
    if isinstance(table, StreamedTable):
        window = settings.shuffle_buffer or SHUFFLE_BUFFER
        return table.images(column, window if role == "train" else 1), None, ""
    images, of_files = table.select_columns([column]).cast_column(column, datasets.Image(decode=False)), ""
    if source.folders is not None:
        images, of_files = with_own_files(images, column, source.folders, where)
    numbers = source.content[role] if role in source.content else content_numbers(images, column)
    return images, numbers, of_files


def refuse_unknown_labels(part: LabelledRows, label_column: str, text: Callable[[int], str]) -> None:
    outside = np.flatnonzero(part.labels < 0)
    if len(outside):
        names = ", ".join(part.label_names[:10]) + (", …" if len(part.label_names) > 10 else "")
        raise UserError(
            f"{part.where(outside[0])}: {label_column} is {text(int(outside[0]))}, expected one of "
            f"the {len(part.label_names)} classes of the train split ({names}). {len(outside)} of its {len(part)} rows have "
            "such a label: correct or remove them."
        )


def unused_note(role: str, rows: int) -> str:
    return f"its {role} split {'has no labels' if rows else 'is empty'}: not used"
