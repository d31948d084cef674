"""Colour operations and RandAugment against torchvision at fixed parameters."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as tvf

from hf_accel.config.sections import ColorJitter
from hf_accel.transforms import colour
from hf_accel.transforms.geometry import Boxes
from hf_accel.transforms.policies import randaugment
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


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("number", range(14))
def test_randaugment_operations_equal_torchvision(number, magnitude, images):
    reference = RandAugment()
    name, (magnitudes, is_signed) = list(reference._AUGMENTATION_SPACE.items())[number]
    for sign in (1, -1) if is_signed else (1,):
        strengths = magnitudes(31, 16, 20)
        strength = 0.0 if strengths is None else sign * float(strengths[magnitude])
        pixels = images.to(torch.uint8)
        theirs = reference._apply_image_or_video_transform(
            pixels, name, strength, reference.interpolation, reference._fill
        )
        draws = torch.tensor([[(number + 0.5) / 14, 0.75 if sign > 0 else 0.25]]).expand(4, 2)
        off = (randaugment(images, draws, magnitude) - theirs).abs()
        assert off.max() <= 1, (name, sign)  # torchvision keeps strengths as float32
        assert (off > 0).float().mean() < 0.01, (name, sign)


def test_randaugment_treats_an_image_alike_in_any_batch(images):
    draws = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    together = randaugment(images, draws, 9)
    alone = torch.cat([randaugment(images[n : n + 1], draws[n : n + 1], 9) for n in range(4)])
    assert torch.equal(together, alone)


def test_erasing_clears_the_box_of_the_rows_asked_for(images):
    boxes = Boxes(*torch.tensor([[2.0] * 4, [3] * 4, [5] * 4, [6] * 4]))
    erased = colour.erase(images.clone() + 1, boxes, torch.tensor([True, False, True, False]))
    assert (erased[0, :, 2:7, 3:9] == 0).all()
    assert (erased[0] == 0).sum() == 3 * 5 * 6
    assert torch.equal(erased[1], images[1] + 1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalisation_is_the_same_from_bytes_and_from_floats(channels_last, images):
    scale, shift = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.0, -3.0])
    expected = images * scale[:, None, None] + shift[:, None, None]
    for given in (images.clone(), images.permute(0, 2, 3, 1).to(torch.uint8)):
        ours = colour.normalise(given, scale, shift, channels_last)
        torch.testing.assert_close(ours, expected)
        assert ours.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
