"""Cross-entropy that is exact under gradient accumulation, soft labels, label smoothing and class weights.

Most `*ForImageClassification` heads swallow `num_items_in_batch` and ignore it, so the stock Trainer multiplies their
loss by the number of accumulation steps (https://github.com/huggingface/transformers/issues/47688), and soft labels
turn them into multi-label classifiers. Every model of this package is therefore trained with this one loss, outside
the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the name that every PyTorch user knows
from torch import Tensor


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of a batch, in float32.

    Args:
        logits: (B, C).
        labels: (B,) int64 class numbers, or (B, C) probabilities that sum to 1 a row.
        class_weights: (C,); a row counts with the weight of its class.
        label_smoothing: share of each label spread over all classes, in [0, 1).

    >>> cross_entropy_sum(torch.zeros(2, 4), torch.tensor([0, 3])).item() / 2  # log(4)
    1.3862943649291992
    """
    if labels.is_floating_point():
        labels = labels.float()
    return F.cross_entropy(
        logits.float(), labels, weight=class_weights, reduction="sum", label_smoothing=label_smoothing
    )


def balanced_class_weights(labels: Tensor, num_labels: int) -> Tensor:
    """(N,) int64 -> (C,) float32 weights n / (C * count), as scikit-learn's "balanced": their mean over rows is 1."""
    counts = torch.bincount(labels, minlength=num_labels).clamp(min=1)
    return (len(labels) / (num_labels * counts)).float()
