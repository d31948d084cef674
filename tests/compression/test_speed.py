"""The speed of the forms of a model."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_accel.compression import speed
from hf_accel.compression.speed import BATCH, Speed, bf16_copy, measure_speed
from hf_accel.measure import turns
from hf_accel.measure.turns import Turns


class Network(nn.Module):
    """A classifier; one that is stubborn makes a float32 tensor of its own."""

    def __init__(self, is_stubborn: bool = False):
        super().__init__()
        self.layer = nn.Linear(12, 2)
        self.is_stubborn = is_stubborn
        self.seen: list[tuple[int, torch.dtype]] = []

    def forward(self, pixel_values):
        self.seen.append((len(pixel_values), pixel_values.dtype))
        features = pixel_values.flatten(1)
        return ImageClassifierOutput(logits=self.layer(features.float() if self.is_stubborn else features))


def test_a_form_that_takes_half_the_time_is_twice_as_fast():
    slow = Speed(Turns([[0.4, 0.4], [0.6]]), Turns([[2.0], [4.0]]))
    fast = Speed(Turns([[0.1, 0.1], [0.15]]), Turns([[1.0], [2.0]]))
    in_batches, single = fast.speedup_over(slow)
    assert (in_batches.ratio, single.ratio) == (pytest.approx(2), pytest.approx(4))
    assert fast.images_per_second == pytest.approx(BATCH / 1.5)


def test_each_form_is_timed_with_one_image_and_with_batches(monkeypatch):
    monkeypatch.setattr(turns, "ROUNDS", 2)
    monkeypatch.setattr(speed, "LATENCY_SECONDS", 0.0)
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    network = Network()
    found = measure_speed({("torch", "fp32"): network}, {}, np.zeros((5, 3, 2, 2), np.float32))
    assert [count for count, _ in network.seen] == [1] * 4 + [BATCH] * 4  # two of each to warm up
    assert found["torch", "fp32"].images.passes == found["torch", "fp32"].batches.passes == 2


def test_bf16_is_a_copy_and_only_where_the_processor_and_the_network_can(monkeypatch):
    monkeypatch.setattr(speed, "native_bf16", lambda device: (True, ""))
    network, pixels = Network(), torch.zeros(1, 3, 2, 2)
    narrow = bf16_copy(network, pixels)
    assert narrow.layer.weight.dtype == torch.bfloat16
    assert network.layer.weight.dtype == torch.float32
    assert narrow.seen[0][1] == torch.bfloat16
    assert bf16_copy(Network(is_stubborn=True), pixels) is None
    monkeypatch.setattr(speed, "native_bf16", lambda device: (False, ""))
    assert bf16_copy(network, pixels) is None
