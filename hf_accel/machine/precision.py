"""Which number formats this machine multiplies natively."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def native_bf16(device: "torch.device | str") -> tuple[bool, str]:
    """Whether the device has instructions that multiply bf16, and the evidence.

    PyTorch and transformers answer yes for every CPU, but one without these instructions trains about twice as slowly
    in bf16 as in fp32. Apple's mps is answered no: no gain has been measured there.

    Returns:
        (yes or no, the reason as a clause for a message: "AMD EPYC has avx512_bf16").
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
        return major >= 8, f"{name} has CUDA capability {major}.{minor}, and native bf16 begins at 8.0"
    if device.type == "cpu":
        found = [name for name in ("avx512_bf16", "amx_bf16") if name in _cpu_capabilities()]
        return bool(found), f"{cpu_name()} has {' and '.join(found) or 'neither AVX512-bf16 nor AMX-bf16'}"
    return False, f"bf16 is not known to be faster on {device.type}"


def precisions(device: "torch.device | str") -> dict[str, tuple[bool, str]]:
    """The precisions of training -> whether a run can use it here at full speed, and the reason as a clause."""
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return {"fp32": (True, ""), "bf16": native_bf16(device), "fp16": (False, "its loss scaling needs CUDA")}
    major, minor = torch.cuda.get_device_capability(device)
    has = f"CUDA capability {major}.{minor}"
    return {
        "fp32": (True, ""),
        "tf32": (major >= 8, f"{has}, and TF32 begins at 8.0"),
        "bf16": native_bf16(device),
        "fp16": (major >= 7, f"{has}, and tensor cores begin at 7.0"),
    }


def cpu_name() -> str:
    if sys.platform == "darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    # Linux gives no "model name" on aarch64.
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_capabilities() -> set[str]:
    import torch

    # Newer than the oldest torch this package supports. The kernel's flags carry the same names.
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, present in torch.cpu.get_capabilities().items() if present}
    return set(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    """The first value of `key` in the kernel's description of the CPU, "" where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def output_of(*command: str) -> str | None:
    """Standard output of a command, None when it is not installed, fails or hangs."""
    # A git hook sets GIT_DIR and others, which would answer for that repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
