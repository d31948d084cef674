"""Geometric changes against torchvision: pixels at fixed parameters, and the spread of the random ones."""

import pytest
import scipy.stats
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tvf

from hf_accel.config.augmentation import Affine, Perspective, Rotation
from hf_accel.inputs.counter_rng import uniform
from hf_accel.transforms.warps import (
    affine_maps,
    affines,
    displacements,
    draw_corners,
    perspective_maps,
    rotations,
    warp,
)
from tests.support.image_splits import one_thread  # noqa: F401

SIZES = [(32, 32), (24, 40)]
BILINEAR = InterpolationMode.BILINEAR
COUNT = 2000


def made(size, count=2, seed=0) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 255


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)  # of 255 levels


def draws(number) -> torch.Tensor:
    return uniform(0, torch.tensor(0), torch.arange(COUNT)[:, None], torch.arange(number))


@pytest.mark.parametrize("size", SIZES)
def test_an_affine_map_equals_torchvision(size):
    images = made(size)
    maps = affine_maps(
        torch.tensor([30.0, -70.0]),
        (torch.tensor([3.0, -5.0]), torch.tensor([-2.0, 4.0])),
        torch.tensor([1.2, 0.7]),
        (torch.tensor([10.0, -20.0]), torch.tensor([5.0, 30.0])),
        size,
    )
    theirs = [
        tvf.affine(images[0], 30.0, [3, -2], 1.2, [10.0, 5.0], BILINEAR),
        tvf.affine(images[1], -70.0, [-5, 4], 0.7, [-20.0, 30.0], BILINEAR),
    ]
    same(warp(images, [maps]), torch.stack(theirs))


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_equals_torchvision(size):
    images = made(size)
    maps = rotations(torch.tensor([[0.75], [0.1]]), Rotation(degrees=60), size)
    theirs = [tvf.rotate(images[0], 30.0, BILINEAR), tvf.rotate(images[1], -48.0, BILINEAR)]
    same(warp(images, [maps]), torch.stack(theirs))


@pytest.mark.parametrize("size", SIZES)
def test_a_perspective_equals_torchvision(size):
    images, (height, width) = made(size), size
    right, bottom = width - 1, height - 1
    start = [[0, 0], [right, 0], [right, bottom], [0, bottom]]
    ends = [[[3, 4], [right - 4, 2], [right - 1, bottom - 3], [1, bottom - 2]], start]
    theirs = [tvf.perspective(image, start, end, BILINEAR) for image, end in zip(images, ends, strict=True)]
    same(warp(images, [perspective_maps(torch.tensor(ends, dtype=torch.float32), size)]), torch.stack(theirs))


@pytest.mark.parametrize("sigma", [0.8, 3.0])
@pytest.mark.parametrize("size", SIZES)
def test_an_elastic_displacement_equals_torchvision(size, sigma):
    images, (height, width) = made(size), size
    noise = torch.rand(2, 2, height, width, generator=torch.Generator().manual_seed(1))
    kernel = int(8 * sigma + 1) // 2 * 2 + 1
    smooth = tvf.gaussian_blur(noise * 2 - 1, [kernel, kernel], [sigma, sigma])
    theirs = torch.stack([smooth[:, 0] * 50 / width, smooth[:, 1] * 50 / height], 3)
    expected = [
        tvf.elastic(image, displacement[None], BILINEAR) for image, displacement in zip(images, theirs, strict=True)
    ]
    same(warp(images, [displacements(noise, 50.0, sigma)]), torch.stack(expected))


def test_a_kernel_larger_than_the_image_is_cut():
    assert displacements(torch.rand(1, 2, 8, 12), 50.0, 20.0).isfinite().all()


def test_operations_that_follow_one_another_are_one_resampling():
    images = made((32, 32))
    still = torch.zeros(2)

    def turned(degrees, shift=0.0):
        moved = (still + shift, still)
        return affine_maps(still + degrees, moved, still + 1, (still, still), (32, 32))

    back_and_forth = warp(images, [turned(30.0), turned(-30.0)])
    inside = (slice(None), slice(None), slice(6, 26), slice(6, 26))
    torch.testing.assert_close(back_and_forth[inside], images[inside], atol=0.05, rtol=0)
    # first the rotation, then the shift: torchvision's affine has this order
    both = warp(images, [turned(30.0), turned(0.0, 5.0)])
    same(both, tvf.affine(images, 30.0, [5, 0], 1.0, [0.0, 0.0], BILINEAR))
    # what one operation moves out of the image the next brings back
    torch.testing.assert_close(warp(images, [turned(0.0, 10.0), turned(0.0, -10.0)]), images, atol=0.05, rtol=0)


@pytest.mark.parametrize("elastic_first", [True, False])
def test_an_elastic_displacement_is_composed_in_the_order_given(elastic_first):
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    images = torch.stack([100 + 50 * (x / 9).sin(), 100 + 50 * (y / 9).cos(), 3 * x]).expand(2, 3, 48, 48)
    turn = rotations(torch.full((2, 1), 0.9), Rotation(degrees=40), (48, 48))
    push = displacements(torch.rand(2, 2, 48, 48, generator=torch.Generator().manual_seed(0)), 60.0, 4.0)
    maps = [push, turn] if elastic_first else [turn, push]
    one_by_one = warp(warp(images, maps[:1]), maps[1:])
    inside = (slice(None), slice(None), slice(14, 34), slice(14, 34))
    torch.testing.assert_close(warp(images, maps)[inside], one_by_one[inside], atol=1.0, rtol=0)
    other = warp(images, maps[::-1])[inside]
    assert (other - one_by_one[inside]).abs().max() > 4


def test_corners_that_coincide_give_black_and_no_nan():
    corners = torch.tensor([[[5.0, 5.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]])
    assert warp(made((16, 16), 1), [perspective_maps(corners, (16, 16))]).isfinite().all()


def spread_alike(ours, theirs):
    assert scipy.stats.ks_2samp(ours.double().numpy(), theirs.double().numpy()).pvalue > 1e-3


def drawn_by(transform, size) -> list[dict]:
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    return [transform.make_params([image]) for _ in range(COUNT)]


@pytest.mark.parametrize("degrees", [40, [-10, 60]])
def test_angles_are_spread_as_those_of_torchvision(degrees):
    maps = rotations(draws(1), Rotation(degrees=degrees), (32, 32))
    ours = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0]))
    theirs = torch.tensor([params["angle"] for params in drawn_by(v2.RandomRotation(degrees), (32, 32))])
    spread_alike(ours, theirs)


@pytest.mark.parametrize("shear", [20, [-10, 30], [-10, 30, 5, 25]])
def test_affine_maps_are_spread_as_those_of_torchvision(shear):
    size, options = (24, 40), {"degrees": 30, "translate": [0.2, 0.4], "scale": [0.6, 1.4], "shear": shear}
    ours = affines(draws(6), Affine(**options), size).flatten(1)[:, :6]
    parameters = drawn_by(v2.RandomAffine(**options), size)
    columns = [
        torch.tensor([params[name] for params in parameters]) for name in ("angle", "translate", "scale", "shear")
    ]
    theirs = affine_maps(columns[0], columns[1].float().unbind(1), columns[2], columns[3].unbind(1), size).flatten(1)
    for place in range(6):
        spread_alike(ours[:, place], theirs[:, place])


@pytest.mark.parametrize("distortion_scale", [0.2, 0.7])
def test_corners_are_spread_as_those_of_torchvision(distortion_scale):
    size = (24, 41)
    ours = draw_corners(draws(8), distortion_scale, size)
    torch.manual_seed(0)
    theirs = perspective_corners(v2.RandomPerspective(distortion_scale), size)
    for corner in range(4):
        for axis in range(2):
            spread_alike(ours[:, corner, axis], theirs[:, corner, axis])


def perspective_corners(transform, size) -> torch.Tensor:
    """Where torchvision moves the corners: it gives coefficients, which map them back to the corners of the image."""
    right, bottom = size[1] - 1, size[0] - 1
    start = torch.tensor([[0.0, 0, 1], [right, 0, 1], [right, bottom, 1], [0, bottom, 1]], dtype=torch.float64).t()
    coefficients = torch.tensor(
        [[*params["coefficients"], 1.0] for params in drawn_by(transform, size)], dtype=torch.float64
    ).view(-1, 3, 3)
    ends = torch.linalg.solve(coefficients, start)
    return (ends[:, :2] / ends[:, 2:]).transpose(1, 2).round()


def test_the_corners_that_are_drawn_are_within_the_image():
    corners = draw_corners(draws(8), Perspective(distortion_scale=1.0).distortion_scale, (9, 16))
    assert corners.amin((0, 1)).tolist() == [0, 0]
    assert corners.amax((0, 1)).tolist() == [15, 8]
