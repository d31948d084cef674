"""Batches as the DataLoader sees them."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_accel.config.sections import DataSettings
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_pixels
from hf_accel.inputs.sampling import EpochSampler, draw_partners, encode
from tests.support.image_splits import SMALL, VARIED, make_split, noise, one_thread  # noqa: F401


def batches_of(shapes: list[tuple[int, int]], mixed: bool = False) -> ImageBatches:
    split = make_split(noise(*shapes))
    pixels = open_pixels(split, DataSettings(name="made"), short_side=256, preprocessing=None)
    return ImageBatches(split, pixels, partial(draw_partners, 0, len(split)) if mixed else None)


def test_a_batch_knows_its_rows_labels_and_epoch():
    batches = batches_of(SMALL)
    batch = batches.__getitems__(encode(5, np.array([4, 9, 2]), 24).tolist())
    assert batch["rows"].tolist() == [4, 9, 2]
    assert batch["labels"].tolist() == [1, 0, 2]
    assert batch["epochs"].tolist() == [5, 5, 5]
    np.testing.assert_array_equal(batch["pixels"][1].numpy(), noise(*SMALL)[9])
    assert "sizes" not in batch


def test_plain_indices_are_epoch_0():
    batch = batches_of(VARIED).__getitems__([0, 23])
    assert batch["epochs"].tolist() == [0, 0]
    assert batch["sizes"].tolist() == [[40, 90], [63, 67]]


def test_a_partner_is_the_same_in_whatever_batch_its_row_is():
    batches = batches_of(SMALL, mixed=True)
    whole = batches.__getitems__(range(24))
    halves = [batches.__getitems__(range(12)), batches.__getitems__(range(12, 24))]
    for key in ("partner_rows", "partner_labels", "partner_pixels"):
        assert torch.equal(whole[key], torch.cat([half[key] for half in halves]))
    assert torch.equal(whole["partner_pixels"], whole["pixels"][whole["partner_rows"]])
    assert torch.equal(whole["partner_labels"], whole["labels"][whole["partner_rows"]])


def test_a_loader_reads_each_epoch_in_its_own_order():
    batches = batches_of(SMALL)
    sampler = EpochSampler(len(batches), seed=0)
    loader = DataLoader(batches, batch_size=7, sampler=sampler, collate_fn=lambda batch: batch)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        read = list(loader)
        assert all((batch["epochs"] == epoch).all() for batch in read)
        orders.append(torch.cat([batch["rows"] for batch in read]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(24))
    assert orders[0] != orders[1]


def test_a_batch_is_a_dictionary_of_plain_tensors_which_a_loader_can_pin():
    batch = batches_of(VARIED, mixed=True).__getitems__([0, 1])
    assert all(type(value) is torch.Tensor for value in batch.values())


@pytest.mark.gpu
def test_every_tensor_of_a_batch_is_pinned():
    batches = batches_of(VARIED, mixed=True)
    loader = DataLoader(batches, batch_size=8, pin_memory=True, collate_fn=lambda batch: batch)
    assert all(value.is_pinned() for batch in loader for value in batch.values())
