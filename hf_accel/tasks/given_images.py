"""The images that a Python caller gives to `hf_accel.predict`, in any form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hf_accel.data.given_rows import as_picture, is_prepared
from hf_accel.data.listing import load_images
from hf_accel.errors import UserError
from hf_accel.tasks.image_scoring import pixels_of


def single_images(images: Any) -> Iterator[Any]:
    """Each image alone; files as `Path`, URLs as text."""
    if isinstance(images, str | Path):
        yield from load_images([str(images)])
    elif isinstance(images, PIL.Image.Image | bytes):
        yield images
    elif isinstance(images, np.ndarray | Tensor):
        yield from [images] if images.ndim < 4 else images
    elif isinstance(images, Iterable):
        for image in images:
            yield from single_images(image)
    else:
        raise UserError(f"images: of the type {type(images).__name__}, expected paths, PIL images, arrays or tensors")


def picture_of(image: Any, place: int) -> PIL.Image.Image:
    """An image in memory as a picture.

    Args:
        place: its number among the images, for messages.
    """
    where = f"image {place}"
    if is_prepared(image):
        pixels = torch.as_tensor(image).detach().cpu().float()
        low, high = float(pixels.min()), float(pixels.max())
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"{where}: its floating-point pixels reach from {low:.3g} to {high:.3g}, expected 0 to 1. Images that are "
                "normalised already go to the model itself: model(pixel_values=...).logits, or trainer.predict."
            )
        image = (pixels * 255).round().to(torch.uint8)
    if isinstance(image, Path | bytes | str):
        return PIL.Image.fromarray(pixels_of(image))
    return as_picture(image, where).convert("RGB")
