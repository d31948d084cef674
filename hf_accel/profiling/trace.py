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
        Seconds per step that an operator takes itself, by its name without "aten::".
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True, acc_events=True) as found:
        for number in range(STEPS):
            with record_function(f"step {number}"):
                step()
    found.export_chrome_trace(str(path))
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return {
        event.key.removeprefix("aten::"): getattr(event, kind) / 1e6 / STEPS
        for event in found.key_averages()
        if event.key.startswith("aten::")
    }


def join_traced(operators: list[dict], traced: dict[str, float]) -> None:
    """Put the seconds of the trace next to those of each operator.

    A convolution is carried out by another operator (`mkldnn_convolution`, `cudnn_convolution`), which the trace names. An
    operator of two dtypes gets its seconds in proportion to what the timers saw.
    """
    for name in {operator["name"] for operator in operators}:
        rows = [operator for operator in operators if operator["name"] == name]
        own = sum(seconds for key, seconds in traced.items() if key == name or key in CARRIED_OUT_BY.get(name, ()))
        whole = sum(row["seconds"] for row in rows)
        for row in rows:
            row["traced_seconds"] = own * row["seconds"] / whole if whole else None


CARRIED_OUT_BY = {
    "convolution": ("_convolution", "mkldnn_convolution", "cudnn_convolution", "thnn_conv2d", "_slow_conv2d_forward",
                    "conv_depthwise3d", "_conv_depthwise2d"),
    "convolution_backward": ("mkldnn_convolution_backward", "cudnn_convolution_backward", "_slow_conv2d_backward"),
    "native_batch_norm": ("cudnn_batch_norm", "miopen_batch_norm"),
}  # fmt: skip
