"""Parquet files of a local folder -> a table for each split, each with the class names of its own files.

`datasets` reads the features of the first file and applies them to all: where another file lists its class names in
another order, its numbers would silently mean other classes. Such files are opened on their own.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

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
    heads = {str(folder / name): pq.ParquetFile(folder / name) for name in names}
    classes = {path: _class_names(head.schema_arrow) for path, head in heads.items()}
    if _agree(classes):
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


def _files_of_splits(folder: Path, settings: DataSettings) -> dict[str, list[str]]:
    files = datasets.load_dataset_builder(str(folder), settings.config).config.data_files
    return {str(split): list(paths) for split, paths in files.items()}


def _class_names(schema: pa.Schema) -> ClassNames:
    features = datasets.Features.from_arrow_schema(schema)
    return {name: tuple(kind.names) for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}


def _agree(classes: dict[str, ClassNames]) -> bool:
    known: ClassNames = {}
    return all(known.setdefault(column, names) == names for file in classes.values() for column, names in file.items())


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
