"""The verdicts keep their error rate and find what they promise to find, by simulation."""

import numpy as np
import pytest
from scipy import stats

from hf_accel.measure.paired import (
    MOST_ROUNDS,
    PILOT_ROUNDS,
    difference_verdicts,
    holm,
    paired_difference,
    paired_noise,
    paired_ratio,
    power,
    rounds_needed,
    smallest_effect,
    verdicts,
    wilson_interval,
)

# Standard deviation of the log of one run's images/s. Short matrix products, taken in turn on a virtual machine with 2
# cores, varied by 2.1 % for each second of CPU time; the rest is room for the scheduler.
RUN_NOISE = 0.03
NUM_ARMS = 11  # and a baseline: a table of 12


def simulated_table(rng, noise_kind, num_rounds, run_noise=RUN_NOISE):
    """Log images/s, (rounds, 12), no effect; every round has a level of its own, which pairing must remove."""
    shape = (num_rounds, NUM_ARMS + 1)
    noise = rng.normal(0, run_noise, shape)
    if noise_kind == "each row its own noise":
        noise = noise * np.exp(rng.normal(0, 0.5, shape[1]))
    elif noise_kind == "a noisy baseline":
        noise[:, 0] *= 3
    elif noise_kind == "one noisy row":
        noise[:, 1] *= 4
    elif noise_kind == "heavy tails":
        noise = rng.standard_t(3, shape) * run_noise
    elif noise_kind == "bursts of a neighbour":
        noise = noise - (rng.random(shape) < 0.08) * rng.exponential(0.25, shape)
    return noise + rng.normal(0, 0.1, (num_rounds, 1))


def table_verdicts(log_speeds):
    speeds = np.exp(log_speeds)
    ratios = [paired_ratio(speeds[:, row], speeds[:, 0]) for row in range(1, speeds.shape[1])]
    return [verdict for verdict, _ in verdicts(ratios, "faster", "slower")]


def rounds_chosen(log_speeds):
    """What `compare` does without --repeats: the noise of the first rounds decides."""
    speeds = np.exp(log_speeds[:PILOT_ROUNDS])
    noise = paired_noise([(speeds[:, row], speeds[:, 0]) for row in range(1, speeds.shape[1])])
    return rounds_needed(noise, speeds.shape[1] - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise_kind",
    ["normal", "each row its own noise", "a noisy baseline", "one noisy row", "heavy tails", "bursts of a neighbour"],
)
def test_without_an_effect_at_most_one_table_in_twenty_says_faster(noise_kind):
    rng = np.random.default_rng(0)
    tables = 300
    wrong = 0
    for _ in range(tables):
        log_speeds = simulated_table(rng, noise_kind, MOST_ROUNDS)
        wrong += "faster" in table_verdicts(log_speeds[: rounds_chosen(log_speeds)])
    assert wrong / tables <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("run_noise", [0.005, 0.015, RUN_NOISE, 0.04])
def test_a_ten_percent_gain_is_found_four_times_in_five_with_the_default_repeats(run_noise):
    rng = np.random.default_rng(1)
    tables = 300
    found = 0
    for _ in range(tables):
        log_speeds = simulated_table(rng, "normal", MOST_ROUNDS, run_noise)
        log_speeds[:, 1] += np.log(1.1)
        found += table_verdicts(log_speeds[: rounds_chosen(log_speeds)])[0] == "faster"
    assert found / tables >= 0.8


def test_the_interval_holds_the_true_ratio_in_95_of_100_comparisons():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        drift = rng.normal(0, 0.2, 5)
        ratio = paired_ratio(
            np.exp(drift + np.log(1.3) + rng.normal(0, 0.03, 5)), np.exp(drift + rng.normal(0, 0.03, 5))
        )
        held += ratio.low <= 1.3 <= ratio.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_ratio_equals_a_t_test_on_log_ratios_by_hand():
    row, baseline = [11.0, 12.5, 13.0, 12.0], [10.0, 11.0, 12.0, 10.5]
    logs = np.log(np.array(row) / np.array(baseline))
    half = stats.t.ppf(0.975, 3) * logs.std(ddof=1) / 2
    got = paired_ratio(row, baseline)
    assert (got.ratio, got.low, got.high) == pytest.approx(
        np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    )
    assert got.p_value == pytest.approx(stats.ttest_rel(np.log(row), np.log(baseline)).pvalue)
    assert got.num_pairs == 4


def test_one_pair_gives_a_ratio_and_no_interval_and_no_verdict():
    single = paired_ratio([12.0], [10.0])
    assert (single.ratio, single.low, single.high, single.p_value) == (pytest.approx(1.2), None, None, None)
    assert verdicts([single, None], "faster", "slower") == [("not repeated", None), ("not measured", None)]


def test_peaks_that_repeat_exactly_are_compared_without_a_t_test():
    less, equal = paired_ratio([2.0, 2.0, 2.0], [4.0, 4.0, 4.0]), paired_ratio([4.0, 4.0], [4.0, 4.0])
    assert [word for word, _ in verdicts([less, equal], "more", "less")] == ["less", "no measurable difference"]


def test_a_sure_difference_below_one_percent_gets_no_verdict():
    tiny = paired_ratio([1.001, 1.001, 1.001], [1.0, 1.0, 1.0])
    assert verdicts([tiny], "faster", "slower")[0][0] == "no measurable difference"


def test_holm_multiplies_by_the_hypotheses_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_verdict_is_harder_to_get_in_a_larger_table():
    pair = paired_ratio([1.10, 1.13, 1.08, 1.12], [1.0, 1.02, 1.01, 0.99])
    flat = paired_ratio([1.0, 1.03, 0.97, 1.01], [1.0, 1.0, 1.01, 1.0])
    assert verdicts([pair], "faster", "slower")[0][0] == "faster"
    assert verdicts([pair, *[flat] * 40], "faster", "slower")[0][0] == "no measurable difference"


def test_power_equals_the_share_found_by_simulation():
    rng = np.random.default_rng(3)
    logs = rng.normal(np.log(1.1), 0.05, (4000, 6))
    t = logs.mean(axis=1) / (logs.std(axis=1, ddof=1) / np.sqrt(6))
    found = (t > stats.t.isf(0.05 / 4 / 2, 5)).mean()
    assert power(1.1, 0.05, 6, 4) == pytest.approx(found, abs=0.025)


def test_more_noise_and_more_rows_need_more_rounds_within_bounds():
    assert rounds_needed(0.0, 11) == PILOT_ROUNDS
    assert rounds_needed(0.01, 11) < rounds_needed(0.04, 11) < rounds_needed(0.06, 11) <= MOST_ROUNDS
    assert rounds_needed(0.04, 1) < rounds_needed(0.04, 11)
    assert rounds_needed(5.0, 11) == MOST_ROUNDS


def test_the_smallest_effect_shrinks_with_rounds_and_is_none_when_nothing_can_be_found():
    assert smallest_effect(0.04, 3, 11) > smallest_effect(0.04, 8, 11) > 1.0
    assert smallest_effect(3.0, 3, 11) is None


def test_noise_is_pooled_over_rows_and_drift_between_rounds_is_not_noise():
    baseline = [10.0, 20.0, 40.0]
    assert paired_noise([([11.0, 22.0, 44.0], baseline)]) == pytest.approx(0.0, abs=1e-12)
    logs = np.array([0.01, 0.05, -0.03])
    assert paired_noise([(np.exp(logs), np.ones(3))] * 2) == pytest.approx(logs.std(ddof=1))
    assert paired_noise([([1.0], [1.0])]) is None


def test_accuracy_differences_are_paired_by_seed():
    mean, low, high = paired_difference([0.91, 0.93, 0.92], [0.90, 0.92, 0.91])
    assert (mean, low, high) == pytest.approx((0.01, 0.01, 0.01))
    assert paired_difference([0.9], [0.8])[1:] == (None, None)


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [np.nan])])
def test_figures_that_have_no_ratio_are_refused(values, baseline):
    with pytest.raises(ValueError, match="figures"):
        paired_ratio(values, baseline)


def test_the_interval_of_a_perfect_score_does_not_claim_certainty():
    low, high = wilson_interval(1.0, 100)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(0.9630, abs=1e-4)


def test_differences_get_verdicts_that_are_corrected_for_the_table():
    base = [0.90, 0.91, 0.92, 0.93]
    clear = [value + 0.05 + 0.001 * place for place, value in enumerate(base)]
    noisy = [0.95, 0.89, 0.95, 0.92]
    found = difference_verdicts(
        [(clear, base), (noisy, base), ([], []), ([0.9], [0.8]), (base, clear)], "higher", "lower"
    )
    words = [word for word, _ in found]
    assert words == ["higher", "no measurable difference", "not measured", "not repeated", "lower"]
    alone = stats.ttest_1samp(np.subtract(clear, base), 0).pvalue
    assert found[0][1] == pytest.approx(3 * alone)  # of three rows that are tested, the clearest
    assert found[2][1] is found[3][1] is None


def test_a_difference_that_is_exactly_zero_is_none():
    assert difference_verdicts([([0.9, 0.8], [0.9, 0.8])], "higher", "lower") == [("no measurable difference", 1.0)]
