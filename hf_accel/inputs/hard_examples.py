"""Which rows an epoch has, by the losses that the rows had before: `data.hard_examples`.

`methods/row_losses.py` remembers the losses.
"""

from __future__ import annotations

import numpy as np

from hf_accel.inputs.counter_rng import random_bits, uniform
from hf_accel.inputs.sampling import ORDER_DRAW

HARD_DRAW = ORDER_DRAW + 4


def hardest_rows(losses: np.ndarray, number: int, seed: int, epoch: int) -> np.ndarray:
    """The rows with the highest losses; which of equal ones, the seed and the epoch decide.

    Args:
        losses: (N,) float32; infinite for a row that was not seen yet, which comes first.
        number: of the rows to choose.
    Returns:
        (number,) int64.

    >>> sorted(hardest_rows(np.array([0.1, 3.0, np.inf, 2.0]), 2, seed=0, epoch=1).tolist())
    [1, 2]
    """
    ties = random_bits(seed, epoch, np.arange(len(losses)), HARD_DRAW)
    return np.lexsort((ties, -losses))[:number]


def rows_by_loss(losses: np.ndarray, fraction: float, seed: int, epoch: int) -> np.ndarray:
    """As many rows as there are, drawn with the probabilities (1 - fraction) / N + fraction * loss / sum of losses.

    The draw is systematic: a row comes as often as expected, rounded down or up. Each has an expected number of at least
    1 - fraction.

    Args:
        losses: (N,) float32, not negative; infinite for a row that was not seen yet, which counts as an average one.
        fraction: share of the draw that is by loss, in (0, 1).
    Returns:
        (N,) int64.
    """
    rows = np.arange(len(losses))
    known = np.isfinite(losses)
    weights = np.where(known, losses, losses[known].mean() if known.any() else 1.0).astype(np.float64)
    total = weights.sum()
    shares = weights / total if total > 0 else np.full(len(rows), 1 / len(rows))
    order = np.argsort(random_bits(seed, epoch, rows, HARD_DRAW), kind="stable")
    ends = np.cumsum((1 - fraction + fraction * len(rows) * shares)[order])
    ends[-1] = len(rows)  # which the sum misses by its rounding
    offset = float(uniform(seed, epoch, np.array([len(rows)]), HARD_DRAW)[0])
    copies = np.diff(np.floor(ends + offset), prepend=0).astype(np.int64)
    return np.repeat(order, copies)
