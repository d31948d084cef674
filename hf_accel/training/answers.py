"""What the logits of a row say, one class or any number of labels: the loss, what an evaluation keeps, scores and predictions.

Everything in training and evaluation that depends on this asks one of the two kinds here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers.trainer_utils import PredictionOutput

from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.methods.losses import (
    binary_cross_entropy_sum,
    class_weights,
    cross_entropy_sum,
    positive_weights,
    training_loss_sum,
)
from hf_accel.models import thresholds
from hf_accel.models.confidence import softmax
from hf_accel.report.run_report import DetailedScores
from hf_accel.tasks.label_set_predictions import LabelSetPredictions
from hf_accel.tasks.predictions import Predictions, RowPredictions
from hf_accel.training.evaluate_metric import ClassificationMetric
from hf_accel.training.metrics import detailed_scores
from hf_accel.training.multi_label_metrics import detailed_multi_label_scores, multi_label_metrics

TOP_K = 5


class Answers(ABC):
    """The answers of a model.

    Args:
        num_labels: C, the number of classes or labels.
    """

    num_kept: ClassVar[int]  # figures that an evaluation keeps of each row; the last is the loss

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels

    @abstractmethod
    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(): the sum of the losses of a batch in an evaluation."""

    @abstractmethod
    def training_loss_sum(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, methods: dict[str, float]
    ) -> Tensor:
        """The same in training; the arguments are those of `methods.losses.training_loss_sum`."""

    @abstractmethod
    def weights(self, where: str, asked: str | list[float] | None, labels: Tensor) -> Tensor | None:
        """(C,) float32: `data.class_weights`, by the labels of the training rows; raises UserError as `class_weights` does."""

    @abstractmethod
    def count_right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(): how many rows of a training batch are answered right."""

    @abstractmethod
    def kept_of_rows(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The figures that an evaluation keeps in place of the logits, (B, ...) each; one that is NaN is of broken logits."""

    @abstractmethod
    def metrics(self, kept: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float | None]:
        """The figures of a split but the loss, of what was kept of its rows."""

    @abstractmethod
    def detailed_scores(
        self, kept: Sequence[np.ndarray], labels: np.ndarray, label_names: list[str], loss: float | None
    ) -> DetailedScores:
        """The same and the figures by class."""

    @abstractmethod
    def predictions(self, figures: Sequence[np.ndarray], labels: np.ndarray, split: LabelledRows) -> RowPredictions:
        """What is predicted for the rows of a split, in their order.

        Args:
            figures: those that were kept, in the order of the rows, and the logits if they were.
        """

    def scores_of(self, output: PredictionOutput, label_names: list[str], prefix: str) -> DetailedScores:
        """All figures of what `ScoringTrainer.score` returned."""
        loss = (output.metrics or {}).get(f"{prefix}_loss")
        kept = output.predictions[: self.num_kept]
        return self.detailed_scores(kept, np.asarray(output.label_ids), label_names, loss)  # type: ignore[arg-type]  # upstream says an array

    def predictions_of(self, output: PredictionOutput, split: LabelledRows) -> RowPredictions:
        """What the Trainer predicted for the rows of a split, in their order; several ranks give it in another one."""
        *figures, rows = output.predictions
        order = np.argsort(rows)
        return self.predictions([figure[order] for figure in figures], np.asarray(output.label_ids)[order], split)


class OneClass(Answers):
    """A row is of the class with the highest logit."""

    num_kept = 3

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy_sum(logits, labels)

    def training_loss_sum(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, methods: dict[str, float]
    ) -> Tensor:
        return training_loss_sum(logits, labels, weights, smoothing, methods)

    def weights(self, where: str, asked: str | list[float] | None, labels: Tensor) -> Tensor | None:
        return class_weights(where, asked, labels, self.num_labels)

    def count_right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Args:
        labels: (B,) int64, or (B, C) probabilities, of which the largest is the class.
        """
        hard = labels.argmax(-1) if labels.is_floating_point() else labels
        return (logits.argmax(-1) == hard).sum()

    def kept_of_rows(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The likeliest classes, best first (B, min(5, C)) int64; the probability of the first (B,); the cross-entropy (B,)."""
        logits = logits.float()
        confidence, top_ids = logits.softmax(-1).topk(min(TOP_K, logits.shape[-1]))
        return top_ids, confidence[:, 0], functional.cross_entropy(logits, labels, reduction="none")

    def metrics(self, kept: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float | None]:
        found = ClassificationMetric().compute(predictions=kept[0], references=labels, num_labels=self.num_labels)
        return found or {}

    def detailed_scores(
        self, kept: Sequence[np.ndarray], labels: np.ndarray, label_names: list[str], loss: float | None
    ) -> DetailedScores:
        return detailed_scores(kept[0], labels, label_names, loss)

    def predictions(self, figures: Sequence[np.ndarray], labels: np.ndarray, split: LabelledRows) -> RowPredictions:
        top_ids, confidence, _, *logits = figures
        return Predictions(
            label_names=split.label_names,
            labels=labels,
            predicted=top_ids[:, 0],
            confidence=confidence,
            rows=split.row_numbers(),
            files=split.file_names(),
            probabilities=softmax(logits[0]) if logits else None,
        )


class AnyLabels(Answers):
    """A row has the labels whose scores, the sigmoids of the logits, reach their thresholds.

    Args:
        learned: (C,) the thresholds; None: 0.5, until the validation rows give others.
    """

    num_kept = 2

    def __init__(self, num_labels: int, learned: np.ndarray | None = None) -> None:
        super().__init__(num_labels)
        self.thresholds = np.full(num_labels, thresholds.UNLEARNED) if learned is None else learned

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_sum(logits, labels)

    def training_loss_sum(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, methods: dict[str, float]
    ) -> Tensor:
        return binary_cross_entropy_sum(logits, labels, weights, smoothing)

    def weights(self, where: str, asked: str | list[float] | None, labels: Tensor) -> Tensor | None:
        return positive_weights(where, asked, labels)

    def count_right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """At the threshold 0.5."""
        return ((logits > 0) == (labels > 0)).all(-1).sum()

    def kept_of_rows(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The logits (B, C); the mean binary cross-entropy of the labels (B,)."""
        logits = logits.float()
        losses = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(-1)
        return logits, losses.masked_fill(~logits.isfinite().all(-1), torch.nan)

    def metrics(self, kept: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float | None]:
        return multi_label_metrics(thresholds.sigmoid(kept[0]), labels, self.thresholds)

    def detailed_scores(
        self, kept: Sequence[np.ndarray], labels: np.ndarray, label_names: list[str], loss: float | None
    ) -> DetailedScores:
        return detailed_multi_label_scores(thresholds.sigmoid(kept[0]), labels, self.thresholds, label_names, loss)

    def predictions(self, figures: Sequence[np.ndarray], labels: np.ndarray, split: LabelledRows) -> RowPredictions:
        scores = thresholds.sigmoid(figures[0])
        return LabelSetPredictions(
            label_names=split.label_names,
            labels=labels,
            predicted=scores >= self.thresholds,
            probabilities=scores,
            rows=split.row_numbers(),
            files=split.file_names(),
        )


def answers_of(config: Any, num_labels: int) -> Answers:
    """Those of a model, as its config describes them."""
    if not thresholds.is_multi_label(config):
        return OneClass(num_labels)
    return AnyLabels(num_labels, thresholds.of_config(config, num_labels))
