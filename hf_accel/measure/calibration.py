"""Whether a classifier's confidence is the share of its answers that are right, and what makes it so.

Temperature scaling divides all logits by one number, which changes no answer (https://arxiv.org/abs/1706.04599). The number
minimises the cross-entropy of rows that did not train; their labels are smoothed as in Platt's method (1999), without which
a model that gets all of few rows right would call itself certain of everything.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BINS = 15
SMALLEST, LARGEST = 0.05, 20.0  # temperatures


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least cross-entropy.

    Args:
        logits: (N, C), of rows that the model did not learn from.
        labels: (N,) int.

    >>> round(fit_temperature(np.array([[10.0, 0.0], [0.0, 10.0], [10.0, 0.0]] * 50), np.array([0, 1, 1] * 50)), 1)
    14.3
    """
    rows, classes = logits.shape
    scores = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = (rows + 1) / (rows + 2)
    others = (1 - right) / max(classes - 1, 1)
    aim = float((others * scores.sum(1) + (right - others) * scores[np.arange(rows), labels]).mean())

    def cross_entropy(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float(logsumexp(scores * scale, axis=1).mean()) - aim * scale

    found = minimize_scalar(cross_entropy, bounds=(math.log(SMALLEST), math.log(LARGEST)), method="bounded")
    return math.exp(found.x)


def reliability(
    confidence: np.ndarray, is_right: np.ndarray, bins: int = BINS, equal_rows: bool = False
) -> list[list[float]]:
    """(mean confidence, accuracy, rows) of each bin that has rows, in the order of their confidence.

    Args:
        confidence: (N,), of the answers.
        is_right: (N,) bool.
        equal_rows: the bins have equally many rows; False: equal widths between 0 and 1.
    """
    order = np.argsort(confidence, kind="stable")
    confidence, is_right = confidence[order], is_right[order]
    if equal_rows:
        places = np.arange(len(order)) * bins // len(order)
    else:
        places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    parts = [places == place for place in np.unique(places)]
    return [[float(confidence[part].mean()), float(is_right[part].mean()), int(part.sum())] for part in parts]


def calibration_error(
    confidence: np.ndarray, is_right: np.ndarray, bins: int = BINS, equal_rows: bool = False
) -> float:
    """The expected calibration error: the mean distance between confidence and accuracy over the rows of the bins.

    >>> calibration_error(np.full(4, 0.75), np.array([True, True, True, False]))
    0.0
    """
    found = reliability(confidence, is_right, bins, equal_rows)
    return sum(rows * abs(mean - accuracy) for mean, accuracy, rows in found) / len(confidence)


def threshold_of_precision(confidence: np.ndarray, is_right: np.ndarray, precision: float) -> float | None:
    """The lowest confidence from which on this share of the answers is right.

    Returns:
        0 where all answers together reach it; None where no answers do.

    >>> threshold_of_precision(np.array([0.9, 0.8, 0.6, 0.5]), np.array([True, True, False, True]), 0.9)
    0.7
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, is_right = confidence[order], is_right[order]
    reached = np.cumsum(is_right) / np.arange(1, len(order) + 1) >= precision
    if reached[-1]:
        return 0.0
    reached[:-1] &= confidence[:-1] > confidence[1:]  # equal ones cannot be told apart
    last = np.flatnonzero(reached[:-1])
    return float((confidence[last[-1]] + confidence[last[-1] + 1]) / 2) if len(last) else None
