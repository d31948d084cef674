"""A data set of texts -> train, validation and test rows with their labels; no text is kept in memory.

Rows without text (null or blank in every column) are named, and refused or left out. Which rows train, select and score is
decided as for images: see `splits.py`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, ClassVar

import datasets
import numpy as np

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import (
    LabelMap,
    choose_column,
    describe_feature,
    is_unlabelled,
    label_column,
    label_text,
    listed_columns,
    read_column,
)
from hf_accel.data.groups import groups_of
from hf_accel.data.holding_out import subset
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.labelling import refuse_unknown_labels
from hf_accel.data.labels import LABEL_COLUMNS
from hf_accel.data.scored_rows import ScoredRows, scored_role
from hf_accel.data.sources import Source
from hf_accel.data.splits import (
    TEST_SEED,
    Splits,
    balance_notes,
    choose_rows,
    coverage_notes,
    refuse_single_class,
    single_class,
    split_fingerprint,
    splits_of_chosen,
    train_table,
    with_present_classes,
)
from hf_accel.data.text_sources import open_text_source
from hf_accel.errors import UserError

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "review", "content", "review_body", "comment", "document")
TITLED = ("title", "content")  # joined where both are there
_PORTION = 10_000  # rows


@dataclass(frozen=True)
class TextSplit(LabelledRows):
    """The rows of one split; texts are read when they are asked for."""

    unit: ClassVar[str] = "text"
    is_fixed: ClassVar[bool] = True  # a row has the same text whenever it is read

    dataset: datasets.Dataset
    columns: tuple[str, ...]  # of text, which are joined line by line
    labels: np.ndarray  # (N,) int64
    label_names: list[str]
    source: str  # for messages: "data/reviews, train split"
    fingerprint: str  # changes with the content and with the rows selected
    rows: np.ndarray | None = None  # (N,) the row of each text in `source`; None: 0..N-1
    groups: np.ndarray | None = None  # (N,) int64, equal for rows that no split divides

    def texts(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The texts of neighbouring rows; columns without text are left out."""
        cells = self.dataset[start : len(self) if stop is None else stop]
        return [joined(parts) for parts in zip(*(cells[name] for name in self.columns), strict=True)]

    def read(self, row: int) -> str:
        return self.texts(int(row), int(row) + 1)[0]

    def portions(self) -> Iterator[list[str]]:
        """All texts, some thousands at a time."""
        for start in range(0, len(self), _PORTION):
            yield self.texts(start, min(start + _PORTION, len(self)))

    def where(self, row: int) -> str:
        return f"row {self.row_numbers()[row]} of {self.source}"

    def select(self, rows: np.ndarray) -> TextSplit:
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            dataset=self.dataset.select(rows),
            labels=self.labels[rows],
            rows=rows if self.rows is None else self.rows[rows],
            groups=None if self.groups is None else self.groups[rows],
            fingerprint=hashlib.sha256(self.fingerprint.encode() + rows.tobytes()).hexdigest(),
        )


def joined(parts: Iterable[Any]) -> str:
    """The text of a row: the cells that hold text, line by line.

    >>> joined(["Great ", None, "It works."])
    'Great\\nIt works.'
    """
    return "\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def load_text_splits(settings: DataSettings, seed: int, selection: bool = True) -> Splits[TextSplit]:
    """Open a data set of texts and decide which rows train, select and score; see `splits.load_splits`.

    Raises:
        UserError: the data cannot be found, understood or divided, has one class only, or a row without text.
    """
    return text_splits_of_source(open_text_source(settings), settings, seed, selection)


def text_splits_of_source(
    source: Source,
    settings: DataSettings,
    seed: int,
    selection: bool = True,
    name_classes: Callable[[list[str]], list[str]] = list,
) -> Splits[TextSplit]:
    """`load_text_splits` of tables that are open.

    Args:
        name_classes: the classes that the train split names -> the same in the order of their numbers.
    """
    train = train_table(source, settings)
    found = LabelMap.of(train, label_column(train, settings))
    if len(found.names) < 2:
        raise single_class(settings, found.names, TextSplit.unit)
    skipped: list[str] = []
    parts, notes = _label(source, settings, LabelMap(name_classes(found.names)), skipped)
    refuse_single_class(parts["train"], settings)
    chosen = choose_rows(parts, settings, seed, selection, notes)
    refuse_single_class(chosen["train"], settings)
    notes += coverage_notes(chosen) + balance_notes(chosen["train"], settings) + _repetition_notes(chosen)
    return splits_of_chosen(chosen, parts.keys(), settings, skipped, notes)


def load_text_split(settings: DataSettings, role: str = "test") -> ScoredRows:
    """Everything that data holds of one split, for evaluation alone; see `scored_rows.load_split`."""
    source = open_text_source(settings)
    taken = scored_role(source, settings, role)
    table, skipped = source.parts[taken], list[str]()
    labels = LabelMap.of(table, label_column(table, settings))
    parts, notes = _label(replace(source, parts={taken: table}), settings, labels, skipped)
    if taken not in parts or not len(parts[taken]):
        raise UserError(
            f"data.name {settings.name}: {'; '.join(notes) or 'it is empty'}. Expected labelled texts to score."
        )
    part = subset(parts[taken], settings.max_train_rows if role == "train" else settings.max_test_rows, TEST_SEED)
    if taken != role:
        notes.append(f"no {role} split: all its rows ({source.names[taken]}) are scored")
    part = with_present_classes(part)
    return ScoredRows(part, split_fingerprint(part), taken, skipped, notes)


def unlabelled_split(table: datasets.Dataset, settings: DataSettings, source: str) -> TextSplit:
    """All rows of a table, whose labels are not asked for; a row without text is blank.

    Args:
        source: for messages.
    Raises:
        UserError: its columns of text are not clear.
    """
    columns = text_columns(table, settings, next((name for name in LABEL_COLUMNS if name in table.features), ""))
    return TextSplit(
        dataset=table.select_columns(list(columns)),
        columns=columns,
        labels=np.full(len(table), -1),
        label_names=[],
        source=source,
        fingerprint=table._fingerprint,
    )


def text_columns(table: datasets.Dataset, settings: DataSettings, label: str) -> tuple[str, ...]:
    """The columns of text: as the settings say, else by name, else the only one that holds text and not labels.

    Raises:
        UserError: a named column is absent or holds something else, or none can be chosen; the columns are listed.
    """
    texts = [name for name, feature in table.features.items() if name != label and _holds_text(feature)]
    named = settings.text_column
    if named is None and all(name in texts for name in TITLED):
        return TITLED
    asked = named if isinstance(named, list) else [named]
    by_name = [name for name in TEXT_COLUMNS if name in texts]
    found = [choose_column("text", name, by_name, texts, table, settings) for name in asked]
    for name in found:
        if not _holds_text(table.features[name]):
            raise UserError(
                f"data.name {settings.name}: column {name} holds {describe_feature(table.features[name])}, expected text. "
                f"{listed_columns(table)}"
            )
    return tuple(found)


def _holds_text(feature: object) -> bool:
    """A column of JSON lines that holds something else in some rows is of the type Json; these rows have no text."""
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string")
    return type(feature).__name__ == "Json"


def _label(
    source: Source, settings: DataSettings, label_map: LabelMap, skipped: list[str]
) -> tuple[dict[str, TextSplit], list[str]]:
    """Every part with its class numbers, without the rows that have no text; unlabelled parts are left out, with a note."""
    parts, notes = {}, list(source.notes)
    for role, table in source.parts.items():
        label = label_column(table, settings)
        columns = text_columns(table, settings, label)
        if role != "train" and is_unlabelled(read_column(table, label)):
            notes.append(f"its {role} split {'has no labels' if len(table) else 'is empty'}: not used")
            continue
        content = f"{source.fingerprints[role]} {columns} {label}"
        part = TextSplit(
            dataset=table.select_columns(list(columns)),
            columns=columns,
            labels=label_map.ids(table, label),
            label_names=label_map.names,
            source=f"{settings.name}, {role} split",
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
            groups=groups_of(table, settings, role),
        )
        refuse_unknown_labels(part, label, partial(label_text, table, label))
        parts[role] = rows_with_text(part, settings, skipped)
        if len(columns) > 1 and role == "train":
            notes.append(f"text: the columns {' and '.join(columns)}, joined line by line")
    return parts, notes


def rows_with_text(part: TextSplit, settings: DataSettings, skipped: list[str]) -> TextSplit:
    """The rows that have text. The others are added to `skipped`, or refused.

    Raises:
        UserError: a row without text, unless they are to be skipped; or no row has text.
    """
    blank = np.flatnonzero(np.concatenate([[not text for text in texts] for texts in part.portions()] or [[]]))
    if not len(blank):
        return part
    columns = " and ".join(part.columns)
    if settings.on_bad_text == "error" or len(blank) == len(part):
        raise UserError(
            f"{part.where(blank[0])}: has no text in {columns} (null, blank or not text). {len(blank)} of its {len(part)} rows "
            "have none: fix or remove them, or set data.on_bad_text: skip to leave them out."
        )
    skipped += [f"{part.where(row)}: has no text in {columns}" for row in blank.tolist()]
    logger.info("%d rows of %s have no text in %s, and are left out", len(blank), part.source, columns)
    return part.select(np.setdiff1d(np.arange(len(part)), blank))


def _repetition_notes(parts: dict[str, TextSplit]) -> list[str]:
    """Texts that occur in two splits: the score then counts texts that were learned by heart."""
    hashes = {
        role: np.fromiter((hash(text) for texts in part.portions() for text in texts), np.int64, len(part))
        for role, part in parts.items()
    }
    notes = []
    for first, second in combinations(parts, 2):
        shared = int(np.isin(hashes[second], hashes[first]).sum())
        if shared:
            notes.append(
                f"{shared:,} of the {len(parts[second]):,} {second} texts are also {first} texts, word for word"
            )
    return notes
