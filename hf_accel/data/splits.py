"""A data set -> train, validation and test rows with their labels; no image is decoded until it is read.

The test rows never depend on the seed of a run. Where the data set brings no test split they are drawn once, with a
seed of their own: two runs that differ in seed are then scored on the same images, and a model is never evaluated on
an image that it was trained on with another seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from hf_accel import terminal
from hf_accel.config.sections import DataSettings
from hf_accel.data.duplicates import duplicate_notes, were_compared
from hf_accel.data.holding_out import Part, fold_rows, hold_out, subset
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.images import DEEP_GREY_SCALING, UnreadableImageError, decode_image, has_deep_grey
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.labelling import Images, label_tables
from hf_accel.data.listing import load_images
from hf_accel.errors import UserError
from hf_accel.tables import format_table, printable

if TYPE_CHECKING:  # an exported model is scored on an image folder without `datasets`
    from hf_accel.data.columns import Table
    from hf_accel.data.sources import Source

__all__ = [
    "ImageSplit",
    "Splits",
    "decode_image",
    "load_images",
    "load_splits",
]

logger = logging.getLogger(__name__)

TEST_FRACTION = 0.2  # of train, where a data set has neither a validation nor a test split
TEST_SEED = 0
FOLD_SEED = 0  # runs of all folds divide the rows alike, whatever the seeds of these runs
CLASSES_SHOWN = 20  # more classes than this are folded, so that `describe` fits one screen
_NAMES_SHOWN = 3
_NAME_LENGTH = 32
IMBALANCE = 4  # rows of the largest class per row of the smallest, from which a note tells of it
_HEADERS_READ = 32  # per split, to find images of more than 8 bits


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """What a run trains on, selects with and is scored on."""

    train: Part
    validation: Part | None  # None: nothing is selected, the last weights are scored
    test: Part
    label_names: list[str]
    name: str
    fingerprint: str
    test_split: str = "test"  # the data set's own split that the test rows come from: test, validation or train
    held_out: tuple[str, ...] = ()  # the roles whose rows were drawn from the data set's train split
    fingerprints: dict[str, str] = field(default_factory=dict)  # of each split by role, its class names included
    duplicates_searched: bool = True  # False: there is too much to look for images that occur twice
    skipped: list[str] = field(default_factory=list)  # unreadable rows left out, each with the reason
    notes: list[str] = field(default_factory=list)  # where the splits come from, what was not read

    @property
    def unit(self) -> str:
        """What a row is: image or text."""
        return self.train.unit

    def describe(self, width: int = 80) -> str:
        """Classes, counts and notes, in one screen: of many classes the largest and the smallest are shown."""
        roles = {"train": self.train, "validation": self.validation, "test": self.test}
        parts = {role: part for role, part in roles.items() if part is not None}
        counts = np.stack([part.class_counts() for part in parts.values()])  # (P, C)
        totals = ", ".join(f"{len(part):,} {role}" for role, part in parts.items())
        names = [_short(name) for name in self.label_names]
        shown, folded = list(range(len(names))), 0
        if len(names) > CLASSES_SHOWN:
            half = CLASSES_SHOWN // 2
            by_size = np.argsort(-counts[0], kind="stable")
            shown = [*by_size[:half], *by_size[-half:]]
            folded = len(names) - 2 * half
        rows = [(names[label], *(f"{count:,}" for count in counts[:, label])) for label in shown]
        table = format_table(("class", *parts), rows, min_widths=(0, *[10] * len(parts)), indent=2).splitlines()
        if folded:
            gap = f"  … {folded:,} more classes, between these two groups in number of train {self.unit}s …"
            table.insert(1 + CLASSES_SHOWN // 2, gap)
        lines = [f"{self.name}: {len(self.label_names):,} classes, {totals} {self.unit}s", "", *table]
        lines += [""] if self.notes else []
        for note in self.notes:
            lines += textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
        if self.skipped:
            lines += ["", f"  {len(self.skipped):,} unreadable {self.unit}s are left out:"]
            lines += [f"    {text}" for text in self.skipped[:5]]
            lines += ["    …"] if len(self.skipped) > 5 else []
        return "\n".join(map(printable, lines))


def load_splits(settings: DataSettings, seed: int, selection: bool = True) -> Splits:
    """Open a data set and decide which rows train, select and score.

    Without a test split the validation split is the test; without either, a fifth of train is. Without a validation
    split `data.validation` of train is held out, or a fold of `data.folds`. Rows are drawn within
    classes, so that each class keeps its share; whole groups by `data.group_column` are;
    a class of one row stays in train. `max_train_rows` counts the held-out rows too.

    Args:
        seed: draws the held-out rows and the subset of train; the test rows do not depend on it.
        selection: False holds nothing out and returns no validation split; `data.validation: 0` means the same.
    Raises:
        UserError: the data cannot be found, understood or divided, or has one class only.
    """
    from hf_accel.data.sources import open_source

    return splits_of_source(open_source(settings), settings, seed, selection)


def splits_of_source(
    source: Source,
    settings: DataSettings,
    seed: int,
    selection: bool = True,
    name_classes: Callable[[list[str]], list[str]] = list,
) -> Splits:
    """`load_splits` of tables that are open.

    Args:
        name_classes: the classes that the train split names -> the same in the order of their numbers.
    """
    from hf_accel.data.columns import LabelMap, find_columns

    train = train_table(source, settings)
    found = LabelMap.of(train, find_columns(train, settings)[1])
    if len(found.names) < 2:
        raise single_class(settings, found.names)
    parts, notes = label_tables(source, settings, LabelMap(name_classes(found.names)))
    return splits_of_parts(parts, settings, seed, selection, notes)


def train_table(source: Source, settings: DataSettings) -> Table:
    """Raises UserError: there is no train split."""
    if "train" not in source.parts:
        raise UserError(
            f"data.name {settings.name}: has no train split, only {', '.join(sorted(source.names.values()))}. Expected a "
            "split named train."
        )
    return source.parts["train"]


def splits_of_parts(
    parts: dict[str, Images], settings: DataSettings, seed: int, selection: bool, notes: list[str]
) -> Splits[Images]:
    """The second half of `load_splits`: which of the labelled rows train, select and score.

    Args:
        parts: the data's own splits by role; `train` is one of them.
        notes: on how they were read.
    """
    refuse_single_class(parts["train"], settings)
    chosen = choose_rows(parts, settings, seed, selection, notes)
    skipped: list[str] = []
    if settings.on_bad_image == "skip":
        # of a stream, training images are read when they train: those that cannot be are replaced then
        read = [role for role, part in chosen.items() if role != "train" or not part.is_streamed]
        chosen |= {role: readable_rows(chosen[role], skipped, role == "train") for role in read}
        chosen["train"] = replace(chosen["train"], has_stand_ins=True)
    refuse_single_class(chosen["train"], settings)
    notes += coverage_notes(chosen) + balance_notes(chosen["train"], settings) + deep_grey_notes(chosen)
    notes += duplicate_notes(chosen, settings.name)
    duplicates_searched = were_compared(chosen.values())
    chosen = {role: replace(part, content=None, groups=None) for role, part in chosen.items()}
    made = splits_of_chosen(chosen, parts.keys(), settings, skipped, notes)
    return replace(made, duplicates_searched=duplicates_searched)


def splits_of_chosen(
    chosen: dict[str, Part], brought: Collection[str], settings: DataSettings, skipped: list[str], notes: list[str]
) -> Splits[Part]:
    """The splits whose rows are final.

    Args:
        brought: the roles of the data's own splits.
    """
    content = "".join(part.fingerprint for part in chosen.values())
    return Splits(
        train=chosen["train"],
        validation=chosen.get("validation"),
        test=chosen["test"],
        label_names=chosen["train"].label_names,
        name=settings.name,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        fingerprints={role: split_fingerprint(part) for role, part in chosen.items()},
        test_split=next(role for role in ("test", "validation", "train") if role in brought),
        held_out=_held_out(brought, chosen.keys()),
        skipped=skipped,
        notes=notes,
    )


def choose_rows(
    parts: dict[str, Part], settings: DataSettings, seed: int, selection: bool, notes: list[str]
) -> dict[str, Part]:
    """train, validation (if any) and test as `load_splits` describes them; the decisions are added to the notes."""
    train, validation, test = parts["train"], parts.get("validation"), parts.get("test")
    selection = selection and settings.selects
    whole = "" if settings.group_column is None else f", whole groups by {settings.group_column}"
    how = train.stratified + whole
    if test is None and validation is not None:
        validation, test = None, validation
        notes.append("no test split: the validation split is the test")
    if test is None:
        train, test = hold_out(train, TEST_FRACTION, TEST_SEED, "test")
        share = len(test) / (len(train) + len(test)) if whole else TEST_FRACTION
        notes.append(f"no test split: {share:.0%} of train is the test, {how}, the same for every seed")
    test = subset(test, settings.max_test_rows, TEST_SEED)
    train = subset(train, settings.max_train_rows, seed)
    if not selection:
        validation = None
    elif settings.folds is not None:
        if validation is not None:
            raise UserError(
                f"data.folds divides the train split of {settings.name}, which has train, validation and test splits. Leave "
                "data.folds out, or bring train and test only."
            )
        train, validation = fold_rows(train, settings.folds, settings.fold, FOLD_SEED)
        notes.append(f"validation: fold {settings.fold} of 0 to {settings.folds - 1}, {how}, the same for every seed")
    elif validation is not None:
        validation = subset(validation, settings.max_test_rows, TEST_SEED)
    else:
        train, validation = hold_out(train, settings.validation, seed, "validation")
        share = len(validation) / (len(train) + len(validation)) if whole else settings.validation
        notes.append(f"validation: {share:.3g} of train held out, {how}, seed {seed}")
    chosen = {"train": train, **({} if validation is None else {"validation": validation}), "test": test}
    notes += shared_group_notes(chosen, settings)
    return chosen


def shared_group_notes(parts: Mapping[str, LabelledRows], settings: DataSettings) -> list[str]:
    """Groups that are in two splits, because the data set brings them so."""
    groups = {role: np.unique(part.groups) for role, part in parts.items() if part.groups is not None}
    notes = []
    for (first, ones), (second, others) in combinations(groups.items(), 2):
        shared = len(np.intersect1d(ones, others))
        if shared:
            notes.append(
                f"warning: {shared:,} of the {len(others):,} groups of {second} by {settings.group_column} are also in {first}, "
                "as the data set divides its rows"
            )
    return notes


def _held_out(brought: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    """The roles in use that the data set brings no split for; its validation split may be the test."""
    own = ("test", "validation")[: len({"test", "validation"} & set(brought))]
    return tuple(role for role in ("validation", "test") if role in used and role not in own)


def with_present_classes(part: Part) -> Part:
    """The same rows; its classes are those that have rows."""
    present = np.unique(part.labels)
    names = [part.label_names[number] for number in present]
    return part.relabelled(np.searchsorted(present, part.labels), names)


def split_fingerprint(part: LabelledRows) -> str:
    return hashlib.sha256(json.dumps([part.fingerprint, part.label_names]).encode()).hexdigest()


def refuse_single_class(train: LabelledRows, settings: DataSettings) -> None:
    present = np.flatnonzero(train.class_counts())
    if len(present) < 2:
        raise single_class(settings, [train.label_names[number] for number in present], train.unit)


def single_class(settings: DataSettings, names: list[str], unit: str = "image") -> UserError:
    got = f"{unit}s of one class only, {names[0]}" if names else f"no labelled {unit}s"
    return UserError(f"data.name {settings.name}: has {got} to train on, expected two or more classes")


def coverage_notes(parts: Mapping[str, LabelledRows]) -> list[str]:
    """Which classes a split has no row of, by name."""
    notes = []
    for role, part in parts.items():
        counts = part.class_counts()
        absent = [part.label_names[number] for number in np.flatnonzero(counts == 0)]
        if absent:
            notes.append(
                f"{role} has no {part.unit} of {len(absent):,} of the {len(counts):,} classes: {_some(absent)}"
            )
    return notes


def balance_notes(train: LabelledRows, settings: DataSettings) -> list[str]:
    """How much larger the largest class is than the smallest, if it is much, and what can be done about it."""
    counts = train.class_counts()
    counts_of_present = np.where(counts > 0, counts, counts.max())
    least, most = int(counts_of_present.argmin()), int(counts.argmax())
    ratio = counts[most] / counts[least]
    if ratio < IMBALANCE:
        return []
    large, small = (f"{_short(train.label_names[label])!r} ({counts[label]:,})" for label in (most, least))
    is_corrected = settings.class_weights is not None or settings.sampling == "balanced"
    advice = "" if is_corrected else "; data.class_weights: balanced, or data.sampling: balanced, makes up for it"
    return [
        f"imbalance: the largest class, {large}, has {ratio:.1f} times the {train.unit}s of the smallest, {small}. "
        f"Compare macro F1, not accuracy{advice}"
    ]


def _some(names: list[str]) -> str:
    shown = [repr(_short(name)) for name in names[:_NAMES_SHOWN]]
    while len(shown) > 1 and len(", ".join(shown)) > 2 * _NAME_LENGTH:
        shown.pop()
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def deep_grey_notes(parts: Mapping[str, ImageSplit]) -> list[str]:
    """Whether images have more than 8 bits, by the headers of a few: all of them would take minutes to open."""
    for part in parts.values():
        last = min(len(part), _HEADERS_READ) - 1 if part.is_streamed else len(part) - 1
        for row in np.unique(np.linspace(0, last, min(len(part), _HEADERS_READ)).astype(int)).tolist():
            if has_deep_grey(part.dataset[row][part.image_column]):
                return [
                    f"grey images have more than 8 bits ({part.where(row)}): {DEEP_GREY_SCALING}; `pipeline` clips such levels "
                    "at 255, so give it 8-bit images"
                ]
    return []


def readable_rows(part: Images, skipped: list[str], refuse_gone: bool) -> Images:
    """The rows whose images decode. The others are added to `skipped`.

    Raises:
        UserError: no image can be read, or, if `refuse_gone`, none of one of its classes.
    """

    def problem(row: int) -> str | None:
        try:
            part.decode(part.dataset[row][part.image_column])
        except UnreadableImageError as error:
            return f"{part.where(row)}: {error.reason}"
        return None

    logger.info("Reading %d images of %s once, to leave out the unreadable ones", len(part), part.source)
    problems: list[str | None] = []
    bar = terminal.bar(len(part), "checking images", "image")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(part), 256):  # in portions: a future costs 1 KB, and there may be a million rows
            rows = range(start, min(start + 256, len(part)))
            problems += pool.map(problem, rows)
            bar.update(len(rows))
    skipped += [text for text in problems if text is not None]
    readable = np.array([row for row, text in enumerate(problems) if text is None], dtype=np.int64)
    if not len(readable):
        raise UserError(f"{part.source}: none of its {len(part)} images can be read. The first one: {problems[0]}")
    gone = np.flatnonzero((part.class_counts() > 0) & (part.select(readable).class_counts() == 0))
    if len(gone) and refuse_gone:
        first = int(part.rows_of_class(gone[0])[0])
        raise UserError(
            f"{part.source}: no image of {len(gone)} classes can be read: {_some([part.label_names[n] for n in gone])}. "
            f"The first one: {problems[first]}. Fix these images, or remove the classes."
        )
    kept: Any = part if len(readable) == len(part) else part.select(readable)
    return replace(kept, were_readable=True)
