"""RandAugment, TrivialAugment and AugMix: policies that draw operations, and their strengths, for each image.

The images of a batch that drew the same operation, strength and sign go through torchvision's own kernel together.

Source: torchvision.transforms.v2, and https://arxiv.org/abs/1909.13719 (RandAugment), https://arxiv.org/abs/2103.10158
(TrivialAugment), https://arxiv.org/abs/1912.02781 (AugMix).
Recipe: `data: {augment: {trivial_augment: {}}}`.
Measured: ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds: RandAugment +2.5 points of test accuracy (-40.8 to
+45.8) at 0.89 times the images/s (0.60 to 1.30), TrivialAugment -7.9 (-13.7 to -2.0) at 0.87 (0.87 to 0.88), AugMix +0.9 (-22.3
to +24.1) at 0.61 (0.42 to 0.88).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import scipy.special
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from hf_accel.config.augmentation import AugMix, RandAugment, TrivialAugment

Operation = Callable[[Tensor], Tensor]

_ALL = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
        "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize")  # fmt: skip
_OF_AUGMIX = tuple(name for name in _ALL if name != "Identity")
_RANDAUGMENT_BINS, _AUGMIX_BINS = 31, 10
_DEEPEST = 3  # operations of a chain of AugMix whose depth is drawn
_QUANTILES = 4096


class _Strongest(NamedTuple):
    """The strongest form of each operation of a policy; the strengths go linearly from none to it."""

    blend: float  # of brightness, colour, contrast and sharpness: the factor is 1 plus or minus this
    turn: float  # degrees
    shear: float  # tangent
    shift: tuple[float, float]  # pixels in x and y
    bits: tuple[int, int]  # of a posterized level, without strength and in the strongest form
    interpolation: InterpolationMode = InterpolationMode.NEAREST


def randaugment(images: Tensor, draws: Tensor, settings: RandAugment) -> Tensor:
    """RandAugment with torchvision's operations and strengths.

    On an accelerator this and the other policies wait for the device, to learn which images drew which operation.

    Args:
        images: (B, 3, H, W) float32, levels 0..255.
        draws: (B, 2 * num_ops) in [0, 1): operation and sign of each round.
    Returns:
        (B, 3, H, W) float32, whole levels.
    """
    height, width = images.shape[2:]
    strongest = _Strongest(0.9, 30.0, 0.3, (150 / 331 * width, 150 / 331 * height), (8, 4))
    operations = _operations(_ALL, strongest, _RANDAUGMENT_BINS, (settings.magnitude,))
    picks = (draws[:, 0::2] * len(_ALL)).long() * 2 + (draws[:, 1::2] < 0.5)  # (B, num_ops)
    return _in_turn(_as_bytes(images), picks, operations).to(torch.float32)


def trivial_augment(images: Tensor, draws: Tensor, settings: TrivialAugment) -> Tensor:
    """TrivialAugment (wide): one operation of a random strength; as `randaugment`, with draws (B, 3)."""
    bins = settings.num_magnitude_bins
    strongest = _Strongest(0.99, 135.0, 0.99, (32.0, 32.0), (8, 2))
    operations = _operations(_ALL, strongest, bins, range(bins))
    return _in_turn(_as_bytes(images), _picks(draws, len(_ALL), bins), operations).to(torch.float32)


def augmix_draws(settings: AugMix) -> int:
    """How many draws `augmix` takes: the shares, and for each chain its depth and three for each operation."""
    return 2 + settings.mixture_width * (2 + 3 * (settings.chain_depth or _DEEPEST))


def augmix(images: Tensor, draws: Tensor, settings: AugMix, gammas: Tensor) -> Tensor:
    """AugMix: a mixture of the image and of chains of operations on it; as `randaugment`.

    Args:
        draws: (B, augmix_draws(settings)) in [0, 1).
        gammas: `gamma_quantiles(settings.alpha)`.
    """
    height, width = images.shape[2:]
    strongest = _Strongest(0.9, 30.0, 0.3, (width / 3, height / 3), (4, 0), InterpolationMode.BILINEAR)
    operations = _operations(_OF_AUGMIX, strongest, _AUGMIX_BINS, range(settings.severity))
    chains, deepest = settings.mixture_width, settings.chain_depth or _DEEPEST
    of_image, of_chains, depths, picked = draws.split([2, chains, chains, 3 * chains * deepest], dim=1)
    image_share, rest = _dirichlet(of_image, gammas).unbind(1)
    shares = _dirichlet(of_chains, gammas) * rest[:, None]  # (B, chains)
    picks = _picks(picked, len(_OF_AUGMIX), settings.severity).view(len(images), chains, deepest)
    if settings.chain_depth is None:
        depth = (depths * _DEEPEST).long() + 1
        is_beyond = torch.arange(deepest, device=draws.device) >= depth[:, :, None]
        picks = picks.masked_fill(is_beyond, len(operations) - 1)
    pixels = _as_bytes(images)
    mixture = pixels * image_share[:, None, None, None]
    for chain in range(chains):
        mixture += _in_turn(pixels, picks[:, chain], operations) * shares[:, chain, None, None, None]
    return mixture.floor_()


def gamma_quantiles(alpha: float) -> Tensor:
    """(4096,) float32: quantiles of the Gamma distribution of this shape, whose shares are Dirichlet's and Beta's."""
    return torch.from_numpy(scipy.special.gammaincinv(alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)).float()


def _dirichlet(draws: Tensor, gammas: Tensor) -> Tensor:
    """(B, n) in [0, 1) -> (B, n) shares that sum to 1."""
    parts = gammas[(draws * _QUANTILES).long()].clamp(min=1e-30)  # for a small alpha a quantile may be 0
    return parts / parts.sum(1, keepdim=True)


def _as_bytes(images: Tensor) -> Tensor:
    return images.round().to(torch.uint8, memory_format=torch.contiguous_format)


def _picks(draws: Tensor, num_operations: int, num_strengths: int) -> Tensor:
    """Draws of operation, strength and sign, (B, 3 * n) -> places in `_operations`, (B, n)."""
    operation = (draws[:, 0::3] * num_operations).long()
    strength = (draws[:, 1::3] * num_strengths).long()
    return (operation * num_strengths + strength) * 2 + (draws[:, 2::3] < 0.5)


def _in_turn(images: Tensor, picks: Tensor, operations: Sequence[Operation | None]) -> Tensor:
    """Apply the operations at the places (B, rounds), round by round, to images (B, 3, H, W) uint8."""
    images = images.clone()
    counts = functional.one_hot(picks, len(operations)).sum(0).tolist()
    for picked, rows_each in zip(picks.t(), counts, strict=True):
        for operation, rows in zip(operations, picked.argsort(stable=True).split(rows_each), strict=True):
            if len(rows) and operation is not None:
                images[rows] = operation(images[rows])
    return images


@lru_cache(maxsize=16)
def _operations(
    names: Sequence[str], strongest: _Strongest, bins: int, magnitudes: Sequence[int]
) -> list[Operation | None]:
    """Every operation in each of these strengths, positive and negative, and at the end one that changes nothing."""
    every = [
        _operation(name, partial(_strength, bins, magnitude), sign, strongest)
        for name in names
        for magnitude in magnitudes
        for sign in (1.0, -1.0)
    ]
    return [*every, None]


def _strength(bins: int, magnitude: int, first: float, last: float) -> float:
    return float(torch.linspace(first, last, bins)[magnitude])


def _operation(
    name: str, strength: Callable[[float, float], float], sign: float, strongest: _Strongest
) -> Operation | None:
    """An operation of torchvision's policies on (n, 3, H, W) uint8."""
    factor, turn = 1 + sign * strength(0, strongest.blend), sign * strength(0, strongest.turn)
    slope = sign * math.degrees(math.atan(strength(0, strongest.shear)))
    x, y = (int(sign * strength(0, shift)) for shift in strongest.shift)
    bits, threshold = round(strength(*strongest.bits)), 255 * strength(1, 0)
    sampling, still, corner = strongest.interpolation, [0, 0], [0, 0]  # the corner is the centre of a shear
    kernels: dict[str, Operation | None] = {
        "Identity": None,
        "ShearX": lambda image: tvf.affine(image, 0, still, 1.0, [slope, 0.0], sampling, center=corner),
        "ShearY": lambda image: tvf.affine(image, 0, still, 1.0, [0.0, slope], sampling, center=corner),
        "TranslateX": lambda image: tvf.affine(image, 0, [x, 0], 1.0, [0.0, 0.0], sampling),
        "TranslateY": lambda image: tvf.affine(image, 0, [0, y], 1.0, [0.0, 0.0], sampling),
        "Rotate": lambda image: tvf.rotate(image, turn, sampling),
        "Brightness": lambda image: tvf.adjust_brightness(image, factor),
        "Color": lambda image: tvf.adjust_saturation(image, factor),
        "Contrast": lambda image: tvf.adjust_contrast(image, factor),
        "Sharpness": lambda image: tvf.adjust_sharpness(image, factor),
        "Posterize": lambda image: tvf.posterize(image, bits),
        "Solarize": lambda image: tvf.solarize(image, threshold),
        "AutoContrast": tvf.autocontrast,
        "Equalize": tvf.equalize,
    }
    return kernels[name]
