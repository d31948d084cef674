"""Ratios of paired runs with their interval, the verdicts of a whole table, and how many repeats those need.

Runs are interleaved, round by round, so a ratio is taken within a round, where both rows met the same machine. Each row
is tested on its own pairs (Student's t on log ratios) and the table is corrected by Holm. Pooling the noise of all rows
would need about half the repeats, but it judges quiet rows by the noise of loud ones: with a baseline three times as
noisy as the rest, one table in ten then had a false "faster". This way none of the noises tried exceeds one in twenty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

ERROR_RATE = 0.05  # of a whole table: the chance of any false verdict
SMALLEST_RATIO = 1.01  # below 1 % a difference is not worth a verdict, however quiet the machine
EFFECT = 1.10  # the difference that the default number of repeats is made to find
# Planned for 85 %, because the noise is itself estimated from a few rounds; 80 % is then kept.
POWER = 0.85
PILOT_ROUNDS = 3  # rounds before the noise is looked at
MOST_ROUNDS = 12


@dataclass(frozen=True)
class PairedRatio:
    """The ratio of two rows over paired runs."""

    ratio: float  # geometric mean of the pairs' ratios
    low: float | None  # 95 % interval; None with fewer than two pairs
    high: float | None
    p_value: float | None  # two-sided, of a ratio of 1, not corrected
    num_pairs: int


def paired_ratio(values: Sequence[float], baseline: Sequence[float]) -> PairedRatio:
    """Estimate how much larger `values` are than `baseline`.

    Args:
        values: (n,) a positive figure of the row, round by round, such as images per second.
        baseline: (n,) the same figure of the baseline in the same rounds.
    Raises:
        ValueError: no pairs, unequal lengths, or a figure that is not positive and finite.

    >>> round(paired_ratio([11, 12.1, 13.1], [10, 11, 12]).ratio, 2)
    1.1
    """
    logs = _log_ratios(values, baseline)
    mean, low, high, p_value = _mean_interval(logs)
    low, high = (None if bound is None else math.exp(bound) for bound in (low, high))
    return PairedRatio(math.exp(mean), low, high, p_value, len(logs))


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean difference over paired seeds and its 95 % interval (None, None with fewer than two pairs)."""
    return _mean_interval(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float))[:3]


def difference_verdicts(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], above: str, below: str
) -> list[tuple[str, float | None]]:
    """As `verdicts`, of differences.

    Args:
        pairs: (values, baseline) of each row, as for `paired_difference`; empty: nothing to compare.

    >>> difference_verdicts([([0.91, 0.93, 0.92], [0.90, 0.92, 0.91])], "higher", "lower")[0][0]
    'higher'
    """
    effects = []
    for own, base in pairs:
        mean, _, _, p_value = _mean_interval(np.subtract(own, base)) if len(own) else (None,) * 4
        effects.append(None if mean is None else (mean, p_value))
    return _verdicts(effects, 0.0, above, below)


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """95 % interval of a fraction seen in n draws; unlike the normal one it stays in [0, 1] and is right near both ends.

    >>> round(wilson_interval(1.0, 100)[0], 3)
    0.963
    """
    interval = stats.binomtest(round(fraction * n), n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one table so that rejecting those <= 0.05 keeps its chance of any false one at 5 %.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def verdicts(ratios: Sequence[PairedRatio | None], above: str, below: str) -> list[tuple[str, float | None]]:
    """One verdict for each row of a table, all of them corrected together.

    Args:
        ratios: row against baseline; None = nothing to compare.
        above: word for a ratio that is surely above 1, such as "faster".
        below: word for a ratio that is surely below 1.
    Returns:
        (verdict, Holm's p-value) in the order of `ratios`: `above`, `below`, "no measurable difference", "not repeated"
        (a single pair has no interval) or "not measured".
    """
    effects = [None if ratio is None else (math.log(ratio.ratio), ratio.p_value) for ratio in ratios]
    return _verdicts(effects, math.log(SMALLEST_RATIO), above, below)


def _verdicts(
    effects: Sequence[tuple[float, float | None] | None], smallest: float, above: str, below: str
) -> list[tuple[str, float | None]]:
    """The verdicts of (effect, its p-value); an effect below `smallest`, whatever its sign, gets none."""
    tested = {place: found[1] for place, found in enumerate(effects) if found is not None and found[1] is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    words = []
    for place, found in enumerate(effects):
        if found is None:
            words.append("not measured")
        elif found[1] is None:
            words.append("not repeated")
        elif adjusted[place] > ERROR_RATE or abs(found[0]) < smallest:
            words.append("no measurable difference")
        else:
            words.append(above if found[0] > 0 else below)
    return [(word, adjusted.get(place)) for place, word in enumerate(words)]


def paired_noise(tables: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Standard deviation of one pair's log ratio, over all rows together.

    Args:
        tables: (values, baseline) of each row, as for `paired_ratio`.
    Returns:
        About the relative noise of a ratio (0.03 = 3 %), or None when no row has two pairs.
    """
    logs = [_log_ratios(values, baseline) for values, baseline in tables]
    squares = sum(((log - log.mean()) ** 2).sum() for log in logs if len(log) > 1)
    freedom = sum(len(log) - 1 for log in logs)
    return math.sqrt(squares / freedom) if freedom else None


def power(effect: float, noise: float, num_pairs: int, num_rows: int) -> float:
    """Chance that a ratio of `effect` gets its verdict at the strictest step of Holm's correction.

    Args:
        effect: true ratio to baseline, such as 1.1.
        noise: standard deviation of one pair's log ratio.
        num_pairs: pairs of each row, at least 2.
        num_rows: rows compared with the baseline.
    """
    freedom = num_pairs - 1
    critical = stats.t.isf(ERROR_RATE / num_rows / 2, freedom)
    return float(stats.nct.sf(critical, freedom, abs(math.log(effect)) * math.sqrt(num_pairs) / max(noise, 1e-6)))


@cache
def rounds_needed(noise: float, num_rows: int) -> int:
    """Rounds that find a 10 % difference, between `PILOT_ROUNDS` and `MOST_ROUNDS`.

    >>> rounds_needed(noise=0.04, num_rows=11)
    7
    """
    enough = (n for n in range(PILOT_ROUNDS, MOST_ROUNDS) if power(EFFECT, noise, n, num_rows) >= POWER)
    return next(enough, MOST_ROUNDS)


def smallest_effect(noise: float, num_pairs: int, num_rows: int) -> float | None:
    """The ratio above 1 that is found four times in five; None when even 4x is missed."""
    found = (1 + percent / 100 for percent in range(1, 301))
    return next((effect for effect in found if power(effect, noise, num_pairs, num_rows) >= 0.8), None)


def _log_ratios(values: Sequence[float], baseline: Sequence[float]) -> np.ndarray:
    row, base = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if row.shape != base.shape or row.size == 0:
        raise ValueError(f"got {row.size} and {base.size} figures, expected the same number of both, at least 1")
    if not (np.isfinite([row, base]).all() and (row > 0).all() and (base > 0).all()):
        raise ValueError("a ratio needs positive, finite figures")
    return np.log(row / base)


def _mean_interval(samples: np.ndarray) -> tuple[float, float | None, float | None, float | None]:
    """Mean, 95 % interval and two-sided p-value of a mean of 0."""
    mean = float(samples.mean())
    if len(samples) < 2:
        return mean, None, None, None
    # Equal to a few units in the last place: memory peaks of a GPU repeat exactly, and t is not defined there.
    if samples.std(ddof=1) <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean, mean, 1.0 if abs(mean) < 1e-12 else 0.0
    test = stats.ttest_1samp(samples, 0.0)
    interval = test.confidence_interval(0.95)
    return mean, float(interval.low), float(interval.high), float(test.pvalue)
