"""What a run ran on: device, driver, versions, commit and command line.

Reports and model cards are published, so the command is cleaned before it is kept: no tokens, and no folder of this
machine beyond a file's own name. Nothing here fails because git or nvidia-smi is not installed: the unknown is None.
"""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import hf_accel

if TYPE_CHECKING:
    import torch

_PACKAGE = Path(hf_accel.__file__).resolve().parent
_LIBRARIES = ("torch", "transformers", "timm", "accelerate", "datasets")

_SECRET_NAME = r"(?:token|password|passwd|secret|api[-_]?key|credentials?)"
_SECRET_FLAG = re.compile(rf"-.*{_SECRET_NAME}", re.IGNORECASE)
_SECRET_ASSIGNMENT = re.compile(rf"({_SECRET_NAME}[\"']?\s*[=:]\s*)[^\s,;&}}\]]+", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"(?:hf|api_org)_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|sk-[\w-]{16,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]+\.[\w-]+\.[\w-]+"  # OpenAI and alike, AWS, JSON web tokens
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
# An absolute path inside a longer argument; the look-behind and look-ahead keep 'user/model', './here' and 'https://'.
_ABSOLUTE_PATH = re.compile(r"(?:file://|(?<![\w./~-])~?)(?!//)(?<![\w.])/[^\s,;:'\"\[\]{}()]*")


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
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 2),
        "python": platform.python_version(),
        **{name: _installed_version(name) for name in _LIBRARIES},
        "hf_accel": hf_accel.__version__,
        "commit": package_commit(),
        "command": published_command(sys.argv),
    }


def native_bf16(device: "torch.device | str") -> tuple[bool, str]:
    """Whether the device has instructions that multiply bf16, and why that is thought.

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
        return bool(found), f"{_cpu_name()} has {' and '.join(found) or 'neither AVX512-bf16 nor AMX-bf16'}"
    return False, f"bf16 is not known to be faster on {device.type}"


def published_command(argv: Sequence[str]) -> str:
    """The command line, quoted for a shell and fit to be published.

    Tokens and passwords become ***. An absolute path becomes relative to the current folder where it lies below it, and
    its last part elsewhere.

    >>> published_command(["train.py", "--hub_token", "abc", "--data.name", "/home/jane/photos"])
    "train.py --hub_token '***' --data.name photos"
    """
    words = []
    after_secret_flag = False
    for argument in argv[1:]:
        flag, equals, value = argument.partition("=")
        if after_secret_flag and not argument.startswith("--"):
            words.append("***")
        elif flag.startswith("-") and equals:
            words.append(f"{flag}={'***' if _SECRET_FLAG.fullmatch(flag) else cleaned_text(value)}")
        else:
            words.append(cleaned_text(argument))
        after_secret_flag = _SECRET_FLAG.fullmatch(argument) is not None
    return f"{_program(argv[0])} {shlex.join(words)}".strip()


def package_commit() -> str | None:
    """The git commit of the checkout this package runs from, with "-dirty" when its code or recipes were changed.

    None when the package is installed, even into an environment that lies inside some other checkout.
    """
    checkout = _PACKAGE.parent
    top = _output_of("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != checkout:
        return None
    commit = _output_of("git", "-C", str(checkout), "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _output_of(
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
    drivers = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": properties.name,
        "device_memory_gib": round(properties.total_memory / 1024**3, 2),
        "driver": drivers.splitlines()[0] if drivers else None,
        "cuda": torch.version.cuda,
    }


def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    # ARM kernels give no "model name".
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


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output_of(*command: str) -> str | None:
    """Standard output of a command, None when it is not installed, fails or hangs."""
    # A git hook sets GIT_DIR and others, which would answer for that repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _program(path: str) -> str:
    program = Path(path)
    if program.suffix == ".py" and program.resolve().parent == _PACKAGE:
        return f"python -m hf_accel.{program.stem}"
    return program.name


def cleaned_text(argument: str) -> str:
    argument = _SECRET_VALUE.sub("***", argument)
    argument = _SECRET_ASSIGNMENT.sub(r"\1***", argument)
    argument = _URL_LOGIN.sub("***@", argument)
    if argument.startswith(("/", "~")):
        return _shortened(argument)
    return _ABSOLUTE_PATH.sub(lambda found: _shortened(found.group()), argument)


def _shortened(path: str) -> str:
    absolute = Path(path.removeprefix("file://"))
    if absolute.is_relative_to(Path.cwd()):
        return str(absolute.relative_to(Path.cwd()))
    # A home folder's own name is a person's. Path.home() would raise for a user without one.
    return "~" if str(absolute) == os.path.expanduser("~") else absolute.name or "/"
