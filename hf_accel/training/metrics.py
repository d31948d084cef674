"""Accuracy, top-5, F1, per-class figures and the confusion matrix, computed by scikit-learn behind `evaluate.Metric`.

The metrics are instantiated directly because `evaluate.load` needs the network even for "accuracy". They work from the
ids of the best classes of each row, never from logits, so that an evaluation keeps a few integers per row.

Conventions, the same for every data set:
- "F1" is macro F1 over all `num_labels` classes, equal to scikit-learn's
  `f1_score(labels, predicted, labels=range(num_labels), average="macro", zero_division=0)`. A class with neither a row
  nor a prediction counts as 0 in that mean: a test split that lacks a class cannot show that the model knows it.
- Top-5 accuracy is None when there are five classes or fewer: it would be 1 whatever the model does.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from hf_accel.errors import UserError

# The matrix of ImageNet-21k would have 476 million entries; above this size it is no longer something to look at.
MAX_CONFUSION_LABELS = 1000

_CLASS_ID = datasets.Value("int64")


class _OfflineMetric(evaluate.Metric):
    """A metric of class ids that keeps its rows in memory: no network, no lock, no cache folder."""

    description = ""
    predictions = _CLASS_ID

    def __init__(self, **kwargs: Any):
        super().__init__(keep_in_memory=True, **kwargs)

    def _build_data_dir(self) -> str:
        # evaluate creates its cache folder here even to keep everything in memory; that fails in a read-only home.
        return self._data_dir_root

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description="predictions: class ids by row; references: the true class id of each row.",
            features=datasets.Features({"predictions": self.predictions, "references": _CLASS_ID}),
        )


class Accuracy(_OfflineMetric):
    """Fraction of rows whose first prediction is right."""

    description = "Fraction of rows whose first prediction is right."

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class TopK(_OfflineMetric):
    """Fraction of rows whose true class is among their predictions; predictions: (N, k) ids, best first."""

    description = "Fraction of rows whose true class is among the k best predictions."
    predictions = datasets.List(_CLASS_ID)

    def _compute(self, predictions: Sequence[Sequence[int]], references: Sequence[int]) -> dict[str, float]:
        found = np.asarray(predictions) == np.asarray(references)[:, None]  # (N, k) bool
        return {"top_k_accuracy": float(found.any(axis=1).mean())}


class F1(_OfflineMetric):
    """Macro, micro and weighted F1 over all `num_labels` classes; the convention is in the module's docstring."""

    description = "Macro, micro and weighted F1 over all classes."

    def _compute(self, predictions: Sequence[int], references: Sequence[int], num_labels: int) -> dict[str, float]:
        return {
            f"f1_{average}": float(
                f1_score(references, predictions, labels=range(num_labels), average=average, zero_division=0)
            )
            for average in ("macro", "micro", "weighted")
        }


class PerClass(_OfflineMetric):
    """Precision, recall, F1 and support of each of `num_labels` classes; an undefined one is 0, as in F1."""

    description = "Precision, recall, F1 and support of each class."

    def _compute(self, predictions: Sequence[int], references: Sequence[int], num_labels: int) -> dict[str, list]:
        precision, recall, f1, support = precision_recall_fscore_support(
            references, predictions, labels=range(num_labels), zero_division=0
        )
        # scikit-learn counts in floats when no row is predicted correctly.
        support = support.astype(np.int64)
        return {
            "precision": precision.tolist(),
            "recall": recall.tolist(),
            "f1": f1.tolist(),
            "support": support.tolist(),
        }


class Confusion(_OfflineMetric):
    """Rows of each true class (first axis) by predicted class (second axis), (num_labels, num_labels)."""

    description = "Rows of each true class by predicted class."

    def _compute(self, predictions: Sequence[int], references: Sequence[int], num_labels: int) -> dict[str, list]:
        return {"confusion": confusion_matrix(references, predictions, labels=range(num_labels)).tolist()}


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
        top5 = TopK().compute(predictions=top_ids[:, :5], references=labels)["top_k_accuracy"]
    return {
        **Accuracy().compute(predictions=best, references=labels),
        "top5_accuracy": top5,
        **F1().compute(predictions=best, references=labels, num_labels=num_labels),
    }


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
    columns = PerClass().compute(predictions=predicted, references=labels, num_labels=len(label_names))
    return [
        {"label": label, **dict(zip(columns, figures, strict=True))}
        for label, *figures in zip(label_names, *columns.values(), strict=True)
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
    return Confusion().compute(predictions=predicted, references=labels, num_labels=num_labels)["confusion"]


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
