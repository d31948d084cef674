"""Crop, flip and resize against torchvision and Pillow at fixed parameters, and the spread of the random ones."""

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from hf_accel.inputs.counter_rng import uniform
from hf_accel.transforms.geometry import (
    CROP_DRAWS,
    Boxes,
    draw_boxes,
    draw_crops,
    resample,
    resample_each,
    resize_axis,
    shift_and_flip,
)
from tests.support.image_splits import noise, one_thread  # noqa: F401

BOXES = Boxes(*torch.tensor([[3.0, 0, 10], [5, 0, 1], [20, 32, 7], [9, 32, 30]]))  # top, left, height, width of three
FLIP = torch.tensor([False, False, True])
MODES = ["bilinear", "bicubic"]


def expected_crops(pixels: torch.Tensor, boxes: Boxes, flip: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    crops = []
    for image, flipped, *box in zip(
        pixels.permute(0, 3, 1, 2), flip, *(side.int().tolist() for side in boxes), strict=True
    ):
        crop = tvf.resized_crop(image, *box, [size, size], InterpolationMode(mode), antialias=True)
        crops.append(tvf.horizontal_flip(crop) if flipped else crop)
    return torch.stack(crops)


@pytest.mark.parametrize("size", [96, 12], ids=["enlarged", "shrunk"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_matrix_resampling_equals_torchvision(mode, channels_last, size):
    pixels = torch.from_numpy(np.stack(noise((32, 40), (32, 40), (32, 40))))
    vertical = resize_axis(BOXES.top, BOXES.height, 32, size, mode)
    horizontal = resize_axis(BOXES.left, BOXES.width, 40, size, mode, FLIP)
    ours = resample(pixels, vertical, horizontal, channels_last)
    torch.testing.assert_close(ours, expected_crops(pixels.float(), BOXES, FLIP, size, mode), atol=2e-3, rtol=0)
    assert ours.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("mode", MODES)
def test_an_affine_change_of_levels_commutes_with_resampling(mode):
    pixels = torch.from_numpy(np.stack(noise((32, 32), (32, 32), (32, 32))))
    weights = [
        resize_axis(BOXES.top, BOXES.height, 32, 50, mode),
        resize_axis(BOXES.left, BOXES.width, 32, 50, mode),
    ]
    scale, shift = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.0, -3.0])
    before = resample(pixels, *weights, False, (scale, shift))
    after = resample(pixels, *weights, False) * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_rounded_resampling_equals_pillow(mode):
    (image,) = noise((30, 24))
    whole = torch.tensor([0.0]), torch.tensor([30.0]), torch.tensor([24.0])
    weights = [resize_axis(whole[0], whole[1], 30, 97, mode), resize_axis(whole[0], whole[2], 24, 61, mode)]
    ours = resample(torch.from_numpy(image)[None], *weights, False, rounded=True)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(
        PIL.Image.fromarray(image).resize((61, 97), PIL.Image.Resampling[mode.upper()]), dtype=np.float32
    )
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.02


@pytest.mark.parametrize("mode", MODES)
def test_one_by_one_resampling_equals_torchvision(mode):
    pixels = torch.from_numpy(np.stack(noise((64, 80), (64, 80), (64, 80))))
    ours = resample_each(pixels, BOXES, FLIP, (48, 48), mode).permute(0, 3, 1, 2)
    assert torch.equal(ours, expected_crops(pixels, BOXES, FLIP, 48, mode))


@pytest.mark.parametrize("reflect", [True, False])
def test_pad_and_crop_equals_torchvision(reflect):
    pixels = torch.from_numpy(np.stack(noise(*[(32, 32)] * 5)))
    down, right = torch.tensor([-4, 0, 4, 2, -1]), torch.tensor([4, 0, -3, -4, 1])
    flip = torch.tensor([True, False, True, False, True])
    ours = shift_and_flip(pixels, flip, (down, right), reflect)
    for image, result, y, x, flipped in zip(pixels.permute(0, 3, 1, 2), ours, down, right, flip, strict=True):
        padded = tvf.pad(image, [4] * 4, padding_mode="reflect" if reflect else "constant")
        window = tvf.crop(padded, 4 + int(y), 4 + int(x), 32, 32)
        assert torch.equal(result.permute(2, 0, 1), tvf.horizontal_flip(window) if flipped else window)


def test_flip_alone_mirrors_the_rows_asked_for():
    pixels = torch.from_numpy(np.stack(noise((6, 9), (6, 9))))
    ours = shift_and_flip(pixels, torch.tensor([True, False]))
    assert torch.equal(ours, torch.stack([pixels[0].flip(1), pixels[1]]))


def test_random_crops_are_spread_as_those_of_torchvision():
    count, height, width = 4000, 60, 100
    draws = uniform(0, torch.tensor(0), torch.arange(count)[:, None], torch.arange(CROP_DRAWS))
    side = torch.ones(count)
    ours = torch.stack(draw_crops(draws, side * height, side * width, (0.08, 1.0), (0.75, 4 / 3)), 1)
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, (0.08, 1.0), (0.75, 4 / 3)) for _ in range(count)]
    ).float()
    for name, a, b in zip(("top", "left", "height", "width"), ours.t(), theirs.t(), strict=True):
        gap = (a.mean() - b.mean()).abs() / ((a.var() + b.var()) / count).sqrt()
        assert gap < 4, name
        quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
        torch.testing.assert_close(a.quantile(quantiles), b.quantile(quantiles), atol=3.0, rtol=0, msg=name)
    top, left, box_height, box_width = ours.t()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


def test_a_crop_that_never_fits_is_the_largest_centred_one():
    draws = uniform(0, torch.tensor(0), torch.arange(8)[:, None], torch.arange(CROP_DRAWS))
    side = torch.ones(8)
    boxes = draw_crops(draws, side * 10, side * 1000, (1.0, 1.0), (0.75, 4 / 3))
    assert torch.stack(boxes, 1).unique(dim=0).tolist() == [[0, 493, 10, 13]]
    assert not draw_boxes(draws, side * 10, side * 1000, (1.0, 1.0), (0.75, 4 / 3))[1].any()
