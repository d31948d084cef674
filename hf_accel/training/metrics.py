"""Accuracy, top-5, F1, per-class figures and the confusion matrix, computed by scikit-learn.

They work from the ids of the best classes of each row, never from logits, so that an evaluation keeps a few integers per
row. An exported model is scored by the same functions, without PyTorch and `datasets`.

Conventions, the same for every data set:
- "F1" is macro F1 over all `num_labels` classes, equal to scikit-learn's
  `f1_score(labels, predicted, labels=range(num_labels), average="macro", zero_division=0)`. A class with neither a row
  nor a prediction counts as 0 in that mean: a test split that lacks a class cannot show that the model knows it.
- Top-5 accuracy is None when there are five classes or fewer: it would be 1 whatever the model does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from hf_accel.errors import UserError
from hf_accel.report.run_report import DetailedScores

# The matrix of ImageNet-21k would have 476 million entries; above this size it is no longer something to look at.
MAX_CONFUSION_LABELS = 1000


def classification_metrics(top_ids: np.ndarray, labels: np.ndarray, num_labels: int) -> dict[str, float | None]:
    """Score the predictions of a whole split.

    Args:
        top_ids: (N, k) int, the ids of the k best classes of each row, best first. k is at least 5 when there are more
            than five classes; columns after the fifth are not looked at.
        labels: (N,) int, the true class ids.
        num_labels: the model's number of classes, whether or not they all occur.
    Returns:
        accuracy, top5_accuracy (None with five classes or fewer), f1_macro, f1_micro, f1_weighted; each in [0, 1].
    Raises:
        UserError: there are no rows, or an id is outside [0, num_labels).

    >>> classification_metrics(np.array([[0, 1], [1, 0]]), np.array([0, 0]), num_labels=2)["accuracy"]
    0.5
    """
    top_ids, labels = np.asarray(top_ids), np.asarray(labels)
    if top_ids.ndim != 2 or (num_labels > 5 and top_ids.shape[1] < 5):
        raise ValueError(f"top_ids has shape {top_ids.shape}, expected (N, k) with k >= {min(5, num_labels)}")
    best = top_ids[:, 0]
    _check(top_ids, labels, num_labels)
    top5 = None
    if num_labels > 5:
        top5 = float((top_ids[:, :5] == labels[:, None]).any(axis=1).mean())
    f1 = {
        f"f1_{average}": float(f1_score(labels, best, labels=range(num_labels), average=average, zero_division=0))
        for average in ("macro", "micro", "weighted")
    }
    return {"accuracy": float(accuracy_score(labels, best)), "top5_accuracy": top5, **f1}


def per_class(predicted: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Figures of each class, in the order of `label_names`.

    Args:
        predicted: (N,) int, the predicted class ids.
        labels: (N,) int, the true class ids.
        label_names: one name per class id.
    Returns:
        One {label, precision, recall, f1, support} per class; support is the number of rows of that class.
    Raises:
        UserError: as in `classification_metrics`.
    """
    _check(predicted, labels, len(label_names))
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(label_names)), zero_division=0)
    return [
        # scikit-learn counts in floats when no row is predicted correctly
        {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        for label, precision, recall, f1, support in zip(
            label_names, *(column.tolist() for column in columns), strict=True
        )
    ]


def confusion(predicted: np.ndarray, labels: np.ndarray, num_labels: int) -> list[list[int]] | None:
    """Count the rows of each true class (outer list) by predicted class (inner list).

    Args:
        predicted: (N,) int, the predicted class ids.
        labels: (N,) int, the true class ids.
        num_labels: the model's number of classes.
    Returns:
        (num_labels, num_labels) counts, or None above `MAX_CONFUSION_LABELS` classes.
    Raises:
        UserError: as in `classification_metrics`.
    """
    _check(predicted, labels, num_labels)
    if num_labels > MAX_CONFUSION_LABELS:
        return None
    return confusion_matrix(labels, predicted, labels=range(num_labels)).tolist()


def detailed_scores(
    top_ids: np.ndarray, labels: np.ndarray, label_names: Sequence[str], loss: float | None
) -> DetailedScores:
    """All figures of a split.

    Args:
        top_ids, labels: as in `classification_metrics`.
        label_names: one name per class id.
        loss: the mean cross-entropy.
    Raises:
        UserError: as in `classification_metrics`.
    """
    figures: dict[str, Any] = classification_metrics(top_ids, labels, len(label_names))
    return DetailedScores(
        loss=loss,
        **figures,
        per_class=per_class(top_ids[:, 0], labels, label_names),
        confusion=confusion(top_ids[:, 0], labels, len(label_names)),
    )


def _check(predicted: np.ndarray, labels: np.ndarray, num_labels: int) -> None:
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predictions for {len(labels)} labels")
    if len(labels) == 0:
        raise UserError("metrics: got no rows, expected at least one. Check that the evaluated split is not empty.")
    for what, ids in (("label", labels), ("prediction", predicted)):
        low, high = int(np.min(ids)), int(np.max(ids))
        if low < 0 or high >= num_labels:
            raise UserError(
                f"metrics: got {what} id {low if low < 0 else high}, expected 0 to {num_labels - 1}. "
                "The data and the model must have the same classes in the same order."
            )
