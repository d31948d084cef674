"""How long a trained model takes for one row (image or text) on a CPU: the latency that a caller of a small service waits for."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_accel.measure.turns import timed

WARM_UP_SECONDS, TIMED_SECONDS = 0.3, 1.2  # a run is not made noticeably longer
MOST_WARM_UP, MOST_TIMED = 5, 50


@dataclass(frozen=True)
class Latency:
    """The median over some forward passes of one row."""

    seconds: float
    runs: int


def cpu_latency(model: nn.Module, inputs: dict[str, Tensor]) -> Latency:
    """Time forward passes of one row, in float32, eager, in this process and with its threads.

    Args:
        model: in evaluation mode; it is moved to the CPU, in the plain memory format, as `predict` has it there.
        inputs: the arguments of a forward pass of one row.
    """
    model = model.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    row = {name: (value.float() if value.is_floating_point() else value).cpu() for name, value in inputs.items()}
    with torch.inference_mode():
        timed(lambda: model(**row), WARM_UP_SECONDS, MOST_WARM_UP)
        seconds = timed(lambda: model(**row), TIMED_SECONDS, MOST_TIMED)
    return Latency(statistics.median(seconds), len(seconds))
