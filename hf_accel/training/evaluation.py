"""What an evaluation keeps of each row, and the metrics made of it."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
)
from transformers.modeling_outputs import ImageClassifierOutput

from hf_accel.training.metrics import classification_metrics
from hf_accel.transforms.views import mean_logits


class EvaluationMetrics:
    """`compute_metrics` of the Trainer: loss, accuracy, top-5 and F1 from what `prediction_step` kept."""

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        top_ids, _, losses, rows = prediction.predictions
        # a distributed sampler pads the last batch: a row counted twice would change the figures silently
        assert len(np.unique(rows)) == len(rows), "a row was evaluated twice"
        metrics = classification_metrics(top_ids, prediction.label_ids, self.num_labels)
        # the Trainer's own eval_loss is a mean of batch means, which depends on the batches and the processes
        metrics["loss"] = float(losses.mean(dtype=np.float64))
        return {name: value for name, value in metrics.items() if value is not None}


def _mean_over_views(model: nn.Module, kind: str, pixel_values: Tensor) -> ImageClassifierOutput:
    return ImageClassifierOutput(
        logits=mean_logits(lambda view: model(pixel_values=view)["logits"], pixel_values, kind)
    )
