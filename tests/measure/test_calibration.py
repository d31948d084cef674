"""Temperature, calibration error and thresholds, on answers whose reliability is known."""

import numpy as np
import pytest

from hf_accel.measure.calibration import calibration_error, fit_temperature, reliability, threshold_of_precision
from hf_accel.models.confidence import softmax


def answers(temperature, rows=4000, classes=5, seed=0):
    """Logits that are too large by this factor, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((rows, classes))
    labels = (softmax(logits).cumsum(1) > rng.random((rows, 1))).argmax(1)
    return temperature * logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_by_which_logits_are_too_large_is_found(temperature):
    assert fit_temperature(*answers(temperature)) == pytest.approx(temperature, rel=0.06)


def test_calibration_brings_the_error_of_other_rows_down():
    logits, labels = answers(3.0)
    temperature = fit_temperature(logits, labels)
    logits, labels = answers(3.0, seed=1)
    is_right = logits.argmax(1) == labels
    before, after = (
        calibration_error(softmax(logits / divisor).max(1), is_right, equal_rows=equal)
        for divisor, equal in ((1, False), (temperature, True))
    )
    assert before > 0.15
    assert after < 0.03


def test_a_model_that_gets_few_rows_right_does_not_become_certain_of_everything():
    logits = np.eye(3)[np.arange(30) % 3]  # 0.58 for the right class
    temperature = fit_temperature(logits, np.arange(30) % 3)
    assert 0.9 < softmax(logits / temperature).max() < 0.99


def test_the_error_is_the_mean_distance_between_confidence_and_accuracy_of_the_bins():
    confidence = np.array([0.95, 0.97, 0.62, 0.62])
    is_right = np.array([True, False, True, True])
    bins = reliability(confidence, is_right, bins=10)
    np.testing.assert_allclose(bins, [[0.62, 1.0, 2], [0.96, 0.5, 2]])
    assert calibration_error(confidence, is_right, bins=10) == pytest.approx((0.38 + 0.46) / 2)
    assert [rows for _, _, rows in reliability(confidence, is_right, bins=4, equal_rows=True)] == [1, 1, 1, 1]
    assert reliability(np.ones(2), np.ones(2, bool))[0] == [1.0, 1.0, 2]


def test_answers_above_the_threshold_have_the_precision_and_no_lower_one_does():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    is_right = rng.random(500) < confidence
    threshold = threshold_of_precision(confidence, is_right, 0.9)
    assert is_right[confidence >= threshold].mean() >= 0.9
    assert all(is_right[confidence >= lower].mean() < 0.9 for lower in confidence[confidence < threshold])


def test_equal_confidences_are_on_one_side_of_a_threshold():
    threshold = threshold_of_precision(np.array([0.9, 0.8, 0.8, 0.8]), np.array([True, True, False, False]), 0.9)
    assert 0.8 < threshold < 0.9
    assert threshold_of_precision(np.array([0.9, 0.8]), np.array([False, True]), 0.9) is None
    assert threshold_of_precision(np.array([0.9, 0.8]), np.array([True, True]), 0.9) == 0.0
