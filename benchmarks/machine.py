"""What a benchmark runs on, and the fastest matrix product seen there: the yardstick of every "fraction of peak"."""

from __future__ import annotations

import time
from typing import Any

import torch

from hf_accel.machine.description import describe_environment
from hf_accel.machine.precision import native_bf16
from hf_accel.training.arguments import accelerator_type

SIDES = {"cpu": 2048, "cuda": 8192}  # a GPU is not full with less
SMALLEST_SIDE = 256


def describe(quick: bool = False) -> dict[str, Any]:
    """The machine, as `describe_environment` has it, and its matrix peaks.

    Returns:
        type (cpu, cuda...), environment, native_bf16 with the reason, matrix_side, and flops: dtype -> FLOP/s.
    """
    kind = accelerator_type()
    side = 256 if quick else SIDES.get(kind, 2048)
    native, reason = native_bf16(kind)
    dtypes = (torch.float32, torch.bfloat16)
    return {
        "type": kind,
        "environment": describe_environment(kind),
        "native_bf16": native,
        "reason": reason,
        "matrix_side": side,
        "flops": {
            str(dtype).removeprefix("torch."): matrix_peak(side, dtype, kind, 0.05 if quick else 2.0)
            for dtype in dtypes
        },
    }


def matrix_peak(side: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    """FLOP/s of the fastest of many `side` x `side` products, on random numbers, after a warm-up.

    On CUDA float32 is what PyTorch does by default: no TF32. Where one product would take longer than `seconds`, as in
    bf16 on a CPU without any support for it (0.3 GFLOP/s on an AMD EPYC of 2021), the sides are halved until it does not.
    """
    while (
        side > SMALLEST_SIDE and product_seconds(SMALLEST_SIDE, dtype, device) * (side / SMALLEST_SIDE) ** 3 > seconds
    ):
        side //= 2
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    products = 10 if device == "cuda" else 1
    best = float("inf")
    for _ in range(3):
        a @ b
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = now(device)
        for _ in range(products):
            a @ b
        best = min(best, (now(device) - start) / products)
    return 2 * side**3 / best


def product_seconds(side: int, dtype: torch.dtype, device: str) -> float:
    """The second of two products of that size: the first one also starts the library."""
    a = torch.randn(side, side, device=device).to(dtype)
    a @ a
    start = now(device)
    a @ a
    return now(device) - start


def now(device: str | torch.device) -> float:
    """Host seconds, when all work given to the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
