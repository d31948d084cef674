"""The learning rate: a range test, and what its curve says.

The rate grows by a constant factor from step to step (Smith, https://arxiv.org/abs/1506.01186). The suggestion is where the
smoothed loss falls fastest. Such a curve is of the first steps alone, and can name ten times the best rate, so short runs
around the suggestion decide; see `learning_rate_runs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.8  # of the moving average of the losses
DIVERGED = 3.0  # times the smallest smoothed loss: the curve ends there
AROUND = (0.1, 0.32, 1.0, 3.2)  # times the suggestion: the rates of the short runs
SAME_RATE = 1.5  # rates that differ by less are one
BETTER = 0.01  # share of the loss by which another rate must be better than the recipe's


def range_rates(steps: int) -> list[float]:
    """(steps,) rates, evenly spaced in their logarithm.

    >>> [f"{rate:.0e}" for rate in range_rates(3)]
    ['1e-06', '1e-03', '1e+00']
    """
    ratio = (HIGHEST / LOWEST) ** (1 / max(1, steps - 1))
    return [LOWEST * ratio**step for step in range(steps)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """The moving average of a series, without the bias of its beginning."""
    mean, found = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**step))
    return found


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest; None where it never falls.

    Args:
        rates, losses: of the steps in their order; what follows a loss that is not finite is not read.
    """
    finite = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    curve = smoothed(losses[:finite])
    if len(curve) < 5:
        return None
    lowest = min(range(len(curve)), key=curve.__getitem__)
    falls = [(curve[place - 1] - curve[place + 1], place) for place in range(1, max(2, lowest))]
    fall, place = max(falls)
    return rates[place] if fall > 0 else None


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the curve need not be followed further."""
    if not losses or not math.isfinite(losses[-1]):
        return bool(losses)
    curve = smoothed(losses)
    return len(curve) > 5 and curve[-1] > DIVERGED * min(curve)


def rates_to_run(suggested: float | None, own: float) -> list[float]:
    """The recipe's own rate and those around the suggestion, smallest first.

    >>> [f"{rate:.2g}" for rate in rates_to_run(1e-3, 5e-4)]
    ['0.0001', '0.0005', '0.001', '0.0032']
    """
    found = [own]
    for factor in AROUND:
        rate = own * factor if suggested is None else suggested * factor
        if all(max(rate / other, other / rate) >= SAME_RATE for other in found):
            found.append(float(f"{rate:.2g}"))
    return sorted(found)


def best_rate(losses: dict[float, float | None], own: float) -> float:
    """The rate with the smallest loss; the recipe's own unless another is clearly better.

    Args:
        losses: rate -> loss of its run; None: it failed.
    """
    finite = {rate: loss for rate, loss in losses.items() if loss is not None and math.isfinite(loss)}
    if not finite:
        return own
    best = min(finite, key=finite.__getitem__)
    of_own = finite.get(own, math.inf)
    return best if finite[best] < (1 - BETTER) * of_own else own
