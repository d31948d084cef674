"""Rows drawn from a split so that each class keeps its share: those that are held out of train, and parts of a split.

Where rows have groups, whole groups are held out, and classes keep their shares as far as these allow.
"""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import TypeVar

import numpy as np

from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.errors import UserError

Part = TypeVar("Part", bound=LabelledRows)
MOST_PARTS = 20  # into which groups are divided, to hold out a number of these parts


def stratified_rows(labels: np.ndarray, number: int, seed: int, leave: int = 0) -> np.ndarray:
    """Draw rows so that each class keeps its share, to within one row.

    Args:
        labels: (N,) class numbers.
        number: rows to draw, at most N.
        leave: rows that stay in every class at least, even where fewer than `number` are then drawn.
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


def hold_out(train: Part, fraction: float, seed: int, role: str) -> tuple[Part, Part]:
    if train.is_streamed:
        fix = "set data.validation: 0, which selects nothing" if role == "validation" else "or leave data.streaming out"
        raise UserError(
            f"{train.source}: there is no {role} split, and with data.streaming none is held out of train: its rows would be "
            f"spread over all shards. Bring a {role} split, {'or ' * (role == 'validation')}{fix}."
        )
    if train.groups is not None:
        return divided(train, grouped_rows(train, fraction, seed, role))
    rows = stratified_rows(train.strata(), max(1, round(len(train) * fraction)), seed, leave=1)
    if not len(rows):
        raise UserError(
            f"{train.source}: none of its {len(train)} {train.unit}s can be held out for {role}, because every class has "
            f"one {train.unit} only. Add {train.unit}s, or bring a {role} split."
        )
    return divided(train, rows)


def divided(train: Part, rows: np.ndarray) -> tuple[Part, Part]:
    """The other rows of a split, and these."""
    return train.select(np.setdiff1d(np.arange(len(train)), rows)), train.select(rows)


def grouped_rows(train: LabelledRows, fraction: float, seed: int, role: str) -> np.ndarray:
    """The rows of whole groups that are about this share of a split; a class of one group stays in train.

    Raises:
        UserError: there are too few groups.
    """
    assert train.groups is not None
    most = min(len(np.unique(train.groups)), MOST_PARTS)
    share = Fraction(fraction).limit_denominator(most) or Fraction(1, most)
    if most < 2 or share == 1:
        raise _too_few_groups(train, most, role)
    taken = np.isin(parts_of(train, share.denominator, seed), np.arange(share.numerator))
    strata = train.strata()
    for label in np.unique(strata):  # groups of a class that would have no row in train return to it
        own = strata == label
        if taken[own].all():
            groups, counts = np.unique(train.groups[own], return_counts=True)
            taken &= train.groups != groups[counts.argmax()]
    if not taken.any():
        raise _too_few_groups(train, most, role)
    return np.flatnonzero(taken)


def parts_of(train: LabelledRows, number: int, seed: int) -> np.ndarray:
    """(N,) the part, 0 to number-1, of each row: parts have equal shares of each class, and none divides a group."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # takes a second

    kind = StratifiedKFold if train.groups is None else StratifiedGroupKFold
    parts = np.empty(len(train), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than parts is not in all of them
        divisions = kind(number, shuffle=True, random_state=seed).split(parts, train.strata(), train.groups)
        for part, (_, rows) in enumerate(divisions):
            parts[rows] = part
    return parts


def fold_rows(train: Part, folds: int, fold: int, seed: int) -> tuple[Part, Part]:
    """The rows that train in a fold of cross-validation, and those that validate it.

    Raises:
        UserError: there are fewer groups, or rows of every class, than folds.
    """
    whole = np.arange(len(train)) if train.groups is None else train.groups
    number = len(np.unique(whole))
    if train.groups is not None and number < folds:
        raise UserError(
            f"data.folds is {folds}, and {train.source} has {number} groups. Expected a group for each fold."
        )
    largest = int(np.bincount(train.strata()).max())
    if largest < folds:
        raise UserError(
            f"data.folds is {folds}, and {train.source} has at most {largest} {train.unit}s of a class. Set it to {largest} or "
            "less."
        )
    return divided(train, np.flatnonzero(parts_of(train, folds, seed) == fold))


def _too_few_groups(train: LabelledRows, number: int, role: str) -> UserError:
    return UserError(
        f"{train.source}: none of its {number} groups (data.group_column) can be held out for {role} so that every class keeps a "
        f"group in train. Bring a {role} split, or add groups."
    )


def subset(part: Part, number: int | None, seed: int) -> Part:
    """At most so many rows, of which each class has its share."""
    if number is None or number >= len(part):
        return part
    return part.select(stratified_rows(part.strata(), number, seed))
