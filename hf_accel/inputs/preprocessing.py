"""What a model's own image processor does to an image, read off the processor and checked against it.

Processors of transformers say what they do in attributes that each class may interpret in its own way. So the reading
below is only a proposal: it is compared with the processor on probe images, and where the two differ the processor itself
is called for every image, which is slower but right. Mean and std are not read but measured, for the same reason
(EfficientNet's divides by std twice).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from hf_accel.errors import UserError
from hf_accel.inputs.processors import (
    channels_of,
    is_timm,
    over_channels,
    run_processor,
    with_channels,
    with_image_size,
)

if TYPE_CHECKING:  # a spawned DataLoader worker imports this file, and transformers takes seconds
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

logger = logging.getLogger(__name__)

MAX_LEVELS_OFF = 2  # of 255; PIL and torchvision round differently by one, bicubic in a few pixels of a million by two
MOST_ENLARGED = 8  # times the pixels of the crop: a longer strip would take gigabytes, so its crop is made alone
_RESAMPLING = {r.name.lower(): r for r in PIL.Image.Resampling}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of one model."""

    height: int  # of the model's input, pixels
    width: int
    resize: int | tuple[int, int] | None  # short side, or (height, width) whatever the aspect ratio
    interpolation: str  # Pillow's name: bilinear, bicubic, ...
    mean: tuple[float, ...]  # of each channel, on the scale 0..1, in the order of the output's channels
    std: tuple[float, ...]
    resizer: str = "pillow"  # or torchvision: bicubic differs by up to 10 levels in strong contrast
    crop_rounds: bool = False  # a crop that cannot be central: torchvision rounds its offset, transformers truncates it
    bgr: bool = False  # the model wants blue first
    pad: tuple[int, ...] | None = None  # the colour around an image that fits into `resize`, which is then a pair
    processor: BaseImageProcessor | None = None  # set when only calling the processor gives the right pixels

    @classmethod
    def of(cls, processor: BaseImageProcessor, image_size: int | None = None, closest: bool = False) -> Preprocessing:
        """Read a processor.

        Args:
            processor: any image processor of transformers that makes images of one size, timm's wrapper included.
            image_size: side in pixels of a square input that replaces the processor's own.
            closest: resize with the library whose pixels are the closest to the processor's, Pillow if both are. False: with
                torchvision, which is 5 to 10 times faster, where that stays within `MAX_LEVELS_OFF`.
        Raises:
            UserError: the images it makes differ in size, or its normalisation depends on the image.
        """
        channels = channels_of(processor)
        if channels != 3:
            return cls.of(with_channels(processor, 3), image_size, closest).of_channels(channels)
        if image_size is not None:
            processor = with_image_size(processor, image_size)
        measured = _measure(processor)
        plain = cls(**measured, resize=None, interpolation="bilinear", processor=processor)
        readings = _read_timm(processor) if is_timm(processor) else _read_transformers(processor)
        candidates = [replace(plain, **fields, processor=None) for fields in readings]
        measured_off = [(candidate._levels_off(processor), candidate) for candidate in candidates]
        near = [(off, candidate) for off, candidate in measured_off if off <= MAX_LEVELS_OFF]
        if near:  # torchvision's is the first, Pillow's the last
            return min(reversed(near), key=lambda pair: pair[0])[1] if closest else near[0][1]
        logger.warning(
            "%s does something this package does not read: it is called for every evaluation image, which makes the "
            "first pass over them slower",
            type(processor).__name__,
        )
        return plain

    def of_channels(self, channels: int) -> Preprocessing:
        """The same for images of another number of channels.

        Raises:
            UserError: it is known for colour images only.
        """
        others = channels not in (1, 3)  # Pillow has no such images, or takes a channel for transparency
        if self.processor is not None or self.bgr or (others and "torchvision" not in _resizers(self.interpolation)):
            raise UserError(
                f"data.channels: images of {channels} channels cannot be prepared as this model prepares colour images. Choose "
                "another model, for example one of timm."
            )
        return replace(
            self,
            mean=over_channels(self.mean, channels),
            std=over_channels(self.std, channels),
            pad=None if self.pad is None else tuple(map(round, over_channels(self.pad, channels))),
            resizer="torchvision" if others else self.resizer,
        )

    @property
    def channels(self) -> int:
        """Of the model's input."""
        return len(self.mean)

    @property
    def key(self) -> str:
        """Names the pixels that `apply` makes, for the file name of a cache."""
        if self.processor is not None:
            settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
            return f"processor-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
        pad = "" if self.pad is None else f"-pad {self.pad}"
        return f"{self.resize}-{self.height}x{self.width}-{self.crop_rounds}-{self.interpolation}-{self.resizer}{pad}"

    @property
    def target_side(self) -> int | None:
        """What an image's short side is shrunk to, pixels, for `decode_image`; None: only the processor knows."""
        return max(self.resize) if isinstance(self.resize, tuple) else self.resize

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size an image has after `resize`, before the crop."""
        if isinstance(self.resize, tuple):
            return self.resize if self.pad is None else self._fitted(height, width, *self.resize)
        assert self.resize is not None, "the processor itself resizes"
        short, long = sorted((height, width))
        longer = int(self.resize * long / short)
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def _fitted(self, height: int, width: int, most_height: int, most_width: int) -> tuple[int, int]:
        """The largest size of an image's shape within these bounds, rounded as the library does it."""
        if self.crop_rounds:  # timm
            ratio = max(height / most_height, width / most_width)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        scale = min(most_height / height, most_width / width)
        return max(1, int(height * scale)), max(1, int(width * scale))

    def crop_offset(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the centre crop in an image that `resized` gives."""
        top, left = (height - self.height) / 2, (width - self.width) / 2
        return (round(top), round(left)) if self.crop_rounds else (int(top), int(left))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 -> (height, width, C) uint8: everything but the normalisation."""
        if self.processor is not None:
            return self._undo(run_processor(self.processor, image))
        height, width = self.resized(*image.shape[:2])
        top, left = self.crop_offset(height, width)
        is_strip = self.channels in (1, 3) and height * width > MOST_ENLARGED * self.height * self.width
        if (is_strip or self.resizer == "pillow") and min(top, left) >= 0 and image.shape[:2] != (height, width):
            box = (top, left, self.height, self.width)
            return resize_part(image, (height, width), box, self.interpolation)
        image = resize_image(image, height, width, self.interpolation, self.resizer)
        image = image[max(top, 0) : max(top, 0) + self.height, max(left, 0) : max(left, 0) + self.width]
        return image if self.pad is None else self._padded(image, self.pad)

    def _padded(self, image: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
        """An image of at most the model's size, in the middle of a plane of this colour."""
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width):
            return image
        plane = np.full((self.height, self.width, self.channels), colour, np.uint8)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        plane[top : top + height, left : left + width] = image
        return plane

    def pixel_values(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (3, height, width) float32, normalised, in the order of channels that the model takes."""
        pixels = self.apply(image)
        levels = (pixels[..., ::-1] if self.bgr else pixels).astype(np.float32) / 255
        return ((levels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)).transpose(2, 0, 1)

    def _undo(self, pixel_values: np.ndarray) -> np.ndarray:
        """(3, H, W) float32, normalised -> (H, W, 3) uint8, RGB."""
        levels = pixel_values.transpose(1, 2, 0) * np.array(self.std, np.float32) + np.array(self.mean, np.float32)
        levels = np.clip(np.rint(levels * 255), 0, 255).astype(np.uint8)
        return levels[..., ::-1] if self.bgr else levels

    def _levels_off(self, processor: BaseImageProcessor) -> int:
        """Largest difference from the processor over the probe images, in levels of 255."""
        if self.pad is None and min(self.resized(64, 64)) < min(self.height, self.width):
            return 255  # the crop pads, which `apply` does not do
        probes = _probes(self.resize if isinstance(self.resize, int) else self.height)
        return max(
            int(np.abs(self._undo(run_processor(processor, p)).astype(np.int16) - self.apply(p)).max()) for p in probes
        )


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str, resizer: str = "pillow") -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3) uint8, antialiased."""
    if image.shape[:2] == (height, width):
        return image
    if resizer == "pillow":
        return _channelled(as_pillow(image).resize((width, height), _RESAMPLING[interpolation]))
    import torch  # here: an exported model is scored without it
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tvf

    pixels = torch.from_numpy(image).permute(2, 0, 1)
    resized = tvf.resize(pixels, [height, width], InterpolationMode(interpolation), antialias=True)
    return resized.permute(1, 2, 0).numpy()


def resize_part(
    image: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int], interpolation: str
) -> np.ndarray:
    """A part of what `resize_image` gives, without making the rest: to within two levels, where the filter is smooth.

    Args:
        image: (H, W, 3) uint8.
        size: height and width of the whole resized image.
        box: top, left, height and width of the part, in pixels of the resized image.
    Returns:
        (height, width, 3) uint8.
    """
    (top, bottom), rows = _source_part(image.shape[0], size[0], box[0], box[2])
    (left, right), columns = _source_part(image.shape[1], size[1], box[1], box[3])
    pixels = as_pillow(np.ascontiguousarray(image[rows, columns]))
    filtered = _RESAMPLING[interpolation]
    return _channelled(pixels.resize((box[3], box[2]), filtered, box=(left, top, right, bottom)))


def as_pillow(image: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _channelled(image: PIL.Image.Image) -> np.ndarray:
    """(H, W, C) uint8."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _source_part(source: int, target: int, start: int, length: int) -> tuple[tuple[float, float], slice]:
    """For one axis: the ends, within a slice of the source, of what becomes a part of the resized image; and the slice."""
    scale = source / target
    first, last = start * scale, min((start + length) * scale, source)
    if 2 * length > target:
        return (first, last), slice(None)  # not worth a copy
    margin = 4 * max(scale, 1)  # the widest filter reaches 3 pixels of the coarser side
    cut = max(0, math.floor(first - margin))
    return (first - cut, last - cut), slice(cut, min(source, math.ceil(last + margin)))


def _measure(processor: BaseImageProcessor) -> dict[str, Any]:
    """Output size, mean, std and order of channels, from what the processor makes of images of one colour."""
    plain_images = ((0, (96, 96, 3)), (255, (96, 160, 3)), (128, (160, 96, 3)), ((255, 0, 0), (96, 96, 3)))
    outputs = [run_processor(processor, np.full(shape, colour, np.uint8)) for colour, shape in plain_images]
    name = type(processor).__name__
    sizes = {output.shape[1:] for output in outputs}
    if len(sizes) > 1:
        raise UserError(
            f"{name}: its images differ in size ({', '.join(f'{h} x {w}' for h, w in sorted(sizes))}), expected one "
            "fixed size. Set a crop_size, or a size with height and width, in preprocessor_config.json."
        )
    ((height, width),) = sizes
    black, white, grey, red = (output[:, height // 2, width // 2].astype(np.float64) for output in outputs)
    span = white - black
    if (span <= 0).any() or np.abs(black + span * (128 / 255) - grey).max() > 1e-3 * span.max():
        raise UserError(
            f"{name}: its normalisation depends on the image, expected one mean and std for all. Such a model cannot be "
            "fine-tuned here."
        )
    return {
        "height": height,
        "width": width,
        "mean": tuple((0.0 - black / span).round(7).tolist()),
        "std": tuple((1 / span).round(7).tolist()),
        "bgr": bool(red[2] > (black[2] + white[2]) / 2),
    }


def _read_transformers(processor: BaseImageProcessor) -> list[dict[str, Any]]:
    settings = processor.to_dict()
    size = dict(settings.get("size") or {})
    if not settings.get("do_resize") or settings.get("do_pad"):
        return []
    pad: dict[str, Any] = {}
    if set(size) == {"height", "width"}:
        resize: int | tuple[int, int] = (size["height"], size["width"])
    elif set(size) == {"max_height", "max_width"} and settings.get("do_center_crop"):
        resize, pad = (size["max_height"], size["max_width"]), {"pad": (0, 0, 0)}
    elif set(size) == {"shortest_edge"}:
        side = size["shortest_edge"]
        resize = side
        if settings.get("crop_pct"):  # ConvNext states the size of the crop, and does not crop from 384 pixels on
            resize = int(side / settings["crop_pct"]) if side < 384 else (side, side)
    else:
        return []
    interpolation = PIL.Image.Resampling(int(settings["resample"])).name.lower()
    return [{"resize": resize, "interpolation": interpolation, "resizer": r, **pad} for r in _resizers(interpolation)]


def _resizers(interpolation: str) -> tuple[str, ...]:
    """The libraries that have it, the fastest first."""
    return ("torchvision", "pillow") if interpolation in ("bilinear", "bicubic") else ("pillow",)


def _read_timm(processor: TimmWrapperImageProcessor) -> list[dict[str, Any]]:
    steps = {type(step).__name__: step for step in processor.val_transforms.transforms}
    step, pad = steps.pop("Resize", None), {}
    crop = steps.pop("CenterCrop" if step is not None else "CenterCropOrPad", None)
    if step is None:
        step = steps.pop("ResizeKeepRatio", None)
        if step is None or crop is None or step.longest != 1:
            return []
        fill = crop.fill if isinstance(crop.fill, list | tuple) else [crop.fill] * 3
        pad = {"pad": tuple(fill)}
    if not set(steps) <= {"MaybeToTensor", "ToTensor", "Normalize"}:
        return []
    sides = (step.size,) if isinstance(step.size, int) else tuple(step.size)
    resize = sides[0] if len(sides) == 1 else sides
    interpolation = step.interpolation.value
    return [
        {"resize": resize, "interpolation": interpolation, "resizer": resizer, "crop_rounds": True, **pad}
        for resizer in _resizers(interpolation)
    ]


def _probes(side: int) -> list[np.ndarray]:
    """Noise images: not resized with every remainder of the crop, shrunk, enlarged, high, wide."""
    shapes = [(side, side + spare) for spare in (1, 2, 3, 4, 5)] + [(side + 3, side), (side + 5, side)]
    shapes += [(300, 412), (517, 333), (32, 32), (40, 61)]
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in shapes]
