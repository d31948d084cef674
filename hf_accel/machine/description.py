"""What a run ran on: device, driver, versions, commit and command line.

Reports and model cards are published, so the command is cleaned before it is kept: no tokens, and no folder of this
machine beyond a file's own name. Nothing here fails because git or nvidia-smi is not installed: an unknown value is None.
"""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import hf_accel
from hf_accel.machine.packages import installed_version
from hf_accel.machine.precision import cpu_name, output_of
from hf_accel.privacy import published_command

if TYPE_CHECKING:
    import torch

_PACKAGE = Path(hf_accel.__file__).resolve().parent
LIBRARIES = ("torch", "transformers", "timm", "accelerate", "datasets")


def describe_environment(device: "torch.device | str | None" = None) -> dict[str, Any]:
    """Describe the machine, the software and the command of this process.

    Args:
        device: the device the model runs on; None = torch's accelerator, or the CPU where there is none.
    Returns:
        device: "cpu", "mps", or the name of the GPU; device_memory_gib, driver and cuda (None unless on CUDA); cpu;
        cores (those this process may use); memory_gib; python; the version of each library (None when it is not
        installed); commit (see `package_commit`); command (see `published_command`).
    """
    return {
        **_describe_device(device),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 2),
        "python": platform.python_version(),
        **{name: installed_version(name) for name in LIBRARIES},
        "hf_accel": hf_accel.__version__,
        "commit": package_commit(),
        "command": published_command(sys.argv),
    }


def package_commit() -> str | None:
    """The git commit of the checkout this package runs from, with "-dirty" when its code or recipes were changed.

    None when the package is installed, even into an environment that lies inside some other checkout.
    """
    checkout = _PACKAGE.parent
    top = output_of("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != checkout:
        return None
    commit = output_of("git", "-C", str(checkout), "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = output_of(
        "git", "--no-optional-locks", "-C", str(checkout), "status", "--porcelain", "--", "hf_accel", "recipes"
    )
    return f"{commit}-dirty" if changes else commit


def _describe_device(device: "torch.device | str | None") -> dict[str, Any]:
    import torch

    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    device = torch.device(device)
    if device.type != "cuda":
        return {"device": device.type, "device_memory_gib": None, "driver": None, "cuda": None}
    properties = torch.cuda.get_device_properties(device)
    drivers = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": properties.name,
        "device_memory_gib": round(properties.total_memory / 1024**3, 2),
        "driver": drivers.splitlines()[0] if drivers else None,
        "cuda": torch.version.cuda,
    }
