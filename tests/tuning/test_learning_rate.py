"""What the curve of a range test says."""

import math

import pytest

from hf_accel.tuning.learning_rate import (
    best_rate,
    has_diverged,
    range_rates,
    rates_to_run,
    smoothed,
    suggestion,
)

RATES = range_rates(60)


def falling_until(best: float) -> list[float]:
    """Losses that fall fastest around `best`, and explode a hundred times above."""
    return [2.3 - 1.8 / (1 + (best / rate) ** 2) + (10 * rate / best / 100) ** 4 for rate in RATES]


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2])
def test_the_suggestion_is_where_the_loss_falls_fastest(best):
    found = suggestion(RATES, falling_until(best))
    assert best / 3 < found < 5 * best


def test_a_curve_that_never_falls_or_is_too_short_suggests_nothing():
    assert suggestion(RATES, [2.3 + rate for rate in RATES]) is None
    assert suggestion(RATES, [2.3, 2.2]) is None
    assert suggestion(RATES, [math.nan] * 60) is None


def test_what_follows_a_loss_that_is_not_finite_is_not_read():
    losses = falling_until(1e-3)
    place = next(i for i, rate in enumerate(RATES) if rate > 0.05)
    assert suggestion(RATES, [*losses[:place], math.inf, *[0.0] * 20]) == suggestion(RATES, losses[:place])


def test_the_test_ends_when_the_loss_grows():
    assert not has_diverged([2.3] * 20)
    assert not has_diverged([])
    assert has_diverged([2.3] * 10 + [50.0] * 3)
    assert has_diverged([2.3, math.nan])


def test_smoothing_has_no_bias_at_the_beginning():
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])


def test_the_own_rate_is_always_run_and_near_ones_only_once():
    assert 1e-3 in rates_to_run(1.1e-3, 1e-3)
    assert len(rates_to_run(1.1e-3, 1e-3)) == 4
    assert len(rates_to_run(None, 1e-3)) == 4


def test_the_own_rate_stays_unless_another_is_clearly_better():
    assert best_rate({1e-3: 0.5, 1e-2: 0.4}, own=1e-3) == 1e-2
    assert best_rate({1e-3: 0.5, 1e-2: 0.498}, own=1e-3) == 1e-3
    assert best_rate({1e-3: None, 1e-2: 0.4}, own=1e-3) == 1e-2
    assert best_rate({1e-3: None, 1e-2: math.nan}, own=1e-3) == 1e-3
