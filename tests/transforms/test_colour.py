"""Colour operations against torchvision at fixed parameters."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from hf_accel.config.augmentation import ColorJitter
from hf_accel.transforms import colour
from hf_accel.transforms.geometry import Boxes
from tests.support.image_splits import noise, one_thread  # noqa: F401

FACTORS = torch.tensor([0.3, 1.0, 1.7, 0.0])
TURNS = torch.tensor([-0.5, 0.0, 0.1, 0.37])


@pytest.fixture
def images() -> torch.Tensor:
    """(4, 3, 16, 20) float32, whole levels; grey pixels too, where hue is not defined."""
    made = torch.from_numpy(np.stack(noise(*[(16, 20)] * 4))).permute(0, 3, 1, 2).float()
    made[0, :, :4] = made[0, :1, :4]
    return made


CHANGES = [
    (colour.brightness, tvf.adjust_brightness, FACTORS),
    (colour.contrast, tvf.adjust_contrast, FACTORS),
    (colour.saturation, tvf.adjust_saturation, FACTORS),
    (colour.hue, tvf.adjust_hue, TURNS),
]


@pytest.mark.parametrize(("ours", "theirs", "factors"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_colour_changes_equal_torchvision(ours, theirs, factors, images):
    expected = torch.stack([theirs(image / 255, float(f)) * 255 for image, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, atol=2e-3, rtol=0)


def test_jitter_draws_from_the_interval_of_torchvision(images):
    low, high = torch.zeros(4, 4), torch.ones(4, 4)
    for draws, strengths, change, factor in (
        (low, ColorJitter(brightness=0.4), colour.brightness, 0.6),
        (high, ColorJitter(contrast=0.4), colour.contrast, 1.4),
        (low, ColorJitter(saturation=3.0), colour.saturation, 0.0),
        (low, ColorJitter(hue=0.2), colour.hue, -0.2),
    ):
        expected = change(images, torch.full((4,), factor))
        torch.testing.assert_close(colour.jitter(images, draws, strengths), expected, atol=1e-3, rtol=0)
    assert torch.equal(colour.jitter(images, low, ColorJitter()), images)


def test_erasing_clears_the_box_of_the_rows_asked_for(images):
    boxes = Boxes(*torch.tensor([[2.0] * 4, [3] * 4, [5] * 4, [6] * 4]))
    erased = colour.erase(images.clone() + 1, boxes, torch.tensor([True, False, True, False]))
    assert (erased[0, :, 2:7, 3:9] == 0).all()
    assert (erased[0] == 0).sum() == 3 * 5 * 6
    assert torch.equal(erased[1], images[1] + 1)


def test_erasing_gives_a_box_the_colour_asked_for(images):
    boxes = Boxes(*torch.tensor([[2.0] * 4, [-3] * 4, [5] * 4, [6] * 4]))
    erased = colour.erase(
        images.clone(), boxes, torch.tensor([True, False, True, False]), torch.tensor([1.0, 2.0, 3.0])
    )
    assert (erased[2, :, 2:7, :3] == torch.tensor([1.0, 2.0, 3.0])[:, None, None]).all()
    assert torch.equal(erased[2, :, 2:7, 3:], images[2, :, 2:7, 3:])
    assert torch.equal(erased[1], images[1])


@pytest.mark.parametrize("threshold", [0, 100, 255])
def test_solarize_equals_torchvision(threshold, images):
    theirs = tvf.solarize(images.to(torch.uint8), threshold).float()
    assert torch.equal(colour.solarize(images, threshold), theirs)


def test_grey_equals_torchvision(images):
    theirs = tvf.rgb_to_grayscale(images)
    torch.testing.assert_close(colour.grey(images), theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kernel_size", [3, 9])
def test_a_blur_of_its_own_for_each_image_equals_torchvision(kernel_size, images):
    sigmas = torch.tensor([0.1, 0.7, 1.5, 4.0])
    theirs = torch.stack(
        [tvf.gaussian_blur(image, kernel_size, float(sigma)) for image, sigma in zip(images, sigmas, strict=True)]
    )
    torch.testing.assert_close(colour.blur(images, sigmas, kernel_size), theirs, atol=1e-3, rtol=0)


def test_a_kernel_larger_than_the_image_blurs_what_there_is(images):
    blurred = colour.blur(images, torch.full((4,), 50.0), 99)
    assert blurred.isfinite().all()
    assert blurred.std() < 0.2 * images.std()


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalisation_is_the_same_from_bytes_and_from_floats(channels_last, images):
    scale, shift = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.0, -3.0])
    expected = images * scale[:, None, None] + shift[:, None, None]
    for given in (images.clone(), images.permute(0, 2, 3, 1).to(torch.uint8)):
        ours = colour.normalise(given, scale, shift, channels_last)
        torch.testing.assert_close(ours, expected)
        assert ours.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
