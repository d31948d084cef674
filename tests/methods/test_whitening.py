"""The fixed whitening stem."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.methods.whitening import patch_moments, whiten_stem, whitening_filters
from hf_accel.training.build import build_trainer
from tests.support.image_splits import make_split

SIDE = 12
PREPROCESSING = Preprocessing(SIDE, SIDE, (SIDE, SIDE), "bilinear", mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def smooth():
    """60 images whose neighbouring pixels are alike, as in photographs, and the split of them."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 60, (60, 4, 4, 3)).repeat(3, axis=1).repeat(3, axis=2)
    images = np.clip(128 + coarse + rng.normal(0, 15, coarse.shape), 0, 255).astype(np.uint8)
    return images, make_split(list(images))


def normalised(images):
    return ((torch.from_numpy(images).permute(0, 3, 1, 2) / 255) - 0.5) / 0.25


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 1), (4, 4)])
def test_the_outputs_of_the_stem_are_uncorrelated_and_of_variance_one(smooth, kernel, stride):
    images, split = smooth
    directions = 3 * kernel**2
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2 * directions, kernel, stride), nn.ReLU())
    note = whiten_stem(model, split, PREPROCESSING)
    stem = model[0]
    outputs = nn.functional.conv2d(normalised(images), stem.weight, stride=stride)
    first = outputs[:, :directions].movedim(1, -1).reshape(-1, directions)
    covariance = torch.cov(first.T)
    torch.testing.assert_close(covariance, torch.eye(directions), rtol=0, atol=0.05)
    torch.testing.assert_close(outputs[:, directions:], -outputs[:, :directions])
    assert not stem.weight.requires_grad
    assert stem.bias.requires_grad
    assert f"{2 * directions} of {2 * directions} filters" in note


def test_the_largest_directions_are_kept_where_there_is_no_room_for_all(smooth):
    _, split = smooth
    model = nn.Sequential(nn.Conv2d(3, 9, 3))
    random = model[0].weight[-1].clone()
    whiten_stem(model, split, PREPROCESSING)
    moments = patch_moments(split, np.arange(60), PREPROCESSING, model[0])
    expected = whitening_filters(moments)[:4].float()
    torch.testing.assert_close(model[0].weight[:8], torch.cat([expected, -expected]))
    assert torch.equal(model[0].weight[-1], random)
    variances = torch.linalg.eigvalsh(moments.reshape(27, 27)).flip(0)
    gains = expected.flatten(1).norm(dim=1)
    torch.testing.assert_close(gains, (variances[:4] + 5e-4).rsqrt().float())


def test_every_process_finds_the_same_filters(smooth):
    _, split = smooth
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Conv2d(3, 24, 2)
        whiten_stem(model, split, PREPROCESSING)
        weights.append(model.weight)
    assert torch.equal(*weights)


def test_a_model_without_such_a_convolution_is_refused(smooth):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(3, 3))
    with pytest.raises(UserError, match=r"model\.whiten_stem: Sequential has no convolution"):
        whiten_stem(model, smooth[1], PREPROCESSING)


@pytest.mark.slow
def test_it_is_one_line_of_a_recipe_and_any_optimizer_leaves_the_stem_alone(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"model": {"whiten_stem": True, "channels_last": True}}))
    weight = trainer.model.timm_model.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    before = weight.detach().clone()
    torch.testing.assert_close(before[:2], -before[2:])
    trainer.train()
    assert torch.equal(weight, before)
    assert any("filters whiten patches of 3 x 3 pixels (19 training images)" in note for note in trainer.notes)
