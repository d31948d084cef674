"""A trace of a few steps by torch.profiler, for https://ui.perfetto.dev, and what it says of each operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

STEPS = 3


def write_trace(step: Callable[[], object], path: Path, device: torch.device) -> dict[str, float]:
    """Trace steps into a file in Chrome's format; a name that ends in `.gz` is compressed.

    Returns:
        Seconds per step of an operator, with those that it calls, by its name without "aten::".
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True, acc_events=True) as found:
        for number in range(STEPS):
            with record_function(f"step {number}"):
                step()
    found.export_chrome_trace(str(path))
    kind = "device_time_total" if device.type == "cuda" else "cpu_time_total"
    return {
        event.key.removeprefix("aten::"): getattr(event, kind) / 1e6 / STEPS
        for event in found.key_averages()
        if event.key.startswith("aten::")
    }


def join_traced(operators: list[dict], traced: dict[str, float]) -> None:
    """Put the seconds of the trace next to those of each operator, divided among its dtypes as the timers saw them."""
    for name in {operator["name"] for operator in operators}:
        rows = [operator for operator in operators if operator["name"] == name]
        whole = sum(row["seconds"] for row in rows)
        for row in rows:
            row["traced_seconds"] = traced[name] * row["seconds"] / whole if whole and name in traced else None
