"""What a stretch of a run takes from the machine: memory, bytes read, energy."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import psutil
import torch

GIB = 2**30


class ResourceWatch:
    """Memory, bytes read and energy of one stretch of a run: from the start of training in a process to its end.

    Evaluation and saving are included, because memory and energy cannot be told apart by step; decoding into a cache
    before the first step, and the scoring of the test split, are not.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_anonymous = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_start: int | None = None
        self._energy_start: float | None = None

    def start(self) -> None:
        self.stop()  # the Trainer starts again, without an end, where it looks for a batch size that fits
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.peak_anonymous = 0
        self._read_start = bytes_read()
        self._energy_start = energy_joules(self.device)
        self._stop.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def _look(self) -> None:
        self.peak_anonymous = max(self.peak_anonymous, anonymous_bytes() or 0)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def figures(self) -> dict[str, float | int | None]:
        """The resource keys of `train` in a report, from the start until now; None where it cannot be measured here."""
        self._look()
        is_cuda = self.device.type == "cuda"
        return {
            "peak_memory_gib": torch.cuda.max_memory_allocated(self.device) / GIB if is_cuda else None,
            "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
            "peak_anonymous_gib": self.peak_anonymous / GIB if self.peak_anonymous else None,
            "read_bytes": _since(self._read_start, bytes_read()),
            "energy_joules": _since(self._energy_start, energy_joules(self.device)),
        }


def _since(start: float | None, now: float | None) -> float | None:
    return None if start is None or now is None else now - start


def join_resources(
    before: dict[str, float | int | None], now: dict[str, float | int | None]
) -> dict[str, float | int | None]:
    """Figures of two stretches of a run: the larger peak, the sum of the others, None where a stretch has none.

    Args:
        before: may be empty, when there is no earlier stretch.
    """
    if not before:
        return now
    joined: dict[str, float | int | None] = {}
    for name, value in now.items():
        earlier = before[name]
        if value is None or earlier is None:
            joined[name] = None
        else:
            joined[name] = max(earlier, value) if name.startswith("peak_") else earlier + value
    return joined


def anonymous_bytes() -> int | None:
    """RssAnon of this process: pages of a memory-mapped file do not count. None where /proc is absent."""
    return _proc_field(os.getpid(), "status", "RssAnon:", 1024)


def bytes_read() -> int | None:
    """Bytes this process and its loader workers had read from storage (page-cache hits do not count).

    Linux adds those of a process that has ended to its parent's. None where /proc is absent.
    """
    own = _proc_field(os.getpid(), "io", "read_bytes:", 1)
    if own is None:
        return None
    workers = psutil.Process().children(recursive=True)
    return own + sum(_proc_field(worker.pid, "io", "read_bytes:", 1) or 0 for worker in workers)


def _proc_field(pid: int, file: str, name: str, unit: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:  # not Linux, hidden by the sandbox, or the process has ended
        return None
    return next((int(line.split()[1]) * unit for line in text.splitlines() if line.startswith(name)), None)


def energy_joules(device: torch.device) -> float | None:
    """Energy counter of a CUDA device since its driver loaded, whoever used it; None without NVML or such a counter."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # of nvidia-ml-py, which is there on Linux only
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except pynvml.NVMLError:  # no driver of NVIDIA's, a slice of a device (MIG), or a device older than Volta
        return None


def cpu_energy_joules(root: Path = Path("/sys/class/powercap")) -> float | None:
    """Energy counters of the CPU packages since their last overflow (after hours), whoever used it.

    None where the kernel has none (RAPL of Intel and AMD), or shows them to root alone, as most systems do.
    """
    try:
        counters = [path for path in root.glob("intel-rapl:*/energy_uj") if path.parent.name.count(":") == 1]
        return sum(int(path.read_text()) for path in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None
