"""Image processors of transformers with another size, or for another number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import PIL.Image

from hf_accel.errors import UserError

if TYPE_CHECKING:  # a spawned DataLoader worker imports this file, and transformers takes seconds
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor


def is_timm(processor: BaseImageProcessor) -> TypeGuard[TimmWrapperImageProcessor]:
    return type(processor).__name__ == "TimmWrapperImageProcessor"


def with_image_size(processor: BaseImageProcessor, image_size: int) -> BaseImageProcessor:
    """A processor that makes square images of this side and keeps the share of the image that the crop keeps.

    Raises:
        UserError: the processor has no such setting.
    """
    if run_processor(processor, np.zeros((64, 64, 3), np.uint8)).shape[1:] == (image_size, image_size):
        return processor
    if is_timm(processor):
        config = {**processor.data_config, "input_size": [channels_of(processor), image_size, image_size]}
        architecture: str = processor.architecture  # type: ignore[attr-defined]  # upstream sets it from a keyword
        return type(processor)(pretrained_cfg=config, architecture=architecture)
    settings = processor.to_dict()
    size, square = dict(settings["size"]), {"height": image_size, "width": image_size}
    if settings.get("do_center_crop"):
        crop = dict(settings["crop_size"])
        settings["size"] = {k: round(v * image_size / min(crop.values())) for k, v in size.items()}
        settings["crop_size"] = square
    else:
        settings["size"] = {"shortest_edge": image_size} if "shortest_edge" in size else square
    resized = type(processor).from_dict(settings)
    made = run_processor(resized, np.zeros((64, 64, 3), np.uint8)).shape[1:]
    if made != (image_size, image_size):
        raise UserError(
            f"data.image_size: {type(processor).__name__} made {made[0]} x {made[1]} pixels when asked for {image_size}, "
            "expected a processor with one square size. Leave data.image_size out to use the model's own."
        )
    return resized


def channels_of(processor: BaseImageProcessor) -> int:
    """Channels of the images that a processor is for, by its means."""
    mean = processor.data_config["mean"] if is_timm(processor) else processor.to_dict().get("image_mean")
    return len(mean) if isinstance(mean, list | tuple) else 3


def with_channels(processor: BaseImageProcessor, channels: int) -> BaseImageProcessor:
    """The same processor for images of another number of channels; see `over_channels` for their mean and std."""
    if is_timm(processor):
        config = timm_channels(processor.data_config, channels)
        architecture: str = processor.architecture  # type: ignore[attr-defined]  # upstream sets it from a keyword
        return type(processor)(pretrained_cfg=config, architecture=architecture)
    settings = processor.to_dict()
    levels = {
        name: over_channels(settings[name], channels)
        for name in ("image_mean", "image_std")
        if isinstance(settings.get(name), list | tuple)
    }
    if not levels:
        raise UserError(
            f"data.channels: {type(processor).__name__} does not state a mean and std for each channel, so that it cannot be set "
            "for another number of channels. Choose another model, for example one of timm."
        )
    return type(processor).from_dict({**settings, **levels, "do_convert_rgb": channels == 3 or None})


def timm_channels(config: dict, channels: int) -> dict:
    """The `pretrained_cfg` of a timm model for another number of channels."""
    levels = {name: list(over_channels(config[name], channels)) for name in ("mean", "std") if name in config}
    return {**config, "input_size": [channels, *config["input_size"][1:]], **levels}


def over_channels(levels: Sequence[float], channels: int) -> tuple[float, ...]:
    """A figure of each channel for another number of channels: in turn, as timm repeats weights; for one, the mean.

    >>> over_channels((0.4, 0.5, 0.6), 4), over_channels((0.4, 0.5, 0.6), 1)
    ((0.4, 0.5, 0.6, 0.4), (0.5,))
    """
    if channels == 1:
        return (sum(levels) / len(levels),)
    return tuple(levels[number % len(levels)] for number in range(channels))


def run_processor(processor: BaseImageProcessor, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32, normalised, by the processor itself."""
    return processor([PIL.Image.fromarray(image)], return_tensors="pt")["pixel_values"][0].float().numpy()
