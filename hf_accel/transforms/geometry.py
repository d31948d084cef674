"""Crop, flip and resize of a whole batch, each image in its own way.

Interpolation is linear and separable, so a crop with its resize and flip is one weighted sum of columns and one of rows.
An enlargement has two or four terms, which `embedding_bag` adds on a CPU in 45 us per image for 32 -> 224 pixels, where
matrix products take 150, one `interpolate` per image 170 and `grid_sample` 230 (one core of an AMD EPYC 9005). Large
photographs on a CPU are resized by one `interpolate` per image (0.23 ms; products 2.3 ms). An accelerator multiplies
matrices, whatever the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hf_accel.inputs.preprocessing import Preprocessing

CROP_TRIES = 10  # proposals, of which the first that fits into the image is taken, as in torchvision
CROP_DRAWS = 2 * CROP_TRIES + 2


class Boxes(NamedTuple):
    """One rectangle per image, (B,) float32 each, in whole pixels."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_boxes(
    draws: Tensor, heights: Tensor, widths: Tensor, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Boxes, Tensor]:
    """Rectangles of random area and aspect ratio, distributed as torchvision's RandomResizedCrop draws them.

    Args:
        draws: (B, CROP_DRAWS) in [0, 1).
        heights, widths: (B,) float32, the sizes of the images.
        scale: bounds of the area, as a share of the image.
        ratio: bounds of width / height, drawn on a logarithmic scale.
    Returns:
        The boxes, and (B,) bool: whether one of the proposals fitted. Where none did, the box is meaningless.
    """
    areas = (heights * widths)[:, None] * torch.lerp(*_bounds(draws, scale), draws[:, :CROP_TRIES])
    log_ratio = [math.log(r) for r in ratio]
    ratios = torch.lerp(*_bounds(draws, log_ratio), draws[:, CROP_TRIES:-2]).exp()
    box_widths, box_heights = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (box_widths <= widths[:, None]) & (box_heights <= heights[:, None]) & (box_widths > 0) & (box_heights > 0)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    width, height = box_widths.gather(1, first)[:, 0], box_heights.gather(1, first)[:, 0]
    top, left = (draws[:, -2] * (heights - height + 1)).floor(), (draws[:, -1] * (widths - width + 1)).floor()
    return Boxes(top, left, height, width), fits.any(1)


def draw_crops(draws: Tensor, heights: Tensor, widths: Tensor, scale: Sequence[float], ratio: Sequence[float]) -> Boxes:
    """Boxes of a random-resized crop; where no proposal fitted, the largest centred one of an allowed ratio."""
    boxes, fits = draw_boxes(draws, heights, widths, scale, ratio)
    width = torch.minimum(widths, (heights * ratio[1]).round())
    height = torch.minimum(heights, (widths / ratio[0]).round())
    centred = Boxes(((heights - height) / 2).floor(), ((widths - width) / 2).floor(), height, width)
    return Boxes(*(torch.where(fits, box, fallback) for box, fallback in zip(boxes, centred, strict=True)))


def _bounds(like: Tensor, bounds: Sequence[float]) -> tuple[Tensor, Tensor]:
    return like.new_full((), bounds[0]), like.new_full((), bounds[1])


class Axis(NamedTuple):
    """How the pixels of a resized axis are summed from those of the source."""

    weights: Tensor  # (B, target, terms) float32, or of 1 for all images; every row sums to 1
    sources: Tensor | None  # (B, target, terms) int64, the pixels that are summed; None: every pixel of the source


def resize_axis(
    start: Tensor,
    length: Tensor,
    source: int,
    target: int,
    interpolation: str,
    flip: Tensor | None = None,
) -> Axis:
    """Resize a part of an axis, antialiased, as Pillow and torchvision define it.

    Args:
        start, length: (B,) float32, the part of the axis; what lies outside has weight 0.
        source, target: pixels of the axis before and after.
        interpolation: bilinear or bicubic.
        flip: (B,) bool, mirrored where True.
    """
    scale = (length / target)[:, None]
    position = (torch.arange(target, device=start.device) + 0.5) * scale  # (B, target)
    if flip is not None:
        position = torch.where(flip[:, None], length[:, None] - position, position)
    centre = (position + start[:, None])[:, :, None]
    kernel, terms = _FILTERS[interpolation]
    index = None
    if start.device.type == "cpu" and source <= target:
        index = (centre - 0.5).floor() + torch.arange(1 - terms // 2, 1 + terms // 2)
        pixel = index + 0.5
    else:
        pixel = torch.arange(source, device=start.device) + 0.5
    weights = kernel((pixel - centre).div_(scale.clamp(min=1)[:, :, None]).abs_())
    first = start[:, None, None]
    weights.mul_((pixel > first) & (pixel < first + length[:, None, None]))
    weights.div_(weights.sum(-1, keepdim=True))
    return Axis(weights, None if index is None else index.long().clamp_(0, source - 1))


def _triangle(x: Tensor) -> Tensor:
    return x.neg_().add_(1).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, in truncated powers: branches would take three times as long."""
    outer = x.neg_().add_(2).clamp_(min=0)
    inner = (outer - 1).clamp_(min=0)
    return (outer - 1).mul_(outer).mul_(outer).mul_(0.5).add_((1 - 2 * inner).mul_(inner).mul_(inner))


_FILTERS = {"bilinear": (_triangle, 2), "bicubic": (_cubic, 4)}  # and the terms of an enlargement


def resample(
    pixels: Tensor,
    vertical: Axis,
    horizontal: Axis,
    channels_last: bool,
    affine: tuple[Tensor, Tensor] | None = None,
    rounded: bool = False,
) -> Tensor:
    """Resize both axes.

    Args:
        pixels: (B, h, w, C) uint8.
        vertical, horizontal: from `resize_axis`, to H and W pixels.
        channels_last: memory format of the result.
        affine: scale and shift, (C,) each, applied to the levels; done on the smaller side of the resize.
        rounded: round to whole levels after each axis, as an 8-bit resize does.
    Returns:
        (B, C, H, W) float32, levels 0..255 (beyond them by a bicubic overshoot unless `rounded`).
    """
    num, height, _, channels = pixels.shape
    columns = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)  # (B, w, C, h)
    if affine is not None:
        columns = columns.mul_(affine[0][:, None]).add_(affine[1][:, None])
    narrow = _sum_rows(columns.flatten(2)[:, None], horizontal).view(num, -1, channels, height)  # (B, W, C, h)
    if rounded:
        narrow = narrow.add_(0.5).floor_().clamp_(0, 255)
    if channels_last:
        rows = narrow.permute(0, 3, 1, 2).reshape(num, 1, height, -1)  # (B, 1, h, W * C)
        resized = _sum_rows(rows, vertical).unflatten(3, (-1, channels))[:, 0].permute(0, 3, 1, 2)
    else:
        resized = _sum_rows(narrow.permute(0, 2, 3, 1).contiguous(), vertical)
    return resized.add_(0.5).floor_().clamp_(0, 255) if rounded else resized


def _sum_rows(rows: Tensor, axis: Axis) -> Tensor:
    """(B, G, n, d) contiguous -> (B, G, target, d): each new row is a weighted sum of the n rows of its group."""
    num, groups, height, depth = rows.shape
    weights = axis.weights[:, None]
    if axis.sources is None:
        return torch.matmul(weights, rows)
    group = torch.arange(num * groups).view(num, groups, 1, 1)
    index = axis.sources[:, None] + group * height  # (B, G, target, terms)
    return functional.embedding_bag(
        index.flatten(0, 2),
        rows.reshape(-1, depth),
        per_sample_weights=weights.expand(index.shape).flatten(0, 2),
        mode="sum",
    ).view(num, groups, -1, depth)


def resample_each(pixels: Tensor, boxes: Boxes, flip: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Crop and resize one image after the other, on a CPU.

    Args:
        pixels: (B, h, w, C) uint8.
        flip: (B,) bool.
    Returns:
        (B, H, W, C) uint8.
    """
    out = torch.empty(len(pixels), *size, pixels.shape[3], dtype=torch.uint8)
    corners = torch.stack(boxes, 1).int().tolist()
    for image, (top, left, height, width), mirrored, target in zip(pixels, corners, flip.tolist(), out, strict=True):
        part = image[top : top + height, left : left + width].permute(2, 0, 1)[None]
        resized = functional.interpolate(part, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0)
        target.copy_(resized.flip(1) if mirrored else resized)
    return out


def shift_and_flip(
    pixels: Tensor, flip: Tensor, move: tuple[Tensor, Tensor] | None = None, reflect: bool = True
) -> Tensor:
    """Move the window of each image by whole pixels and mirror it.

    Args:
        pixels: (B, h, w, C) uint8.
        flip: (B,) bool.
        move: (B,) int64 each, how far the window moves down and right; None: it stays.
        reflect: the uncovered pixels are reflections of the image; False: they are black.
    Returns:
        (B, h, w, C) uint8.
    """
    num, height, width = pixels.shape[:3]
    y = torch.arange(height, device=pixels.device).expand(num, height)
    x = torch.arange(width, device=pixels.device).expand(num, width)
    x = torch.where(flip[:, None], width - 1 - x, x)
    if move is not None:
        down, right = move
        y, x = y + down[:, None], x + right[:, None]
        covered = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
        y, x = _reflected(y, height), _reflected(x, width)
    image = torch.arange(num, device=pixels.device)[:, None, None]
    index = (image * height + y[:, :, None]) * width + x[:, None]
    # 4 times faster on a CPU than indexing with three tensors
    moved = pixels.reshape(-1, pixels.shape[3]).index_select(0, index.flatten()).view(pixels.shape)
    return moved if move is None or reflect else moved * covered[..., None]


def _reflected(position: Tensor, size: int) -> Tensor:
    last = size - 1
    return (last - (last - position.abs()).abs()).clamp(0, last)


class ModelGeometry:
    """The model's resize and crop, for pixels that are kept at their own small size."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._axes: dict[tuple[int, int, torch.device], tuple[Axis, Axis]] = {}

    def __call__(self, pixels: Tensor, channels_last: bool) -> Tensor:
        """(B, h, w, C) uint8 -> the same where it has the model's size, else (B, C, H, W) float32 in whole levels."""
        height, width = pixels.shape[1:3]
        if (height, width) == (self.preprocessing.height, self.preprocessing.width):
            return pixels
        key = (height, width, pixels.device)
        if key not in self._axes:
            self._axes[key] = self._make_axes(*key)
        return resample(pixels, *self._axes[key], channels_last, rounded=True)

    def _make_axes(self, height: int, width: int, device: torch.device) -> tuple[Axis, Axis]:
        to = self.preprocessing
        resized = to.resized(height, width)
        offset = to.crop_offset(*resized)
        axes = []
        for source, target, start, length in zip((height, width), resized, offset, (to.height, to.width), strict=True):
            whole = torch.tensor([0.0, float(source)], device=device)
            weights, sources = resize_axis(whole[:1], whole[1:], source, target, to.interpolation)
            if to.resizer == "torchvision":
                weights = _as_16_bit(weights)
            kept = slice(start, start + length)
            axes.append(Axis(weights[:, kept], None if sources is None else sources[:, kept]))
        return axes[0], axes[1]


def _as_16_bit(weights: Tensor) -> Tensor:
    """Round to the 16-bit integers of torch's 8-bit resize: products with whole levels are then exact, as its are."""
    largest = float(weights.max())
    bits = next(bits for bits in range(22, 0, -1) if int(0.5 + largest * 2**bits) < 2**15)
    return (weights * 2**bits).round_() / 2**bits
