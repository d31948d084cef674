"""Pictures that look the same are found, whatever their files are."""

import io

import numpy as np
import PIL.Image

from hf_accel.data.near_duplicates import near_pairs, thumbnail
from tests.support.data_sets import picture


def pixels(image: PIL.Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def test_copies_are_found_whatever_was_done_to_their_files():
    original = picture(1, (320, 240))
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=40)
    copies = [
        original,
        original.resize((100, 75)),
        original.point(lambda level: int(0.8 * level)),
        PIL.Image.open(buffer),
    ]
    others = [picture(seed) for seed in (2, 3)]
    pairs = near_pairs(np.stack([thumbnail(pixels(image)) for image in [*copies, *others]]))
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_pairs_are_found_across_the_blocks_of_the_comparison(monkeypatch):
    monkeypatch.setattr("hf_accel.data.near_duplicates._BLOCK", 2)
    seeds = (0, 1, 2, 1, 3, 0, 0)
    pairs = near_pairs(np.stack([thumbnail(pixels(picture(seed))) for seed in seeds]))
    assert pairs.tolist() == [[0, 5], [0, 6], [1, 3], [5, 6]]
    assert near_pairs(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 2)


def test_pictures_of_one_colour_are_not_taken_for_each_other():
    flat = [PIL.Image.new("RGB", (20, 20), colour) for colour in ("black", "white", "gray")]
    assert len(near_pairs(np.stack([thumbnail(pixels(image)) for image in flat]))) == 0
