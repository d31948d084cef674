"""Rows drawn from a split so that each class keeps its share: those that are held out of train, and parts of a split."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.errors import UserError

Part = TypeVar("Part", bound=LabelledRows)


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
    rows = stratified_rows(train.labels, max(1, round(len(train) * fraction)), seed, leave=1)
    if not len(rows):
        raise UserError(
            f"{train.source}: none of its {len(train)} {train.unit}s can be held out for {role}, because every class has "
            f"one {train.unit} only. Add {train.unit}s, or bring a {role} split."
        )
    return train.select(np.setdiff1d(np.arange(len(train)), rows)), train.select(rows)


def subset(part: Part, number: int | None, seed: int) -> Part:
    """At most so many rows, of which each class has its share."""
    if number is None or number >= len(part):
        return part
    return part.select(stratified_rows(part.labels, number, seed))
