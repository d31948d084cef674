"""Geometric changes of whole batches, each image in its own way: rotation, affine, perspective and elastic.

An operation is a map from positions in its result to positions in its input. The maps of operations that follow one another
are composed, and the images are sampled once, at the end: detail is lost once, and what one operation moves out of the image
the next can bring back, where torchvision, which samples after each operation, has black. A single operation gives
torchvision's pixels.

A position is (x, y) from the image's centre in halves of its longer side, so that a rotation is one in any aspect ratio.

Source: torchvision.transforms.v2 (RandomRotation, RandomAffine, RandomPerspective, ElasticTransform).
Recipe: `data: {augment: {rotation: {degrees: 15}, elastic: {alpha: 30, p: 0.5}}}`.
Measured: ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds: between -0.6 and +2.0 points of test accuracy, none
beyond chance, at 0.94 to 0.98 times the images/s (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as tvf

from hf_accel.config.augmentation import Affine, Perspective, Rotation

_FAR = 3.0  # a position that is surely outside the image, in the units of grid_sample


def rotations(draws: Tensor, settings: Rotation, size: tuple[int, int]) -> Tensor:
    """The maps of RandomRotation.

    Args:
        draws: (B, 1) in [0, 1).
        size: height and width of the images in pixels.
    Returns:
        (B, 3, 3) float32.
    """
    still = torch.zeros_like(draws[:, 0])
    # as in torchvision, a rotation is counter-clockwise and the angle of an affine map clockwise
    return affine_maps(-_within(draws[:, 0], settings.degrees), (still, still), still + 1, (still, still), size)


def affines(draws: Tensor, settings: Affine, size: tuple[int, int]) -> Tensor:
    """The maps of RandomAffine, (B, 3, 3) float32, from draws (B, 6): angle, shift in x and y, scale, shear in x and y."""
    height, width = size
    farthest = (settings.translate[0] * width, settings.translate[1] * height)
    shift = [_within(draws[:, 1 + axis], farthest[axis]).round() for axis in (0, 1)]
    shear = settings.shear if isinstance(settings.shear, list) else [-settings.shear, settings.shear]
    shear_y = _within(draws[:, 5], shear[2:]) if len(shear) == 4 else torch.zeros_like(draws[:, 5])
    return affine_maps(
        _within(draws[:, 0], settings.degrees),
        (shift[0], shift[1]),
        _within(draws[:, 3], settings.scale),
        (_within(draws[:, 4], shear[:2]), shear_y),
        size,
    )


def affine_maps(
    angle: Tensor, shift: tuple[Tensor, Tensor], scale: Tensor, shear: tuple[Tensor, Tensor], size: tuple[int, int]
) -> Tensor:
    """From the parameters of torchvision's `affine`, (B,) each: degrees, pixels, a factor, degrees. (B, 3, 3) float32."""
    turn, shear_x, shear_y = (torch.deg2rad(degrees) for degrees in (angle, *shear))
    half = max(size) / 2
    a = (turn - shear_y).cos() / shear_y.cos()
    b = -a * shear_x.tan() - turn.sin()
    c = (turn - shear_y).sin() / shear_y.cos()
    d = -c * shear_x.tan() + turn.cos()
    # the inverse; a d - b c is 1
    linear = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / scale[:, None, None]
    moved = -linear @ (torch.stack(shift, 1) / half)[:, :, None]  # the shift is the last thing that is done
    last = torch.stack([torch.zeros_like(turn), torch.zeros_like(turn), torch.ones_like(turn)], 1)
    return torch.cat([torch.cat([linear, moved], 2), last[:, None]], 1)


def perspectives(draws: Tensor, settings: Perspective, size: tuple[int, int]) -> Tensor:
    """The maps of RandomPerspective, (B, 3, 3) float32, from draws (B, 8)."""
    return perspective_maps(draw_corners(draws, settings.distortion_scale, size), size)


def draw_corners(draws: Tensor, distortion_scale: float, size: tuple[int, int]) -> Tensor:
    """Where RandomPerspective moves the corners: (B, 4, 2), whole pixels, clockwise from the top left, (x, y) each."""
    inwards = torch.stack(
        [(draws[:, axis::2] * (int(distortion_scale * (size[1 - axis] // 2)) + 1)).floor() for axis in (0, 1)], 2
    )
    corners = _corners(size, draws.device)
    return torch.where(corners > 0, corners - inwards, inwards)


def perspective_maps(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """The maps that move the corners of an image to these, (B, 4, 2) -> (B, 3, 3) float32."""
    own = _corners(size, corners.device).expand_as(corners)
    u, x = ((ends[..., 0] - size[1] / 2) / (max(size) / 2) for ends in (corners, own))
    v, y = ((ends[..., 1] - size[0] / 2) / (max(size) / 2) for ends in (corners, own))
    one, none = torch.ones_like(u), torch.zeros_like(u)
    of_x = torch.stack([u, v, one, none, none, none, -x * u, -x * v], 2)
    of_y = torch.stack([none, none, none, u, v, one, -y * u, -y * v], 2)
    equations, values = torch.cat([of_x, of_y], 1), torch.cat([x, y], 1)
    solved, _ = torch.linalg.solve_ex(equations, values)  # unlike solve, does not wait for the device
    return torch.cat([solved, one[:, :1]], 1).view(-1, 3, 3)


@lru_cache(maxsize=16)  # as the other constants here: a copy at every step would make the host wait
def _corners(size: tuple[int, int], device: torch.device) -> Tensor:
    bottom, right = size[0] - 1.0, size[1] - 1.0
    return torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]], device=device)


def displacements(noise: Tensor, alpha: float, sigma: float) -> Tensor:
    """The displacements of ElasticTransform: smoothed noise.

    Args:
        noise: (B, 2, H, W) in [0, 1).
        alpha: magnitude.
        sigma: smoothness in pixels.
    Returns:
        (B, 2, H, W) float32.
    """
    height, width = noise.shape[2:]
    smooth = (noise * 2 - 1).transpose(2, 3) @ _blur_matrix(height, sigma, noise.device).t()
    smooth = smooth.transpose(2, 3) @ _blur_matrix(width, sigma, noise.device).t()
    return smooth * (alpha / max(height, width))


@lru_cache(maxsize=16)
def _blur_matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    """torchvision's blur along an axis as a product: 41 x 41 taps per pixel, at the default sigma, take seconds."""
    kernel = min(int(8 * sigma + 1) // 2 * 2 + 1, 2 * size - 1)  # a reflection ends where the image does
    return tvf.gaussian_blur(torch.eye(size)[None], [1, kernel], [sigma, sigma])[0].to(device)


def warp(images: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Apply geometric operations in turn, with one bilinear resampling.

    Args:
        images: (B, 3, H, W) float32.
        maps: of the operations, the first first: (B, 3, 3), or displacements (B, 2, H, W).
    Returns:
        (B, 3, H, W) float32; what lies outside the image is 0.
    """
    size = (images.shape[2], images.shape[3])
    positions, is_grid = _grid(size, images.device), True
    for step in reversed(maps):
        if step.ndim == 3:
            positions = _mapped(step, positions)
        elif is_grid:
            positions = positions + step.permute(0, 2, 3, 1)
        else:
            at = functional.grid_sample(step, _sampled(positions, size), padding_mode="border", align_corners=False)
            positions = positions + at.permute(0, 2, 3, 1)
        is_grid = False
    return functional.grid_sample(images, _sampled(positions, size), align_corners=False)


@lru_cache(maxsize=16)
def _grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """The positions of the pixels' centres, (1, H, W, 2)."""
    y, x = ((torch.arange(n, device=device) + 0.5 - n / 2) / (max(size) / 2) for n in size)
    return torch.stack([x.expand(size), y[:, None].expand(size)], 2)[None]


def _mapped(maps: Tensor, positions: Tensor) -> Tensor:
    """Positions (1 or B, H, W, 2) through the maps (B, 3, 3)."""
    x, y = positions[..., 0], positions[..., 1]
    row = [[part[:, None, None] for part in line.unbind(1)] for line in maps.unbind(1)]
    across, down, depth = (a * x + b * y + c for a, b, c in row)
    return torch.stack([across / depth, down / depth], 3)


def _sampled(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """The same positions as `grid_sample` takes them; corners that coincide have no map, and give NaN."""
    x, y = positions[..., 0] * (max(size) / size[1]), positions[..., 1] * (max(size) / size[0])
    return torch.stack([x, y], 3).nan_to_num_(nan=_FAR).clamp_(-_FAR, _FAR)


def _within(draws: Tensor, bounds: float | Sequence[float]) -> Tensor:
    """Draws in [0, 1) on the scale of the bounds; a number stands for the same to both sides."""
    low, high = bounds if isinstance(bounds, Sequence) else (-bounds, bounds)
    return low + draws * (high - low)
