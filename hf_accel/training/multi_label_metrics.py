"""Average precision, F1 and exact matches of labels that do not exclude each other, computed by scikit-learn.

Conventions:
- mean average precision is the mean of `average_precision_score` over the labels that at least one row has: of the others it
  is not defined. It needs no thresholds.
- F1 is as in `metrics.py`: macro is the mean over all labels, and a label with neither a row nor a prediction counts as 0.
- Accuracy is the share of the rows of which every label is right, as scikit-learn's `accuracy_score` has it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_fscore_support

from hf_accel.errors import UserError
from hf_accel.report.run_report import DetailedScores


def multi_label_metrics(scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> dict[str, float | None]:
    """Score the predictions of a whole split.

    Args:
        scores: (N, C) in [0, 1].
        labels: (N, C) int, 1 where a row has the label.
        thresholds: (C,); a label is predicted where its score is as high or higher.
    Returns:
        mean_average_precision (None where no row has a label), accuracy, f1_macro, f1_micro, f1_weighted; each in [0, 1].
    Raises:
        UserError: there are no rows.

    >>> labels = np.array([[1, 0], [0, 1], [1, 1]])
    >>> multi_label_metrics(np.array([[0.9, 0.2], [0.1, 0.4], [0.8, 0.7]]), labels, np.array([0.5, 0.5]))["accuracy"]
    0.6666666666666666
    """
    if not len(labels):
        raise UserError("metrics: got no rows, expected at least one. Check that the evaluated split is not empty.")
    predicted = scores >= thresholds
    f1 = {
        f"f1_{average}": float(f1_score(labels, predicted, average=average, zero_division=0))
        for average in ("macro", "micro", "weighted")
    }
    precisions = [value for value in average_precisions(scores, labels) if value is not None]
    mean = float(np.mean(precisions)) if precisions else None
    return {"mean_average_precision": mean, "accuracy": float(accuracy_score(labels, predicted)), **f1}


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """(C,) the average precision of each label; None where no row has it."""
    return [
        float(average_precision_score(labels[:, label], scores[:, label])) if labels[:, label].any() else None
        for label in range(labels.shape[1])
    ]


def detailed_multi_label_scores(
    scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, label_names: Sequence[str], loss: float | None
) -> DetailedScores:
    """All figures of a split; `per_class` has the average precision and the threshold of each label, too.

    Args:
        scores, labels, thresholds: as in `multi_label_metrics`.
        label_names: one name per label.
        loss: the mean binary cross-entropy.
    Raises:
        UserError: as in `multi_label_metrics`.
    """
    figures: dict[str, Any] = multi_label_metrics(scores, labels, thresholds)
    columns = precision_recall_fscore_support(labels, scores >= thresholds, zero_division=0)
    rows = zip(label_names, *columns, average_precisions(scores, labels), thresholds, strict=True)
    per_class = [
        {
            "label": label,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
            "average_precision": average_precision,
            "threshold": float(threshold),
        }
        for label, precision, recall, f1, support, average_precision, threshold in rows
    ]
    return DetailedScores(loss=loss, **figures, per_class=per_class)
