"""`model.whiten_stem`: the first convolution becomes a fixed whitening of the training images' patches.

Neighbouring pixels are nearly equal, so a random first layer spends its steps on finding the few directions in which
patches differ. These are known without training.

Source: tysam-code/hlb-CIFAR10 and Keller Jordan's airbench (https://github.com/KellerJordan/cifar10-airbench).
Recipe: `model: {whiten_stem: true}`, for networks that are trained from scratch.
Measured: ResNet-20, one epoch of CIFAR-10, two seeds: +2.62 points of test accuracy (-1.83 to +7.07), not beyond chance
(benchmarks/README.md).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name that every PyTorch user knows
from torch import Tensor, nn

from hf_accel.data.splits import ImageSplit
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.transforms.pipeline import EvalTransform

MAX_IMAGES = 5_000
CHUNK = 50  # images at a time: at 224 px the patches of a 7x7 stem of stride 2 take 0.4 GB
EPSILON = 5e-4  # airbench's: directions of less variance than this are noise, and are not raised to 1


def whiten_stem(model: nn.Module, split: ImageSplit, preprocessing: Preprocessing) -> str:
    """Set the weight of the model's first convolution over an image's three channels, and stop it from learning.

    The filters are the eigenvectors of the second moments of patches, divided by the root of their eigenvalues, largest
    first, then their opposites, because the activation that follows removes negative outputs. Filters beyond these keep
    their random weights. A bias still learns.

    Args:
        model: the model, on any device; it is changed in place.
        split: the training rows; up to 5,000 are read, spread evenly, since an image folder is ordered by class.
        preprocessing: the model's preprocessing.
    Returns:
        What was done, in words.
    Raises:
        UserError: the model has no such convolution.
    """
    stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1), None)
    if stem is None:
        raise UserError(
            f"model.whiten_stem: {type(model).__name__} has no convolution over the 3 channels of an image, which would be "
            "set to whiten patches. Set model.whiten_stem: false."
        )
    rows = np.unique(np.linspace(0, len(split) - 1, MAX_IMAGES).astype(np.int64))
    filters = whitening_filters(patch_moments(split, rows, preprocessing, stem))[: stem.out_channels // 2]
    both = torch.cat([filters, -filters]).float()
    with torch.no_grad():
        stem.weight[: len(both)] = both.to(stem.weight.device)
    stem.weight.requires_grad_(False)
    height, width = stem.kernel_size
    return (
        f"stem: {len(both)} of {stem.out_channels} filters whiten patches of {height} x {width} pixels ({len(rows):,} training "
        "images); they do not learn"
    )


def patch_moments(split: ImageSplit, rows: np.ndarray, preprocessing: Preprocessing, stem: nn.Conv2d) -> Tensor:
    """Second moments (3, h, w, 3, h, w) float64 of the patches that a convolution sees in normalised images.

    On the CPU, whatever the model is on, so that every rank finds the same filters.
    """
    transform = EvalTransform(preprocessing)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for start in range(0, len(rows), CHUNK):
        images = [
            preprocessing.apply(split.read(row, preprocessing.target_side)) for row in rows[start : start + CHUNK]
        ]
        pixels = transform({"pixels": torch.from_numpy(np.stack(images))})["pixel_values"]
        patches = F.unfold(pixels, stem.kernel_size, dilation=stem.dilation, stride=stem.stride)  # (B, 3 h w, patches)
        total = total + torch.einsum("bip,bjp->ij", patches, patches).double()
        count += patches.shape[0] * patches.shape[2]
    shape = (3, *stem.kernel_size)
    return (total / count).reshape(*shape, *shape)


def whitening_filters(moments: Tensor) -> Tensor:
    """(3, h, w, 3, h, w) -> (3 h w, 3, h, w): the outputs of these filters are uncorrelated, of variance near 1."""
    shape = moments.shape[:3]
    size = shape.numel()
    eigenvalues, eigenvectors = torch.linalg.eigh(moments.reshape(size, size))  # rising; vectors in columns
    filters = (eigenvectors / (eigenvalues + EPSILON).sqrt()).T.flip(0)
    return filters.reshape(size, *shape)
