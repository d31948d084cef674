"""How long a trained model takes for one row (image or text) on a CPU: the latency that a caller of a small service waits for."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        _timed(model, row, MOST_WARM_UP, WARM_UP_SECONDS)
        seconds = _timed(model, row, MOST_TIMED, TIMED_SECONDS)
    return Latency(statistics.median(seconds), len(seconds))


def _timed(model: nn.Module, row: dict[str, Tensor], most: int, budget: float) -> list[float]:
    """Seconds of each forward pass, until there are `most` or the budget of seconds is spent; at least one."""
    found: list[float] = []
    while not found or (len(found) < most and sum(found) < budget):
        start = time.perf_counter()
        model(**row)
        found.append(time.perf_counter() - start)
    return found
