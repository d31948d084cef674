"""Whether a trial learns what the reference learns: the losses of its first steps, on the same batches and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

BAND = 0.05  # relative; bf16 alone moves the first losses by up to 1 %
RANDOM_BAND = 0.15  # of a network with dropout, whose random numbers may be others
SMALLEST_LOSS = 0.05  # below it, a difference counts as one of this loss


def deviation(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest relative difference of two series of losses; infinite for one that is not finite or has no steps.

    >>> round(deviation([2.0, 1.98], [2.0, 2.0]), 3)
    0.01
    """
    pairs = list(zip(losses, reference, strict=False))
    if not pairs or not all(map(math.isfinite, losses)):
        return math.inf
    return max(abs(own - other) / max(abs(other), SMALLEST_LOSS) for own, other in pairs)


def outside(losses: Sequence[float], reference: Sequence[float], is_random: bool) -> str | None:
    """Why a trial is rejected; None: its losses stay within the band.

    Args:
        reference: losses of the recipe in fp32, compiled by nothing.
        is_random: the network draws random numbers in training.

    >>> outside([2.3, 9.1], [2.3, 2.2], is_random=False)
    'its loss leaves the band: 9.1 at step 2, and 2.2 in fp32 (5 % are allowed)'
    """
    if not losses:
        return "it logged no loss"
    band = RANDOM_BAND if is_random else BAND
    for step, (own, other) in enumerate(zip(losses, reference, strict=False), start=1):
        if deviation([own], [other]) > band:
            return f"its loss leaves the band: {own:.3g} at step {step}, and {other:.3g} in fp32 ({100 * band:.0f} % are allowed)"
    return None
