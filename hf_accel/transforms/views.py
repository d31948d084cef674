"""Test-time augmentation: an image is scored by the mean of the logits of several views of it.

The views are made of the finished images, and the model is called once per view: memory stays that of one view, and a compiled
model sees one size of batch.

Source: cifar10-airbench (https://github.com/KellerJordan/cifar10-airbench).
Recipe: `data: {test_time_augmentation: flip}`.
Measured: ResNet-20, one epoch of CIFAR-10, two seeds, flip: +0.63 points of test accuracy (+0.50 to +0.76;
benchmarks/README.md). flip_shift was measured within speedrun_cifar10_94 only.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

NUM_VIEWS = {"flip": 2, "flip_shift": 6}


def views(images: Tensor, kind: str) -> list[tuple[float, Tensor]]:
    """The views of a batch and their weights, which sum to 1.

    Args:
        images: (B, 3, H, W).
        kind: none; flip: the image and its mirror image; flip_shift: both of the image, with weight 0.5, and of the image
            seen one pixel further up and left, and down and right, reflected at the border, with weight 0.25 each.
    """
    if kind == "none":
        return [(1.0, images)]
    windows = [(1.0, images)]
    if kind == "flip_shift":
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        windows = [(0.5, images), (0.25, padded[..., :-2, :-2]), (0.25, padded[..., 2:, 2:])]
    return [(weight / 2, view) for weight, window in windows for view in (window, window.flip(-1))]


def mean_logits(forward: Callable[[Tensor], Tensor], images: Tensor, kind: str) -> Tensor:
    """Weighted mean over the views, (B, C) float32.

    Args:
        forward: images (B, 3, H, W) -> logits (B, C).
    """
    first, *others = (weight * forward(view).float() for weight, view in views(images, kind))
    return sum(others, first)


def views_note(kind: str) -> list[str]:
    """What a report says of figures that were computed so; empty without test-time augmentation."""
    if kind == "none":
        return []
    return [
        f"test-time augmentation: {kind}, so the validation and test figures are of the mean of the logits over "
        f"{NUM_VIEWS[kind]} views of each image; the saved model alone looks at one"
    ]
