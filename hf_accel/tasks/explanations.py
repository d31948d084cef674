"""Pictures that show which places of an image speak for the class that a model gives it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hf_accel.data.images import MAX_PIXELS
from hf_accel.models.heat_maps import ExplainedLayer, explained_layer, heat_map
from hf_accel.models.load import LoadedModel
from hf_accel.tasks.image_scoring import ImageSource, Inputs, pixels_of
from hf_accel.tasks.torch_scoring import TorchScorer

OPACITY = 0.65  # of the colour where the heat is greatest
SMALLEST_SIDE = 224  # pixels: smaller images are enlarged, each pixel to a square
_LONGEST_STEM = 60


class Explainer:
    """Draws heat maps over images as the model sees them: resized and cropped.

    Args:
        loaded: the model, which computes on the device that it is on.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._scorer = TorchScorer(loaded)
        self._layer: ExplainedLayer | None = None  # found with the first image

    def picture(self, source: ImageSource, label: int, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the image with the places that speak for a class in bright colours.

        Args:
            label: the number of the class.
            max_pixels: as in `decode_image`.
        Raises:
            UnreadableImageError: the source gives no image.
            UserError: the network has no layer to look at.
        """
        prepared = self._prepared(source, max_pixels)
        inputs = self._scorer.inputs([prepared])
        model = self.loaded.model.eval()
        self._layer = self._layer or explained_layer(model, inputs)
        heat = heat_map(model, self._layer, inputs, label)
        return overlay(seen(prepared, inputs["pixel_values"]), heat.numpy())

    def picture_of_likeliest(self, source: ImageSource) -> np.ndarray:
        """The same for the class that the model gives to the image."""
        (logits,) = self._scorer.score([self._prepared(source, MAX_PIXELS)])
        return self.picture(source, int(logits.argmax()))

    def _prepared(self, source: ImageSource, max_pixels: int | None) -> Inputs:
        return self._scorer.prepare(pixels_of(source, max_pixels, self._scorer.target_side))


def seen(prepared: Inputs, pixel_values: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 RGB: what the model is shown; where only its processor knows, each channel from its least to its most."""
    if "pixels" in prepared:
        return prepared["pixels"][0].numpy()
    image = pixel_values[0].float().cpu().permute(1, 2, 0)
    low, high = image.amin((0, 1)), image.amax((0, 1))
    return ((image - low) / (high - low).clamp(min=1e-6) * 255).round().to(torch.uint8).numpy()


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw heat over an image: where there is none, the image stays as it is.

    Args:
        image: (H, W, 3) uint8.
        heat: (H, W) float in [0, 1].
    Returns:
        (kH, kW, 3) uint8: a small image is enlarged k times.
    """
    from matplotlib import colormaps

    colours = colormaps["plasma"](heat)[..., :3] * 255
    opacity = OPACITY * heat[..., None]
    drawn = (image * (1 - opacity) + colours * opacity).round().astype(np.uint8)
    times = -(-SMALLEST_SIDE // max(drawn.shape[:2]))
    return drawn.repeat(times, 0).repeat(times, 1)


def picture_name(position: int, source: ImageSource, label: str) -> str:
    """The name of a file that shows an explanation: position among the images, name of the image, class.

    >>> picture_name(2, "photos/cat.jpg", "a/b")
    '000002-cat-a_b.png'
    """
    stem = Path(source).stem if isinstance(source, str | Path) else "image"
    parts = (re.sub(r"[^\w.-]+", "_", part)[:_LONGEST_STEM] for part in (stem, label))
    return f"{position:06}-{'-'.join(parts)}.png"


def save_picture(picture: np.ndarray, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture).save(file)
    return file
