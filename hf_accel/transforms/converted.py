"""The input of one model as the input of another, on the training device: what a teacher sees of its student's images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hf_accel.inputs.preprocessing import Preprocessing


class ConvertedInput:
    """The input of one model -> that of another: the same images with the other's normalisation and size.

    Args:
        source, target: the preprocessing of the two models.
    """

    def __init__(self, source: Preprocessing, target: Preprocessing) -> None:
        self.swaps_channels = source.bgr != target.bgr
        self.size = (target.height, target.width)
        self.mode = "bicubic" if target.interpolation in ("bicubic", "lanczos") else "bilinear"
        mean, std = torch.tensor(source.mean), torch.tensor(source.std)
        if self.swaps_channels:
            mean, std = mean.flip(0), std.flip(0)
        other_mean, other_std = torch.tensor(target.mean), torch.tensor(target.std)
        self.scale = (std / other_std)[:, None, None]
        self.shift = ((mean - other_mean) / other_std)[:, None, None]
        self.is_normalised = torch.allclose(mean, other_mean) and torch.allclose(std, other_std)

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) float32 -> (B, 3, height, width) float32."""
        images = pixel_values.flip(1) if self.swaps_channels else pixel_values
        if images.shape[2:] != self.size:
            images = functional.interpolate(images, self.size, mode=self.mode, antialias=True)
        if self.is_normalised:
            return images
        self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        return torch.addcmul(self.shift, images, self.scale)
