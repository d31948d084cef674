"""Parquet files of a local folder -> a table for each split, each with the class names of its own files.

`datasets` reads the features of the first file, or those of the data set's card, and applies them to all files: where a
file lists its class names in another order, its numbers would silently mean other classes. Such files are opened on
their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from hf_accel.config.sections import DataSettings

ClassNames = dict[str, tuple[str, ...]]  # column -> the names of its classes


def read_parquet_tables(
    folder: Path, names: list[str], settings: DataSettings
) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """Split -> table, and notes. A class column whose names differ from file to file of one split holds texts.

    Args:
        names: the names of the parquet files below `folder`.
    Raises:
        OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException: a file cannot be read.
    """
    heads = _heads(folder, names)
    classes = {path: _class_names(head.schema_arrow) for path, head in heads.items()}
    if not are_mixed_up(classes, _names_of_card(folder, settings)):
        tables = dict(datasets.load_dataset(str(folder), settings.config))
        if sum(map(len, tables.values())) == sum(head.metadata.num_rows for head in heads.values()):
            return tables, []
        files = _files_of_splits(folder, settings)
    else:
        files = _files_of_splits(folder, settings)
        tables = {split: _read_alone(split, paths, classes) for split, paths in files.items()}
    read = {path for paths in files.values() for path in paths}
    left = [name for name in names if str(folder / name) not in read]
    shown = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return tables, [f"{len(left)} parquet files do not belong to the splits found: {shown} not read"] if left else []


def has_mixed_up_names(folder: Path, names: list[str], settings: DataSettings) -> bool:
    """Whether `datasets` would give some numbers in these files the names of other classes; raises as above."""
    classes = {path: _class_names(head.schema_arrow) for path, head in _heads(folder, names).items()}
    return are_mixed_up(classes, _names_of_card(folder, settings))


def _heads(folder: Path, names: list[str]) -> dict[str, pq.ParquetFile]:
    return {str(folder / name): pq.ParquetFile(folder / name) for name in names}


def _names_of_card(folder: Path, settings: DataSettings) -> ClassNames:
    """The class names that the README.md of a data set states; none for most."""
    if not (folder / "README.md").is_file():
        return {}
    features = datasets.load_dataset_builder(str(folder), settings.config).info.features or {}
    return class_columns(features)


def _files_of_splits(folder: Path, settings: DataSettings) -> dict[str, list[str]]:
    files = datasets.load_dataset_builder(str(folder), settings.config).config.data_files
    return {str(split): list(paths) for split, paths in files.items()}


def _class_names(schema: pa.Schema) -> ClassNames:
    return class_columns(datasets.Features.from_arrow_schema(schema))


def class_columns(features: Mapping[str, Any]) -> ClassNames:
    """The names of the classes of each class column."""
    return {name: tuple(kind.names) for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}


def are_mixed_up(classes: dict[str, ClassNames], card: ClassNames) -> bool:
    """Whether two files disagree, or a file and the card: a card may rename classes, but not list them in another order."""
    known: ClassNames = {}
    for file in classes.values():
        for column, names in file.items():
            stated = card.get(column, names)
            if known.setdefault(column, names) != names or (stated != names and sorted(stated) == sorted(names)):
                return True
    return False


def _read_alone(split: str, paths: list[str], classes: dict[str, ClassNames]) -> datasets.Dataset:
    pieces = []
    for _, group in groupby(paths, key=classes.get):
        pieces.append(datasets.load_dataset("parquet", data_files={split: list(group)}, split=split))
    if len(pieces) == 1:
        return pieces[0]
    columns = {column for path in paths for column in classes[path]}
    return datasets.concatenate_datasets([_with_texts(piece, columns) for piece in pieces])


def _with_texts(table: datasets.Dataset, columns: set[str]) -> datasets.Dataset:
    """The same table with the names of the classes in place of their numbers."""
    order = table.column_names
    for column in sorted(columns & set(order)):
        feature = table.features[column]
        if not isinstance(feature, datasets.ClassLabel):
            continue
        numbers = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
        is_class = [number is not None and 0 <= number < len(feature.names) for number in numbers]
        texts = [feature.names[n] if known else None for n, known in zip(numbers, is_class, strict=True)]
        table = table.remove_columns(column).add_column(column, pa.array(texts, pa.string()))
    return table.select_columns(order)
