"""Which labels an image has, by their scores: the thresholds of a multi-label model, in its config.

A run chooses them on the validation rows. transformers keeps a key of a config that it does not know, and leaves it alone.
Nothing here needs PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PROBLEM_TYPE = "multi_label_classification"  # upstream's name
CONFIG_KEY = "hf_accel_thresholds"
UNLEARNED = 0.5


def is_multi_label(config: Any) -> bool:
    """Whether the classes of a model do not exclude each other; a config of None says nothing."""
    return getattr(config, "problem_type", None) == PROBLEM_TYPE


def set_multi_label(config: Any, is_multi_label: bool) -> None:
    """Make a config say whether its classes exclude each other; the thresholds that it was loaded with go."""
    remember(config, None)
    if is_multi_label:
        config.problem_type = PROBLEM_TYPE
    elif config.problem_type == PROBLEM_TYPE:
        config.problem_type = None


def are_learned(config: Any) -> bool:
    return getattr(config, CONFIG_KEY, None) is not None


def of_config(config: Any, num_labels: int) -> np.ndarray:
    """(C,) float64: an image has the labels whose scores are as high or higher; 0.5 where the config has none."""
    found = getattr(config, CONFIG_KEY, None)
    is_valid = isinstance(found, list) and len(found) == num_labels and all(isinstance(x, int | float) for x in found)
    return np.array(found if is_valid else [UNLEARNED] * num_labels, np.float64)


def remember(config: Any, thresholds: np.ndarray | None) -> None:
    """Write them into the config of a model; None removes those that it was loaded with."""
    vars(config).pop(CONFIG_KEY, None)
    if thresholds is not None:
        setattr(config, CONFIG_KEY, [float(value) for value in thresholds])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The scores of labels that do not exclude each other, float64.

    >>> sigmoid(np.array([0.0, 1000.0, -1000.0])).tolist()
    [0.5, 1.0, 0.0]
    """
    halves = np.tanh(0.5 * logits.astype(np.float64))  # does not overflow, whatever the logits
    return 0.5 * (1 + halves)


def best_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) float64: of each label the threshold with the highest F1, halfway between two neighbouring scores.

    Of equally good ones the highest is taken. A label that all rows or none of them have gives no threshold: it gets 0.5.

    Args:
        scores: (N, C) in [0, 1].
        labels: (N, C) int, 1 where a row has the label.

    >>> best_thresholds(np.array([[0.1], [0.3], [0.5]]), np.array([[0], [1], [1]])).tolist()
    [0.2]
    """
    found = np.full(scores.shape[1], UNLEARNED)
    for label in range(scores.shape[1]):
        has = labels[:, label] > 0
        if has.any() and not has.all():
            found[label] = _best_threshold(scores[:, label].astype(np.float64), has)
    return found


def _best_threshold(scores: np.ndarray, has: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], np.cumsum(has[order])  # of the k + 1 highest scores, so many have the label
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + has.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores are on one side
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
