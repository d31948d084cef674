"""Rows that a caller's own transform prepares."""

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from transformers.models.bit.image_processing_bit import BitImageProcessor

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import given_split
from hf_accel.errors import UserError
from hf_accel.inputs.prepared import OwnTransforms, PreparedBatches, fixed_draws, prepared_shape
from hf_accel.inputs.preprocessing import Preprocessing
from tests.support.given_rows import NAMES, Rows, pictures, pixels

PROCESSOR = BitImageProcessor(
    size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3
)
PREPROCESSING = Preprocessing.of(PROCESSOR)
NORMALISED = v2.Compose(
    [v2.ToImage(), v2.Resize((12, 12)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
)


def split_of(rows):
    return given_split(rows, DataSettings(name=""), NAMES)


def batches(transform, rows=None, seed=0):
    return PreparedBatches(split_of(rows or pictures()), transform, PREPROCESSING, seed)


def test_a_tensor_of_the_transform_is_what_the_model_is_given():
    batch = batches(NORMALISED).__getitems__([3, 0])
    expected = torch.stack([NORMALISED(pictures()[0][row]) for row in (3, 0)])
    torch.testing.assert_close(batch["pixel_values"], torch.Tensor(expected))
    assert batch["labels"].tolist() == [1, 0]
    assert batch["rows"].tolist() == [3, 0]


@pytest.mark.parametrize("transform", [lambda image: image, np.asarray, v2.ToImage(), v2.RandomHorizontalFlip(0)])
def test_an_image_of_the_transform_goes_through_the_models_preprocessing(transform):
    image = batches(transform).image(0, 5)
    expected = PROCESSOR(pictures()[0][5], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(image, expected, atol=2 / 255 / 0.25, rtol=0)


def test_random_numbers_depend_on_the_seed_the_epoch_and_the_row_alone():
    def noise(_):
        return torch.rand(1, 1, 1) + float(np.random.rand()) + random.random()

    rows = batches(noise)
    together = rows.__getitems__([0, 1, 2])["pixel_values"].flatten().tolist()
    torch.rand(5)
    assert [rows.image(0, row).item() for row in (2, 1, 0)] == pytest.approx(together[::-1])
    others = [rows.image(1, 0).item(), batches(noise, seed=1).image(0, 0).item()]
    assert len({round(value, 6) for value in (*together, *others)}) == 5


def test_the_random_numbers_of_the_process_continue_as_if_nothing_was_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with fixed_draws(3):
        torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_rows_that_are_tensors_need_no_transform():
    images, labels = pixels()
    rows = Rows(lambda row: (torch.from_numpy(images[row]).permute(2, 0, 1)[:1] / 255, labels[row]))
    assert prepared_shape(split_of(rows), None) == (1, 20, 20)
    assert batches(None, rows).__getitems__([0, 1])["pixel_values"].shape == (2, 1, 20, 20)
    assert prepared_shape(split_of(pictures()), None) is None
    assert prepared_shape(split_of(pictures()), NORMALISED) == (3, 12, 12)
    assert prepared_shape(split_of(pictures()), lambda image: image) is None


def test_rows_without_labels_give_batches_without_labels():
    assert "labels" not in batches(NORMALISED, pictures()[0]).__getitems__([0])


def test_tensors_of_different_shapes_are_refused():
    sizes = iter((8, 9))
    with pytest.raises(UserError, match=r"row 1 of the given rows: the given transform gives the shape \(3, 9, 9\)"):
        batches(lambda _: torch.rand(3, *[next(sizes)] * 2)).__getitems__([0, 1])


@pytest.mark.parametrize("result", [None, "text", torch.zeros(3), torch.zeros(4, 4, dtype=torch.int64)])
def test_what_is_neither_an_image_nor_a_tensor_of_one_is_refused(result):
    with pytest.raises(UserError, match=r"row 0 of the given rows: .*the given transform gives"):
        batches(lambda _: result).image(0, 0)


def test_the_notes_name_the_transforms():
    notes = OwnTransforms(NORMALISED, np.asarray).notes
    assert notes[0].startswith("train_transform: Compose( ToImage()")
    assert notes[1] == "eval_transform: asarray in place of the model's own preprocessing"
