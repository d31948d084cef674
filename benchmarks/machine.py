"""What a benchmark runs on, and the fastest matrix product seen there: the yardstick of every "fraction of peak"."""

from __future__ import annotations

from typing import Any

import torch

from hf_accel.machine.description import describe_environment
from hf_accel.machine.precision import native_bf16
from hf_accel.machine.probes import OTHER_SIDE, SIDES, matrix_peak
from hf_accel.training.arguments import accelerator_type


def describe(quick: bool = False) -> dict[str, Any]:
    """The machine, as `describe_environment` has it, and its matrix peaks.

    Returns:
        type (cpu, cuda...), environment, native_bf16 with the reason, matrix_side, and flops: dtype -> FLOP/s.
    """
    kind = accelerator_type()
    side = 256 if quick else SIDES.get(kind, OTHER_SIDE)
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
