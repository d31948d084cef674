"""Which column holds the images, which one the labels, and what number each label gets.

The names come from the train split alone: a label that only another split has is refused, because no model trained on
this data could ever give it. Labels of the other splits are matched by name, never by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_accel.config.sections import DataSettings
from hf_accel.data.labels import LABEL_COLUMNS, normal_name, unique_names
from hf_accel.data.streaming import StreamedTable
from hf_accel.errors import UserError

IMAGE_COLUMNS = ("image", "img")
Table: TypeAlias = "datasets.Dataset | StreamedTable"
LABEL_TYPES = (
    "bool",
    "string",
    "large_string",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


def find_columns(table: Table, settings: DataSettings) -> tuple[str, str]:
    """Names of the image and the label column: as the settings say, else by name, else the only one of its type.

    Raises:
        UserError: a named column is absent, or none can be chosen; the columns are listed.
    """
    return image_column(table, settings), label_column(table, settings)


def image_column(table: Table, settings: DataSettings) -> str:
    """The name of the image column; raises as `find_columns`."""
    encoded = [name for name, feature in table.features.items() if _holds_images(feature)]
    image = choose_column(
        "image", settings.image_column, [c for c in IMAGE_COLUMNS if c in encoded], encoded, table, settings
    )
    if image not in encoded:
        raise UserError(
            f"data.name {settings.name}: column {image} holds {describe_feature(table.features[image])}, expected encoded "
            f"images: an Image feature, or bytes. {listed_columns(table)}"
        )
    return image


def label_column(table: datasets.Dataset, settings: DataSettings) -> str:
    """The name of the label column; raises as `find_columns`."""
    classes = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    by_name = [name for name in LABEL_COLUMNS if name in table.features]
    label = choose_column("label", settings.one_label_column, by_name, classes, table, settings)
    feature = table.features[label]
    plain = isinstance(feature, datasets.Value) and feature.dtype in LABEL_TYPES
    if not plain and not isinstance(feature, datasets.ClassLabel):
        raise UserError(
            f"data.name {settings.name}: column {label} holds {describe_feature(feature)}, expected one label for each row: "
            f"a class label, text or a whole number. {listed_columns(table)}"
        )
    return label


def choose_column(
    what: str,
    named: str | None,
    by_name: list[str],
    by_type: list[str],
    table: Table,
    settings: DataSettings,
) -> str:
    """The column that is named, or is the only candidate; raises UserError where there is none, or more than one."""
    if named is not None:
        if named not in table.features:
            raise UserError(
                f"data.{what}_column is {named}, and data.name {settings.name} has no such column. {listed_columns(table)}"
            )
        return named
    if by_name or len(by_type) == 1:
        return (by_name or by_type)[0]
    found = f"several could be it ({', '.join(by_type)})" if by_type else "there is none"
    raise UserError(
        f"data.name {settings.name}: no {what} column can be chosen: {found}. {listed_columns(table)} "
        f"Name one with data.{what}_column."
    )


def listed_columns(table: Table) -> str:
    """A sentence with all columns, for messages."""
    return "Columns: " + ", ".join(f"{name} ({describe_feature(kind)})" for name, kind in table.features.items()) + "."


def describe_feature(feature: object) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _holds_images(feature: object) -> bool:
    if isinstance(feature, dict):  # parquet written without the features' metadata
        return {"bytes", "path"} <= set(feature)
    return isinstance(feature, datasets.Image) or (isinstance(feature, datasets.Value) and "binary" in feature.dtype)


@dataclass(frozen=True)
class LabelMap:
    """Class numbers 0..n-1 of the values in the label columns of all splits, matched by name.

    Numbers of a ClassLabel column stand for the names of that column: another split may list them in another order.
    Names that are equal in Unicode's normal form C look equal, and are one class; blank ones are missing labels.
    """

    names: list[str]

    @classmethod
    def of(cls, train: Table, column: str) -> LabelMap:
        feature = train.features[column]
        if isinstance(feature, datasets.ClassLabel):
            return cls(unique_names(feature.names))
        values = pc.drop_null(pc.unique(read_column(train, column)))
        if pa.types.is_integer(values.type):  # -1 and the like mean "no label", wherever they occur
            values = values.filter(pc.greater_equal(values, pa.scalar(0, values.type)))
        values = values.take(pc.sort_indices(values))
        return cls(unique_names(map(str, _plain_values(values, column))))

    def ids(self, table: Table, column: str) -> np.ndarray:
        """(N,) int64 class numbers; -1 where the label is missing or not one of the classes."""
        numbers = {name: number for number, name in enumerate(self.names)}
        feature, cells = table.features[column], read_column(table, column)
        if isinstance(feature, datasets.ClassLabel):
            own = np.array([numbers.get(normal_name(name), -1) for name in feature.names] + [-1], dtype=np.int64)
            cells = cells.fill_null(-1).to_numpy().astype(np.int64)
            return own[np.where((cells >= 0) & (cells < len(feature.names)), cells, -1)]
        values = pc.drop_null(pc.unique(cells))
        of_values = [numbers.get(normal_name(str(value)), -1) for value in _plain_values(values, column)]
        places = pc.index_in(cells, values).fill_null(-1).to_numpy().astype(np.int64)  # -1 picks the last entry below
        return np.array([*of_values, -1], dtype=np.int64)[places]


def _plain_values(values: pa.Array, column: str) -> list:
    try:
        return values.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(
            f"column {column}: the label {error.object!r} is not UTF-8. Expected text: correct it."
        ) from error


def label_text(table: Table, column: str, row: int) -> str:
    """What a row says about its class, for a message: the name where it has one."""
    value, feature = read_column(table, column)[row].as_py(), table.features[column]
    if isinstance(feature, datasets.ClassLabel) and value is not None and 0 <= value < len(feature.names):
        return repr(feature.names[value])
    return repr(value)


def read_column(table: Table, column: str) -> pa.ChunkedArray:
    return table.select_columns([column]).with_format("arrow")[:][column]


def is_unlabelled(column: pa.ChunkedArray) -> bool:
    """Whether it is a test split published without labels: all null or blank, or all -1, as in ImageNet-1k."""
    if len(column) == column.null_count:
        return True
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return not any(str(value or "").strip() for value in pc.unique(column).to_pylist())
    if not pa.types.is_integer(column.type):
        return False
    return pc.min_max(column).as_py() == {"min": -1, "max": -1}
