"""The operations of `data.augment` that have a probability: alone, in a fixed order, or in a chain, in the order given.

Warps that follow one another are one resampling (transforms/warps.py). Every operation has its own draws, whatever else is on.

Source: torchvision.transforms.v2. Recipe: `data: {augment: {chain: {p: 0.5, operations: [{rotation: {degrees: 15}},
{invert: {}}]}}}`.
Measured: ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds: grayscale (p 0.2) +5.5 points of test accuracy (+5.4 to
+5.6), color_jitter +1.6 (+0.2 to +3.0), the others between -0.8 and +2.2, not beyond chance (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.transforms import colour, warps

Noise = Callable[[int, tuple[int, int]], Tensor]

_ELASTIC = "elastic"
_WARPS: dict[str, tuple[int, Callable[..., Tensor]]] = {  # and the number of their parameters
    "rotation": (1, warps.rotations),
    "affine": (6, warps.affines),
    "perspective": (8, warps.perspectives),
}
_WARP_NAMES = (*_WARPS, _ELASTIC)
_PARAMETERS = {name: number for name, (number, _) in _WARPS.items()} | {"color_jitter": 4, "blur": 1}

# First draws, in the order in which operations that are not in a chain act; the last of an operation's is its probability.
_ALONE = {"rotation": 400, "affine": 416, "perspective": 432, _ELASTIC: 448, "color_jitter": 40, "solarize": 464,
          "invert": 480, "grayscale": 496, "blur": 512}  # fmt: skip
_P_ALONE = {"perspective": 0.5, "solarize": 0.5, "invert": 0.5, "grayscale": 0.1}  # torchvision's, where p is null
_CHAIN, _IN_CHAIN, _DRAWS_EACH = 1024, 1040, 16
_NOISE, _NOISE_EACH = 1 << 22, 1 << 25  # of elastic displacements: one draw per pixel


@dataclass(frozen=True)
class Operation:
    """One operation of a recipe."""

    name: str
    settings: Any  # of config/augmentation.py
    p: float
    first_draw: int
    in_chain: int | None = None  # its place in the chain; None: it is alone

    @property
    def key(self) -> str:
        return self.name if self.in_chain is None else f"chain {self.in_chain} {self.name}"

    @property
    def span(self) -> tuple[int, int]:
        return self.first_draw, _PARAMETERS.get(self.name, 0) + 1

    @property
    def is_warp(self) -> bool:
        return self.name in _WARP_NAMES


class Operations:
    """The operations of a recipe, in their order.

    Attributes:
        spans: the first draw and the number of draws of each part.
    """

    def __init__(self, augment: AugmentSettings) -> None:
        self.operations = [*_alone(augment), *_chained(augment)]
        self.spans = {operation.key: operation.span for operation in self.operations}
        self.chain = augment.chain
        if self.chain is not None:
            self.spans["chain"] = (_CHAIN, 1)

    def __bool__(self) -> bool:
        return bool(self.operations)

    def __call__(self, images: Tensor, draws: dict[str, Tensor], noise: Noise) -> Tensor:
        """Change a batch.

        Args:
            images: (B, 3, H, W) float32, levels 0..255.
            draws: (B, n) in [0, 1) for each of `spans`.
            noise: first draw, (H, W) -> (B, 2, H, W) in [0, 1).
        """
        for are_warps, group in groupby(self.operations, key=lambda operation: operation.is_warp):
            if are_warps:
                images = self._warped(images, list(group), draws, noise)
            else:
                for operation in group:
                    changed = _recoloured(images, operation, draws[operation.key])
                    images = choose_rows(self._applied(operation, draws), changed, images)
        return images

    def _warped(self, images: Tensor, group: list[Operation], draws: dict[str, Tensor], noise: Noise) -> Tensor:
        size = (images.shape[2], images.shape[3])
        maps, any_applied = [], torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for operation in group:
            applied = self._applied(operation, draws)
            if operation.name == _ELASTIC:
                settings = operation.settings
                step = warps.displacements(noise(_first_noise(operation), size), settings.alpha, settings.sigma)
                still = torch.zeros((), device=images.device)
            else:
                step = _WARPS[operation.name][1](draws[operation.key][:, :-1], operation.settings, size)
                still = torch.eye(3, device=images.device)
            maps.append(choose_rows(applied, step, still))
            any_applied = any_applied | applied
        return choose_rows(any_applied, warps.warp(images, maps), images)

    def _applied(self, operation: Operation, draws: dict[str, Tensor]) -> Tensor:
        """(B,) bool: the images that the operation changes."""
        applied = draws[operation.key][:, -1] < operation.p
        if self.chain is None or operation.in_chain is None:
            return applied
        return applied & (draws["chain"][:, 0] < self.chain.p)


def _alone(augment: AugmentSettings) -> Iterator[Operation]:
    for name, first_draw in _ALONE.items():
        settings = getattr(augment, name)
        if settings is not None:
            yield Operation(name, settings, _P_ALONE[name] if settings.p is None else settings.p, first_draw)


def _chained(augment: AugmentSettings) -> Iterator[Operation]:
    for place, chained in enumerate(augment.chain.operations if augment.chain is not None else ()):
        ((name, settings),) = chained.given().items()
        p = 1.0 if settings.p is None else settings.p
        yield Operation(name, settings, p, _IN_CHAIN + place * _DRAWS_EACH, place)


def _first_noise(operation: Operation) -> int:
    return _NOISE + _NOISE_EACH * (0 if operation.in_chain is None else operation.in_chain + 1)


def _recoloured(images: Tensor, operation: Operation, draws: Tensor) -> Tensor:
    settings = operation.settings
    if operation.name == "color_jitter":
        return colour.jitter(images, draws, settings)
    if operation.name == "solarize":
        return colour.solarize(images, settings.threshold)
    if operation.name == "invert":
        return 255 - images
    if operation.name == "grayscale":
        return colour.grey(images).expand_as(images)
    low, high = settings.sigma
    return colour.blur(images, low + draws[:, 0] * (high - low), settings.kernel_size)


def choose_rows(rows: Tensor, changed: Tensor, kept: Tensor) -> Tensor:
    """`changed` in the rows (B,) that are True, `kept` in the others."""
    return torch.where(rows.view(-1, *[1] * (changed.ndim - 1)), changed, kept)
