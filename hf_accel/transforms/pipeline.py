"""The transforms of whole batches on the training device: uint8 pixels in, normalised float32 out.

The order is torchvision's and timm's: crop, flip and resize; warps; colour; the chain; RandAugment, TrivialAugment, AugMix;
normalisation; erasing and cutout; mixup or cutmix. Every random number comes from the counter hash of counter_rng.py,
computed on the device, so nothing here depends on how rows were put into batches, and nothing but these three policies
waits for the device.

`flip: alternating` is that of https://github.com/KellerJordan/cifar10-airbench: half of the images are mirrored in the first
epoch, the other half in the next. Measured: ResNet-20, two epochs of CIFAR-10, two seeds: -0.42 points of test accuracy
(-1.31 to +0.47), no measurable effect (benchmarks/README.md).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.inputs.counter_rng import uniform, uniform_pairs
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.sampling import mixes
from hf_accel.transforms.colour import as_planes, clamp_overshoot, erase, normalise
from hf_accel.transforms.geometry import (
    CROP_DRAWS,
    Boxes,
    ModelGeometry,
    draw_boxes,
    draw_crops,
    resample,
    resample_each,
    resize_axis,
    shift_and_flip,
)
from hf_accel.transforms.mixing import beta_quantiles, mix
from hf_accel.transforms.operations import Operations, choose_rows
from hf_accel.transforms.policies import augmix, augmix_draws, gamma_quantiles, randaugment, trivial_augment

# First draw and number of draws of each part; operations.py has others, between these. Fixed, so that switching one part on
# leaves the others' numbers alone.
_FLIP, _CROP, _ERASE, _MIX = (0, 1), (8, CROP_DRAWS), (64, 1 + CROP_DRAWS), (96, 4)
_RANDAUGMENT, _CUTOUT, _TRIVIAL_AUGMENT, _AUGMIX = 128, (528, 3), (544, 4), 576
_ERASE_SCALE, _ERASE_RATIO = (0.02, 0.33), (0.3, 3.3)  # torchvision's RandomErasing


class TrainTransform:
    """Augmentation of training batches.

    Args:
        augment: the `data.augment:` section of a recipe.
        preprocessing: the model's preprocessing.
        num_labels: the number of classes C, for the soft labels of mixup and cutmix.
        seed: the seed of all random numbers.
        channels_last: memory format of the output.
    """

    def __init__(
        self,
        augment: AugmentSettings,
        preprocessing: Preprocessing,
        num_labels: int,
        seed: int,
        channels_last: bool = False,
    ) -> None:
        self.augment = augment
        self.preprocessing = preprocessing
        self.num_labels = num_labels
        self.seed = seed
        self.channels_last = channels_last
        self.size = (preprocessing.height, preprocessing.width)
        # interpolations without a matrix or a kernel for tensors are replaced by their nearest relative
        smooth = preprocessing.interpolation in ("bicubic", "lanczos")
        self.interpolation = "bicubic" if smooth else "bilinear"
        self._operations = Operations(augment)
        has_policy = any((augment.randaugment, augment.trivial_augment, augment.augmix))
        self._needs_levels = bool(self._operations) or has_policy or preprocessing.bgr
        self._fit = ModelGeometry(preprocessing)
        self._draw_counts = self._needed_draws()
        self._constants = _Constants(preprocessing, self._draw_counts, augment)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Augment a batch of `ImageBatches`, its pixels included, on the device it is on.

        Returns:
            pixel_values: (B, 3, S, S) float32, normalised; S is the batch's `side`, or else the model's.
            labels: (B,) int64, or (B, C) float32 rows that sum to 1 where images are mixed.
        """
        self._constants.move_to(batch["rows"].device)
        epochs = batch["epochs"]
        size = (batch["side"], batch["side"]) if "side" in batch else self.size
        images, draws = self._augment(batch["pixels"], batch.get("sizes"), epochs, batch["rows"], size)
        if not mixes(self.augment):
            return {"pixel_values": images, "labels": batch["labels"]}
        partners, _ = self._augment(
            batch["partner_pixels"], batch.get("partner_sizes"), epochs, batch["partner_rows"], size
        )
        images, share = mix(images, partners, draws["mix"], self._constants.mixup, self._constants.cutmix)
        labels = functional.one_hot(batch["labels"], self.num_labels) * share[:, None]
        labels = labels + functional.one_hot(batch["partner_labels"], self.num_labels) * (1 - share[:, None])
        return {"pixel_values": images, "labels": labels}

    def _needed_draws(self) -> dict[str, tuple[int, int]]:
        augment = self.augment
        needed = {
            "flip": _FLIP if augment.flip else None,
            "crop": {"none": None, "pad": (_CROP[0], 2), "random_resized": _CROP}[augment.crop],
            **self._operations.spans,
            "randaugment": (_RANDAUGMENT, 2 * augment.randaugment.num_ops) if augment.randaugment else None,
            "trivial_augment": _TRIVIAL_AUGMENT if augment.trivial_augment else None,
            "augmix": (_AUGMIX, augmix_draws(augment.augmix) + 1) if augment.augmix else None,
            "cutout": _CUTOUT if augment.cutout else None,
            "erase": _ERASE if augment.random_erasing else None,
            "mix": _MIX if mixes(augment) else None,
        }
        return {name: span for name, span in needed.items() if span is not None}

    def _augment(
        self, pixels: Tensor, sizes: Tensor | None, epochs: Tensor, rows: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Everything but mixing: (B, 3, *size) float32, normalised, and the draws of each part, (B, n) each."""
        augment = self.augment
        numbers = uniform(self.seed, epochs[:, None], rows[:, None], self._constants.draw_ids)
        spans = self._draw_counts
        draws = dict(zip(spans, numbers.split([count for _, count in spans.values()], dim=1), strict=True))
        flip = self._flip(draws.get("flip"), epochs, rows)
        if augment.crop == "random_resized":
            images, is_normalised = self._random_resized_crop(pixels, sizes, flip, draws["crop"], size)
        else:
            images, is_normalised = self._fixed_crop(pixels, sizes, flip, draws.get("crop")), False
            if size != self.size:
                images = functional.interpolate(as_planes(images), size, mode="bilinear", antialias=True)
        if self._operations:
            images = self._operations(as_planes(images), draws, partial(self._noise, epochs, rows))
        images = self._policies(images, draws)
        if not is_normalised:
            images = _finish(images, self.preprocessing, self._constants, self.channels_last)
        return self._erased(images, draws), draws

    def _noise(self, epochs: Tensor, rows: Tensor, first_draw: int, size: tuple[int, int]) -> Tensor:
        """(B, 2, *size) in [0, 1)."""
        pixels = torch.arange(first_draw, first_draw + size[0] * size[1], device=rows.device)
        return uniform_pairs(self.seed, epochs[:, None], rows[:, None], pixels).unflatten(2, size)

    def _policies(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        augment = self.augment
        if augment.randaugment:
            images = randaugment(as_planes(images), draws["randaugment"], augment.randaugment)
        if augment.trivial_augment:
            images, drawn = as_planes(images), draws["trivial_augment"]
            changed = trivial_augment(images, drawn[:, :-1], augment.trivial_augment)
            images = choose_rows(drawn[:, -1] < augment.trivial_augment.p, changed, images)
        if augment.augmix:
            images, drawn = as_planes(images), draws["augmix"]
            changed = augmix(images, drawn[:, :-1], augment.augmix, self._constants.gammas)
            images = choose_rows(drawn[:, -1] < augment.augmix.p, changed, images)
        return images

    def _erased(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Normalised images after random erasing and cutout."""
        augment = self.augment
        height, width = (images.new_full((len(images),), side) for side in images.shape[2:])
        if augment.random_erasing:
            boxes, fits = draw_boxes(draws["erase"][:, 1:], height, width, _ERASE_SCALE, _ERASE_RATIO)
            # torchvision leaves an image alone when no proposal fits
            images = erase(images, boxes, fits & (draws["erase"][:, 0] < augment.random_erasing))
        if augment.cutout:
            y, x, chance = draws["cutout"].unbind(1)
            side = torch.full_like(height, max(1, round(augment.cutout.size * min(images.shape[2:]))))
            half = (side / 2).floor()
            boxes = Boxes((y * height).floor() - half, (x * width).floor() - half, side, side)
            black = self._constants.shift if augment.cutout.fill == "zero" else None
            images = erase(images, boxes, chance < augment.cutout.p, black)
        return images

    def _flip(self, draws: Tensor | None, epochs: Tensor, rows: Tensor) -> Tensor:
        if draws is None:
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        if self.augment.flip == "alternating":
            half = uniform(self.seed, 0, rows, _FLIP[0]) < 0.5
            return half ^ (epochs % 2).bool()
        return draws[:, 0] < 0.5

    def _random_resized_crop(
        self, pixels: Tensor, sizes: Tensor | None, flip: Tensor, draws: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, bool]:
        """The images, and whether they are normalised already."""
        source = pixels.shape[1:3]
        if sizes is None:
            heights, widths = draws.new_full((len(pixels),), source[0]), draws.new_full((len(pixels),), source[1])
        else:
            heights, widths = sizes.to(torch.float32).unbind(1)
        boxes = draw_crops(draws, heights, widths, self.augment.scale, self.augment.ratio)
        if pixels.device.type == "cpu" and (source[0] > size[0] or source[1] > size[1]):
            return resample_each(pixels, boxes, flip, size, self.interpolation), False
        vertical = resize_axis(boxes.top, boxes.height, source[0], size[0], self.interpolation)
        horizontal = resize_axis(boxes.left, boxes.width, source[1], size[1], self.interpolation, flip)
        is_bicubic = self.interpolation == "bicubic"
        if self._needs_levels:
            images = resample(pixels, vertical, horizontal, self.channels_last)
            return images.clamp_(0, 255) if is_bicubic else images, False
        # linear, and the weights sum to 1: normalising the small source gives the same, for less
        affine = (self._constants.scale, self._constants.shift)
        images = resample(pixels, vertical, horizontal, self.channels_last, affine)
        return clamp_overshoot(images, *affine, self.channels_last) if is_bicubic else images, True

    def _fixed_crop(self, pixels: Tensor, sizes: Tensor | None, flip: Tensor, draws: Tensor | None) -> Tensor:
        if sizes is not None:
            raise ValueError(
                "images of different sizes reached a transform without random_resized crops; expected pixels from "
                "open_training_pixels, which keeps them in the model's geometry"
            )
        augment = self.augment
        if draws is not None:
            offset = (draws * (2 * augment.pad + 1)).long() - augment.pad
            pixels = shift_and_flip(pixels, flip, (offset[:, 0], offset[:, 1]), augment.pad_mode == "reflect")
        elif augment.flip:
            pixels = shift_and_flip(pixels, flip)
        return self._fit(pixels, self.channels_last)


class EvalTransform:
    """What the model's own processor does, for whole batches on the device.

    Args:
        preprocessing: the model's preprocessing.
        channels_last: memory format of the output.
    """

    def __init__(self, preprocessing: Preprocessing, channels_last: bool = False) -> None:
        self.preprocessing = preprocessing
        self.channels_last = channels_last
        self._fit = ModelGeometry(preprocessing)
        self._constants = _Constants(preprocessing, {}, AugmentSettings())

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch of `ImageBatches` -> pixel_values (B, 3, S, S) float32, and labels where the batch has them."""
        pixels = batch["pixels"]
        self._constants.move_to(pixels.device)
        images = self._fit(pixels, self.channels_last)
        images = _finish(images, self.preprocessing, self._constants, self.channels_last)
        return {"pixel_values": images} | {key: batch[key] for key in ("labels",) if key in batch}


class _Constants:
    """Small tensors, moved to the device once: a copy at every step would make the host wait."""

    def __init__(
        self, preprocessing: Preprocessing, spans: dict[str, tuple[int, int]], augment: AugmentSettings
    ) -> None:
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.draw_ids = torch.cat(
            [torch.zeros(0, dtype=torch.int64), *(torch.arange(start, start + n) for start, n in spans.values())]
        )
        self.scale = 1 / (255 * std)
        self.shift = -mean / std
        self.mixup = beta_quantiles(augment.mixup)
        self.cutmix = beta_quantiles(augment.cutmix)
        self.gammas = gamma_quantiles(augment.augmix.alpha if augment.augmix else 1.0)
        self.device = torch.device("cpu")

    def move_to(self, device: torch.device) -> None:
        if device != self.device:
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(device))
            self.device = device


def _finish(images: Tensor, preprocessing: Preprocessing, constants: _Constants, channels_last: bool) -> Tensor:
    if preprocessing.bgr:
        images = images.flip(1 if images.is_floating_point() else 3)
    return normalise(images, constants.scale, constants.shift, channels_last)
