"""Changes of colour and texture: jitter, solarize, blur, erasing, normalisation.

Jitter, blur and erasing differ in strength from image to image, which torchvision's kernels do not take: they are written here
for a whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hf_accel.config.augmentation import ColorJitter
from hf_accel.transforms.geometry import Boxes

_GREY = (0.2989, 0.587, 0.114)  # weights of torchvision and ITU-R 601


def as_planes(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 or (B, 3, H, W) float32 -> (B, 3, H, W) float32, levels 0..255."""
    return images if images.is_floating_point() else images.permute(0, 3, 1, 2).to(torch.float32)


def jitter(images: Tensor, draws: Tensor, strengths: ColorJitter) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order for every image (torchvision draws the order).

    Args:
        images: (B, 3, H, W) float32, levels 0..255.
        draws: (B, 4) in [0, 1).
        strengths: the changes' strengths, as in torchvision's ColorJitter.
    """
    changes = ((brightness, strengths.brightness), (contrast, strengths.contrast), (saturation, strengths.saturation))
    for column, (change, strength) in enumerate(changes):
        if strength:
            low = max(0.0, 1 - strength)
            images = change(images, low + draws[:, column] * (1 + strength - low))
    if strengths.hue:
        images = hue(images, (2 * draws[:, 3] - 1) * strengths.hue)
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor[:, None, None, None]).clamp_(0, 255)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, grey(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the colour circle by (B,) parts of a full turn; brightness (the largest channel) and saturation stay."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    spread = value - low
    safe = spread.clamp(min=1e-6)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sextant = (sextant + 6 * turn[:, None, None]) % 6
    # each channel is a trapezium over the colour circle, shifted by a third of a turn
    channels = [(((sextant + shift) % 6) - 3).abs().sub_(1).clamp_(0, 1) for shift in (0, 4, 2)]
    return torch.stack([low + spread * channel for channel in channels], 1)


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)"""
    return images[:, :1] * _GREY[0] + images[:, 1:2] * _GREY[1] + images[:, 2:] * _GREY[2]


def solarize(images: Tensor, threshold: float) -> Tensor:
    return torch.where(images >= threshold, 255 - images, images)


def blur(images: Tensor, sigmas: Tensor, kernel_size: int) -> Tensor:
    """torchvision's `gaussian_blur` with a standard deviation for each image.

    Args:
        images: (B, 3, H, W) float32.
        sigmas: (B,) in pixels.
        kernel_size: odd; a kernel that is larger than twice the image is made smaller.
    """
    num, channels, height, width = images.shape
    half = min(kernel_size // 2, height - 1, width - 1)
    offsets = torch.arange(-half, half + 1, device=images.device)
    weights = torch.softmax(-0.5 * (offsets / sigmas[:, None]) ** 2, 1).repeat_interleave(channels, 0)  # (B * 3, taps)
    padded = functional.pad(images, (half, half, half, half), mode="reflect").reshape(
        1, num * channels, -1, width + 2 * half
    )
    lines = functional.conv2d(padded, weights[:, None, None], groups=num * channels)
    return functional.conv2d(lines, weights[:, None, :, None], groups=num * channels).view(images.shape)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, factor[:, None, None, None]).clamp_(0, 255)


def erase(images: Tensor, boxes: Boxes, erased: Tensor, colour: Tensor | None = None) -> Tensor:
    """Give a box one colour (3,), in the rows where `erased` (B,) is True.

    None is 0, the mean colour of a normalised image.
    """
    mask = box_mask(boxes, *images.shape[2:]) * erased[:, None, None, None]
    images.mul_(1 - mask)
    return images if colour is None else images.add_(mask * colour[:, None, None])


def box_mask(boxes: Boxes, height: int, width: int) -> Tensor:
    """(B, 1, height, width) float32, 1 inside the boxes; products, because masks of bool do not vectorise on a CPU."""
    y, x = torch.arange(height, device=boxes.top.device), torch.arange(width, device=boxes.top.device)
    in_y = (y >= boxes.top[:, None]) & (y < (boxes.top + boxes.height)[:, None])
    in_x = (x >= boxes.left[:, None]) & (x < (boxes.left + boxes.width)[:, None])
    return (in_y.to(torch.float32)[:, :, None] * in_x.to(torch.float32)[:, None])[:, None]


def normalise(images: Tensor, scale: Tensor, shift: Tensor, channels_last: bool) -> Tensor:
    """Levels 0..255 -> `levels * scale + shift`.

    Args:
        images: (B, H, W, 3) uint8 or (B, 3, H, W) float32 (overwritten).
        scale, shift: (3,) float32.
    Returns:
        (B, 3, H, W) float32, contiguous or channels_last.
    """
    if images.is_floating_point():
        images = images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    elif channels_last:
        images = images.to(torch.float32).permute(0, 3, 1, 2)
    else:
        images = images.permute(0, 3, 1, 2).contiguous().to(torch.float32)  # bytes are reordered faster than floats
    lines, scale, shift = _side_by_side(images, channels_last, scale, shift)
    lines.mul_(scale).add_(shift)
    return images


def clamp_overshoot(images: Tensor, scale: Tensor, shift: Tensor, channels_last: bool) -> Tensor:
    """Keep a bicubic resize of normalised images, (B, 3, H, W) float32, within the levels 0..255; in place."""
    lines, low, high = _side_by_side(images, channels_last, shift, 255 * scale + shift)
    torch.minimum(torch.maximum(lines, low, out=lines), high, out=lines)
    return images


def _side_by_side(images: Tensor, channels_last: bool, *by_channel: Tensor) -> tuple[Tensor, ...]:
    """A view of images with (3,) tensors that broadcast over it; an inner axis of 3 would not vectorise."""
    if channels_last:
        width = images.shape[3]
        return images.permute(0, 2, 3, 1).flatten(2), *(values.repeat(width) for values in by_channel)  # (B, H, W * 3)
    return images, *(values[:, None, None] for values in by_channel)
