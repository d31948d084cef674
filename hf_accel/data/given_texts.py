"""The texts that a Python caller brings -> `Splits`, with the same rules as those of a data set that a recipe names.

Every form becomes a table: a `datasets.Dataset`, a pandas DataFrame, a list of dictionaries or of (text, label), a mapping of
columns, a pair (texts, labels), or a torch data set of such rows, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import datasets
import pyarrow as pa

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import LabelMap, is_unlabelled, label_column, read_column
from hf_accel.data.given import SELECTION, Classes, by_role, is_pair_of_columns, with_class_names
from hf_accel.data.labelling import refuse_unknown_labels
from hf_accel.data.labels import LABEL_COLUMNS
from hf_accel.data.sources import source_of_tables
from hf_accel.data.splits import Splits
from hf_accel.data.text import TEXT_COLUMNS, TextSplit, rows_with_text, text_splits_of_source, unlabelled_split
from hf_accel.errors import UserError

EXPECTED = (
    "expected a datasets.Dataset, a DataFrame, a list of dictionaries or of (text, label), a pair (texts, labels), or a torch "
    "data set of such rows"
)
TEXT, LABEL = TEXT_COLUMNS[0], LABEL_COLUMNS[0]


def given_text_splits(given: Any, settings: DataSettings, seed: int, classes: Classes) -> Splits[TextSplit]:
    """Decide which of the given rows train, select and score; see `data.given.given_splits`.

    Raises:
        UserError: rows that cannot be understood or divided; the message names them.
    """
    settings = replace(settings, name=f"given as {type(given).__name__}")
    parts = by_role(given, settings.name, _column_names(settings))
    if {"validation", "test"} <= set(parts):
        settings = replace(settings, validation=settings.validation or SELECTION)  # not drawn: only not zero
    tables = {role: table_of(rows, f"the given {role} rows") for role, rows in parts.items()}
    if classes.names or classes.of_model:
        labelled = {role: label_column(table, settings) for role, table in tables.items()}
        tables = {role: with_class_names(table, labelled[role], settings, classes) for role, table in tables.items()}
    source = source_of_tables(f"data.name {settings.name}", tables)
    return text_splits_of_source(source, settings, seed, name_classes=classes.chosen)


def given_text_split(given: Any, settings: DataSettings, label_names: list[str]) -> TextSplit:
    """Texts to be predicted or scored by a model of these classes; they may have no labels.

    Raises:
        UserError: rows that cannot be understood, one without text, or a label that the model does not know.
    """
    where = "the given rows"
    settings = replace(settings, name=where, on_bad_text="error")  # every row has its prediction
    table = table_of(given, where)
    asked = [settings.one_label_column] if settings.one_label_column else LABEL_COLUMNS
    label = next((name for name in asked if name in table.features), None)
    split = rows_with_text(unlabelled_split(table, settings, where), settings, [])
    if label is None or is_unlabelled(read_column(table, label)):
        return replace(split, label_names=label_names)
    table = with_class_names(table, label, settings, Classes(names=label_names))
    split = split.relabelled(LabelMap(label_names).ids(table, label), label_names)
    refuse_unknown_labels(split, label, lambda row: repr(table[row][label]))
    return split


def table_of(rows: Any, where: str) -> datasets.Dataset:
    """
    Raises:
        UserError: the rows are of none of the forms, are empty, or differ in their columns.
    """
    try:
        table = _table_of(rows, where)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: are not a table ({reason}), {EXPECTED}") from error
    if not len(table):
        raise UserError(f"{where}: are empty, expected one row or more")
    return table


def _table_of(rows: Any, where: str) -> datasets.Dataset:
    if isinstance(rows, datasets.Dataset) and rows.format["type"] != "custom":
        return rows.with_format(None)
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):
        return datasets.Dataset.from_pandas(rows, preserve_index=False)
    if isinstance(rows, Mapping):
        return datasets.Dataset.from_dict({str(name): list(column) for name, column in rows.items()})
    if is_pair_of_columns(rows):
        texts, labels = map(list, rows)
        if len(texts) != len(labels):
            raise UserError(f"{where}: {len(texts)} texts and {len(labels)} labels, expected one label for each text")
        return datasets.Dataset.from_dict({TEXT: texts, LABEL: _plain(labels)})
    if isinstance(rows, str | bytes) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        raise UserError(f"{where}: are of the type {type(rows).__name__}, {EXPECTED}")
    items = [rows[row] for row in range(len(rows))] if not hasattr(rows, "iloc") else list(rows)
    if items and all(isinstance(item, Mapping) for item in items):
        return datasets.Dataset.from_list([dict(item) for item in items])
    if all(isinstance(item, str) for item in items):
        return datasets.Dataset.from_dict({TEXT: items})
    pairs = [(text, label) for text, label in items]
    return datasets.Dataset.from_dict({TEXT: [text for text, _ in pairs], LABEL: _plain(label for _, label in pairs)})


def _plain(labels: Iterable[Any]) -> list[Any]:
    """Numbers of NumPy and torch as those of Python."""
    return [label.item() if hasattr(label, "item") else label for label in labels]


def _column_names(settings: DataSettings) -> tuple[str, ...]:
    named = settings.text_column
    return (*TEXT_COLUMNS, *([named] if isinstance(named, str) else named or ()))
