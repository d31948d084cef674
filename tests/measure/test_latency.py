"""The latency of one image on a CPU."""

import itertools

import pytest
import torch
from torch import nn

from hf_accel.measure import latency, turns
from hf_accel.measure.latency import cpu_latency


class Recorded(nn.Module):
    """Counts its forward passes and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.seen = []

    def forward(self, pixel_values):
        self.seen.append((pixel_values.dtype, tuple(pixel_values.shape), torch.is_inference_mode_enabled()))
        return self.layer(pixel_values)


@pytest.fixture
def clock(monkeypatch):
    """A clock that each forward pass moves on by the next of these seconds."""

    def set_seconds(seconds):
        ticks = itertools.accumulate(itertools.chain.from_iterable((0.0, one) for one in seconds))
        monkeypatch.setattr(turns.time, "perf_counter", lambda: next(ticks))

    return set_seconds


def test_the_latency_is_the_median_after_the_warm_up(clock):
    model = Recorded().eval()
    clock([8.0, *itertools.islice(itertools.cycle([0.25, 0.5, 0.125]), 60)])
    found = cpu_latency(model, {"pixel_values": torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)})
    # one slow pass spends the warm-up; then passes until the budget of 1.2 seconds is spent
    assert found.runs == 5
    assert found.seconds == pytest.approx(0.25)
    assert len(model.seen) == 6
    assert set(model.seen) == {(torch.float32, (1, 3, 8, 8), True)}


def test_a_slow_model_is_timed_once_and_a_fast_one_often(clock):
    clock([5.0, 7.0])
    found = cpu_latency(Recorded().eval(), {"pixel_values": torch.zeros(1, 3, 8, 8)})
    assert (found.seconds, found.runs) == (pytest.approx(7.0), 1)
    clock(itertools.repeat(1e-4))
    assert cpu_latency(Recorded().eval(), {"pixel_values": torch.zeros(1, 3, 8, 8)}).runs == latency.MOST_TIMED


def test_the_model_is_measured_in_float32_and_in_the_plain_memory_format():
    model = Recorded().eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert cpu_latency(model, {"pixel_values": torch.zeros(1, 3, 8, 8)}).seconds > 0
    assert model.layer.weight.dtype == torch.float32
    assert model.layer.weight.is_contiguous()
