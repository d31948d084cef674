from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.transforms.converted import ConvertedInput

PLAIN = Preprocessing(8, 8, resize=8, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
OTHER = replace(PLAIN, mean=(0.1, 0.2, 0.6), std=(1.0, 0.5, 0.3))


def images_of(preprocessing, side=8):
    """One picture as a model takes it, (1, 3, side, side)."""
    levels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    plain = replace(preprocessing, height=side, width=side, resize=side)
    return torch.from_numpy(plain.pixel_values(levels).copy())[None]


@pytest.mark.parametrize("source", [PLAIN, replace(PLAIN, bgr=True)])
@pytest.mark.parametrize("target", [PLAIN, OTHER, replace(OTHER, bgr=True)])
def test_another_model_sees_the_same_picture_with_its_own_normalisation(source, target):
    seen = ConvertedInput(source, target)(images_of(source))
    torch.testing.assert_close(seen, images_of(target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (6, 12)])
def test_another_model_sees_images_of_its_own_size(size):
    view = ConvertedInput(PLAIN, replace(OTHER, height=size[0], width=size[1]))
    assert view(images_of(PLAIN)).shape == (1, 3, *size)
    black = torch.tensor([(0 - m) / s for m, s in zip(PLAIN.mean, PLAIN.std, strict=True)])[None, :, None, None]
    still_black = torch.tensor([(0 - m) / s for m, s in zip(OTHER.mean, OTHER.std, strict=True)])
    seen = view(black.expand(1, 3, 8, 8))
    torch.testing.assert_close(seen, still_black[None, :, None, None].expand(1, 3, *size), rtol=1e-4, atol=1e-5)
