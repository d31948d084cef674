"""A data set -> train, validation and test rows with their labels; no image is decoded until it is read.

The test rows never depend on the seed of a run. Where the data set brings no test split they are drawn once, with a
seed of their own: two runs that differ in seed are then scored on the same images, and a model is never evaluated on
an image that it was trained on with another seed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import datasets
import numpy as np

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import LabelMap, find_columns, is_unlabelled, read_column
from hf_accel.data.images import UnreadableImageError, decode_image, load_images
from hf_accel.data.sources import Source, open_source
from hf_accel.errors import UserError
from hf_accel.tables import format_table, printable

__all__ = ["ImageSplit", "Splits", "decode_image", "load_images", "load_splits", "stratified_rows"]

logger = logging.getLogger(__name__)

TEST_FRACTION = 0.2  # of train, where a data set has neither a validation nor a test split
TEST_SEED = 0
CLASSES_SHOWN = 20  # more classes than this are folded, so that `describe` fits one screen


@dataclass(frozen=True)
class ImageSplit:
    """The rows of one split, nothing decoded."""

    dataset: datasets.Dataset  # its image column is Image(decode=False): {"bytes", "path"}
    image_column: str
    labels: np.ndarray  # (N,) int64
    label_names: list[str]
    source: str  # for messages: "data/cifar10, train split"
    fingerprint: str  # changes with the content and with the rows selected
    rows: np.ndarray | None = None  # (N,) the row of each image in `source`; None: 0..N-1

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, row: int) -> np.ndarray:
        """Pixels of one row, (H, W, 3) uint8 RGB, upright.

        Raises:
            UserError: the image is unreadable; names its file or row.
        """
        try:
            return decode_image(self.dataset[int(row)][self.image_column])
        except UnreadableImageError as error:
            raise UserError(
                f"{self.where(row)}: cannot be read as an image: {error.reason}. Mend or remove it, or set "
                "data.on_bad_image: skip to leave out such images."
            ) from error

    def where(self, row: int) -> str:
        """The file of an image if it has one, else its row in the data set."""
        encoded = self.dataset[int(row)][self.image_column] or {"bytes": None, "path": None}
        if encoded["bytes"] is None and encoded["path"]:
            return encoded["path"]
        original = int(row) if self.rows is None else int(self.rows[row])
        name = f" ({encoded['path']})" if encoded["path"] else ""
        return f"row {original}{name} of {self.source}"

    def select(self, rows: np.ndarray) -> ImageSplit:
        """The split that has only these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + rows.tobytes())
        return replace(
            self,
            dataset=self.dataset.select(rows),
            labels=self.labels[rows],
            rows=rows if self.rows is None else self.rows[rows],
            fingerprint=digest.hexdigest(),
        )


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects with and is scored on."""

    train: ImageSplit
    validation: ImageSplit | None  # None: nothing is selected, the last weights are scored
    test: ImageSplit
    label_names: list[str]
    name: str
    fingerprint: str
    skipped: list[str] = field(default_factory=list)  # unreadable images left out, each with the reason
    notes: list[str] = field(default_factory=list)  # where the splits come from, what was not read

    def describe(self) -> str:
        """Classes, counts and notes, in one screen: of many classes the largest and the smallest are shown."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        parts = {role: part for role, part in parts.items() if part is not None}
        counts = np.stack([np.bincount(p.labels, minlength=len(self.label_names)) for p in parts.values()])  # (P, C)
        totals = ", ".join(f"{len(part):,} {role}" for role, part in parts.items())
        names = [name if len(name) <= 32 else name[:31] + "…" for name in self.label_names]
        shown, folded = list(range(len(names))), 0
        if len(names) > CLASSES_SHOWN:
            half = CLASSES_SHOWN // 2
            by_size = np.argsort(-counts[0], kind="stable")
            shown = [*by_size[:half], *by_size[-half:]]
            folded = len(names) - 2 * half
        rows = [(names[label], *(f"{count:,}" for count in counts[:, label])) for label in shown]
        table = format_table(("class", *parts), rows, min_widths=(0, *[10] * len(parts)), indent=2).splitlines()
        if folded:
            gap = f"  … {folded:,} more classes, between these two groups in number of train images …"
            table.insert(1 + CLASSES_SHOWN // 2, gap)
        lines = [f"{self.name}: {len(self.label_names):,} classes, {totals} images", "", *table]
        lines += ["", *(f"  {note}" for note in self.notes)] if self.notes else []
        if self.skipped:
            lines += ["", f"  {len(self.skipped):,} unreadable images are left out:"]
            lines += [f"    {text}" for text in self.skipped[:5]]
            lines += ["    …"] if len(self.skipped) > 5 else []
        return "\n".join(map(printable, lines))


def load_splits(settings: DataSettings, seed: int, selection: bool = True) -> Splits:
    """Open a data set and decide which rows train, select and score.

    Without a test split the validation split is the test; without either, a fifth of train is. Without a validation
    split `data.validation` of train is held out. Rows are drawn within classes, so that each class keeps its share;
    a class of one row stays in train. `max_train_rows` counts the held-out rows too.

    Args:
        seed: draws the held-out rows and the subset of train; the test rows do not depend on it.
        selection: False holds nothing out and returns no validation split; `data.validation: 0` means the same.
    Raises:
        UserError: the data cannot be found, understood or divided, or has one class only.
    """
    parts, notes = _label(open_source(settings), settings)
    train, validation, test = (parts.get(role) for role in ("train", "validation", "test"))
    selection = selection and settings.validation > 0
    if test is None and validation is not None:
        validation, test = None, validation
        notes.append("no test split: the validation split is the test")
    if test is None:
        train, test = _hold_out(train, TEST_FRACTION, TEST_SEED, "test")
        notes.append(f"no test split: {TEST_FRACTION:.0%} of train is the test, stratified, the same for every seed")
    test = _subset(test, settings.max_test_rows, TEST_SEED)
    train = _subset(train, settings.max_train_rows, seed)
    if not selection:
        validation = None
    elif validation is not None:
        validation = _subset(validation, settings.max_test_rows, TEST_SEED)
    else:
        train, validation = _hold_out(train, settings.validation, seed, "validation")
        notes.append(f"validation: {settings.validation:.3g} of train held out, stratified, seed {seed}")

    chosen = {"train": train, "validation": validation, "test": test}
    skipped: list[str] = []
    if settings.on_bad_image == "skip":
        chosen = {role: part and _readable(part, skipped) for role, part in chosen.items()}
    _refuse_single_class(chosen["train"], settings)
    content = "".join(part.fingerprint for part in chosen.values() if part is not None)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    return Splits(**chosen, label_names=train.label_names, name=settings.name, fingerprint=fingerprint,
                  skipped=skipped, notes=notes)  # fmt: skip


def _label(source: Source, settings: DataSettings) -> tuple[dict[str, ImageSplit], list[str]]:
    """Every part with its class numbers; empty and unlabelled ones are left out, and a note says so."""
    image_column, label_column = find_columns(source.parts["train"], settings)
    label_map = LabelMap.of(source.parts["train"], label_column)
    parts, notes = {}, list(source.notes)
    for role, table in source.parts.items():
        column = read_column(table, label_column)
        if role != "train" and is_unlabelled(column):
            notes.append(f"its {role} split {'has no labels' if len(table) else 'is empty'}: not used")
            continue
        content = f"{source.fingerprints[role]} {image_column} {label_column}"
        part = ImageSplit(
            dataset=table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False)),
            image_column=image_column,
            labels=label_map.ids(column),
            label_names=label_map.names,
            source=f"{settings.name}, {role} split",
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        )
        outside = np.flatnonzero(part.labels < 0)
        if len(outside):
            names = ", ".join(label_map.names[:10]) + (", …" if len(label_map.names) > 10 else "")
            raise UserError(
                f"{part.where(outside[0])}: {label_column} is {column[int(outside[0])].as_py()!r}, expected one of the "
                f"{len(label_map.names)} classes of the train split ({names}). {len(outside)} of its {len(part)} rows "
                "have such a label: correct or remove them."
            )
        parts[role] = part
    _refuse_single_class(parts["train"], settings)
    return parts, notes


def _refuse_single_class(train: ImageSplit, settings: DataSettings) -> None:
    present = np.unique(train.labels)
    if len(present) < 2:
        got = f"images of one class only, {train.label_names[present[0]]}" if len(present) else "no images"
        raise UserError(f"data.name {settings.name}: has {got} to train on, expected two or more classes")


def stratified_rows(labels: np.ndarray, number: int, seed: int, leave: int = 0) -> np.ndarray:
    """Draw rows so that each class keeps its share, to within one row.

    Args:
        labels: (N,) class numbers.
        number: how many rows, at most N.
        leave: at least so many rows of every class are not drawn, even where that makes the draw smaller.
    Returns:
        Row numbers, ascending, so that files and tables are read in their order.
    """
    counts = np.bincount(labels)
    exact = counts * (number / len(labels))
    quotas = np.floor(exact).astype(np.int64)
    # The classes with the largest remainders get the rows that rounding down left over.
    remainder_first = np.argsort(quotas - exact, kind="stable")
    quotas[remainder_first[: number - quotas.sum()]] += 1
    quotas = np.minimum(quotas, np.maximum(counts - leave, 0))
    # RandomState, because its streams are frozen across NumPy versions and a Generator's are not.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]
    position_in_class = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[grouped]]
    return np.sort(grouped[position_in_class < quotas[labels[grouped]]])


def _hold_out(train: ImageSplit, fraction: float, seed: int, role: str) -> tuple[ImageSplit, ImageSplit]:
    rows = stratified_rows(train.labels, max(1, round(len(train) * fraction)), seed, leave=1)
    if not len(rows):
        raise UserError(
            f"{train.source}: none of its {len(train)} images can be held out for {role}, because every class has one "
            f"image only. Add images, or bring a {role} split."
        )
    return train.select(np.setdiff1d(np.arange(len(train)), rows)), train.select(rows)


def _subset(part: ImageSplit, number: int | None, seed: int) -> ImageSplit:
    if number is None or number >= len(part):
        return part
    return part.select(stratified_rows(part.labels, number, seed))


def _readable(part: ImageSplit, skipped: list[str]) -> ImageSplit:
    """The rows whose images decode. The others are added to `skipped`."""

    def problem(row: int) -> str | None:
        try:
            decode_image(part.dataset[row][part.image_column])
        except UnreadableImageError as error:
            return f"{part.where(row)}: {error.reason}"
        return None

    logger.info("Reading %d images of %s once, to leave out the unreadable ones", len(part), part.source)
    problems: list[str | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(part), 1024):  # in portions: a future costs 1 KB, and there may be a million rows
            problems += pool.map(problem, range(start, min(start + 1024, len(part))))
    skipped += [text for text in problems if text is not None]
    readable = np.array([row for row, text in enumerate(problems) if text is None], dtype=np.int64)
    if not len(readable):
        raise UserError(f"{part.source}: none of its {len(part)} images can be read. The first one: {problems[0]}")
    return part if len(readable) == len(part) else part.select(readable)
