"""RandAugment, a policy that draws a few operations for each image.

An operation has one strength, so the images of a batch that drew it go through torchvision's own kernel together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

_MAGNITUDES = 31  # RandAugment counts 0..30


def randaugment(images: Tensor, draws: Tensor, magnitude: int) -> Tensor:
    """RandAugment with torchvision's operations and strengths (https://arxiv.org/abs/1909.13719).

    On an accelerator this waits for the device once, to learn which images drew which operation.

    Args:
        images: (B, 3, H, W) float32, levels 0..255.
        draws: (B, 2 * num_ops) in [0, 1): operation and sign of each round.
        magnitude: 0..30.
    Returns:
        (B, 3, H, W) float32, whole levels.
    """
    images = images.round().to(torch.uint8, memory_format=torch.contiguous_format)
    operations = _operations(magnitude, *images.shape[2:])
    picks = (draws[:, 0::2] * len(operations)).long() * 2 + (draws[:, 1::2] < 0.5)  # (B, num_ops)
    counts = functional.one_hot(picks, 2 * len(operations)).sum(0).tolist()
    for picked, rows_each in zip(picks.t(), counts, strict=True):
        for pick, rows in enumerate(picked.argsort(stable=True).split(rows_each)):
            operation = operations[pick // 2]
            if len(rows) and operation is not None:
                images[rows] = operation(images[rows], -1.0 if pick % 2 else 1.0)
    return images.to(torch.float32)


def _operations(magnitude: int, height: int, width: int) -> list[Callable[[Tensor, float], Tensor] | None]:
    """The 14 operations of torchvision's RandAugment; they take (n, 3, H, W) uint8 and the sign of the change."""
    part = magnitude / (_MAGNITUDES - 1)
    blend, turn, slope = 0.9 * part, 30.0 * part, math.degrees(math.atan(0.3 * part))
    shift_x, shift_y = int(150 / 331 * width * part), int(150 / 331 * height * part)
    bits = 8 - round(magnitude / ((_MAGNITUDES - 1) / 4))
    still, nearest = [0, 0], InterpolationMode.NEAREST
    corner = [0, 0]  # the centre of a shear, as in torchvision
    return [
        None,
        lambda x, sign: tvf.affine(x, 0, still, 1.0, [sign * slope, 0.0], nearest, center=corner),
        lambda x, sign: tvf.affine(x, 0, still, 1.0, [0.0, sign * slope], nearest, center=corner),
        lambda x, sign: tvf.affine(x, 0, [int(sign * shift_x), 0], 1.0, [0.0, 0.0], nearest),
        lambda x, sign: tvf.affine(x, 0, [0, int(sign * shift_y)], 1.0, [0.0, 0.0], nearest),
        lambda x, sign: tvf.rotate(x, sign * turn, nearest),
        lambda x, sign: tvf.adjust_brightness(x, 1 + sign * blend),
        lambda x, sign: tvf.adjust_saturation(x, 1 + sign * blend),
        lambda x, sign: tvf.adjust_contrast(x, 1 + sign * blend),
        lambda x, sign: tvf.adjust_sharpness(x, 1 + sign * blend),
        lambda x, _: tvf.posterize(x, bits),
        lambda x, _: tvf.solarize(x, (1 - part) * 255),
        lambda x, _: tvf.autocontrast(x),
        lambda x, _: tvf.equalize(x),
    ]
