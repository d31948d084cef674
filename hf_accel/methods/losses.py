"""Losses that are exact under gradient accumulation, soft labels, label smoothing and class weights.

Most `*ForImageClassification` heads swallow `num_items_in_batch` and ignore it, so the stock Trainer multiplies their
loss by the number of accumulation steps, and soft labels turn them into multi-label classifiers. Every model of this
package is therefore trained with this one loss, outside the model.

Source: https://github.com/huggingface/transformers/issues/47688; class weights as scikit-learn's; label smoothing
https://arxiv.org/abs/1512.00567; mixup and cutmix, whose soft labels it takes, https://arxiv.org/abs/1710.09412 and
https://arxiv.org/abs/1905.04899; focal loss https://arxiv.org/abs/1708.02002; generalised cross-entropy for noisy labels
https://arxiv.org/abs/1805.07836.
Labels that do not exclude each other (`model.task: multi-label-image-classification`) are trained with the binary
cross-entropy of each.
Recipe: `data: {class_weights: balanced}`, `training: {label_smoothing_factor: 0.1}`, `data: {augment: {mixup: 0.2}}`,
`training: {focal_gamma: 2}`, `training: {generalized_cross_entropy: 0.7}`.
Measured: label smoothing, ResNet-20, one epoch of CIFAR-10, two seeds: +1.49 points of test accuracy (-4.61 to +7.59), not
beyond chance (benchmarks/README.md). ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds: focal loss with gamma 2
+0.7 points (-30.3 to +31.8), generalized cross-entropy 0.7 -4.9 (-14.0 to +4.3; its labels are right), at unchanged speed. Class
weights were not measured.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the name that every PyTorch user knows
from torch import Tensor

from hf_accel.errors import UserError


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of a batch, in float32.

    Args:
        logits: (B, C).
        labels: (B,) int64 class numbers, or (B, C) probabilities, whose rows sum to 1.
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


def focal_loss_sum(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over a batch of (1 - p) ** gamma times the cross-entropy, p the probability of the true class, in float32.

    Arguments as `cross_entropy_sum`; a soft label is the mixture of its classes. gamma 0 is the cross-entropy.

    >>> focal_loss_sum(torch.zeros(1, 2), torch.tensor([0]), gamma=2).item()  # 0.5 ** 2 * log(2)
    0.1732867956161499
    """
    log_p = logits.float().log_softmax(-1)
    others = -torch.expm1(log_p)  # 1 - p, exact near p = 1
    losses = -others.clamp_min(1e-12).pow(gamma) * log_p  # the gradient of 0 ** gamma is not finite for gamma < 1
    return (losses * _class_shares(labels, log_p, class_weights, label_smoothing)).sum()


def generalized_cross_entropy_sum(
    logits: Tensor,
    labels: Tensor,
    q: float,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over a batch of (1 - p ** q) / q, p the probability of the true class, in float32.

    Arguments as `cross_entropy_sum`; a soft label is the mixture of its classes. q near 0 is the cross-entropy, and 1 is the
    absolute error, for which rows with a wrong label weigh no more than others.

    >>> generalized_cross_entropy_sum(torch.zeros(1, 2), torch.tensor([0]), q=1.0).item()
    0.5
    """
    log_p = logits.float().log_softmax(-1)
    losses = -torch.expm1(q * log_p) / q
    return (losses * _class_shares(labels, log_p, class_weights, label_smoothing)).sum()


def _class_shares(labels: Tensor, like: Tensor, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """(B, C) in the data type of `like`: the share of each class in each label, times the weight of the class."""
    classes = labels if labels.is_floating_point() else F.one_hot(labels, like.shape[-1])
    shares = classes.to(like.dtype) * (1 - label_smoothing) + label_smoothing / like.shape[-1]
    return shares if class_weights is None else shares * class_weights


def training_loss_sum(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, label_smoothing: float, methods: dict[str, float]
) -> Tensor:
    """The loss of a recipe, summed over a batch; `methods` may hold `focal_gamma` or `generalized_cross_entropy`."""
    gamma, q = methods.get("focal_gamma"), methods.get("generalized_cross_entropy")
    if gamma:
        return focal_loss_sum(logits, labels, gamma, class_weights, label_smoothing)
    if q:
        return generalized_cross_entropy_sum(logits, labels, q, class_weights, label_smoothing)
    return cross_entropy_sum(logits, labels, class_weights, label_smoothing)


def binary_cross_entropy_sum(
    logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Sum over a batch of the mean binary cross-entropy of the labels of a row, in float32.

    Divided by the rows it is the loss of transformers for `problem_type: multi_label_classification`.

    Args:
        logits: (B, C).
        labels: (B, C), 1 where a row has the label, else 0.
        positive_weights: (C,); a row that has a label counts with this weight in the loss of the label.
        label_smoothing: 0 and 1 become half of it, and 1 less half of it; in [0, 1).

    >>> binary_cross_entropy_sum(torch.zeros(2, 3), torch.tensor([[0, 1, 0], [1, 1, 1]])).item() / 2  # log(2)
    0.6931471824645996
    """
    targets = labels.float() * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none", pos_weight=positive_weights)
    return losses.mean(dim=-1).sum()


def positive_weights(where: str, asked: str | list[float] | None, labels: Tensor) -> Tensor | None:
    """The (C,) float32 weights of `data.class_weights` for labels that do not exclude each other, or None.

    "balanced" is the number of rows without a label per row with it, so that both count the same; 1 where there are none of
    one of the two.

    Args:
        where: the recipe's name, for the message.
        asked: "balanced", a weight for each label, or None.
        labels: (N, C), 1 where a training row has the label, else 0.
    Raises:
        UserError: the number of weights is not that of the labels.

    >>> positive_weights("mine", "balanced", torch.tensor([[1, 0], [0, 0], [0, 0], [1, 0]])).tolist()
    [1.0, 1.0]
    """
    if asked != "balanced":
        return _given_weights(where, asked, labels.shape[1])
    having = labels.sum(dim=0)
    lacking = len(labels) - having
    return torch.where((having > 0) & (lacking > 0), lacking / having.clamp(min=1), 1.0).float()


def balanced_class_weights(labels: Tensor, num_labels: int) -> Tensor:
    """(N,) int64 -> (C,) float32 weights n / (classes that occur * count), as scikit-learn's "balanced".

    Their mean over rows is 1, so that the learning rate keeps its meaning; the weight of a class without rows is 1.
    """
    counts = torch.bincount(labels, minlength=num_labels)
    occurring = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (occurring * counts.clamp(min=1)), 1.0).float()


def class_weights(where: str, asked: str | list[float] | None, labels: Tensor, num_labels: int) -> Tensor | None:
    """The (C,) float32 weights of `data.class_weights`, or None.

    Args:
        where: the recipe's name, for the message.
        asked: "balanced", a weight for each class, or None.
        labels: (N,) int64, the labels of the training rows.
        num_labels: the number of classes C.
    Raises:
        UserError: the number of weights is not that of the classes.
    """
    if asked == "balanced":
        return balanced_class_weights(labels, num_labels)
    return _given_weights(where, asked, num_labels)


def _given_weights(where: str, asked: str | list[float] | None, num_labels: int) -> Tensor | None:
    if asked is None:
        return None
    if len(asked) != num_labels:
        raise UserError(
            f"{where}: data.class_weights has {len(asked)} numbers, expected one for each of the {num_labels} classes"
        )
    return torch.tensor(asked, dtype=torch.float32)
