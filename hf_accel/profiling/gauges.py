"""What a process has used so far: time, memory, bytes read and written, energy; read in a few microseconds."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import psutil
import torch

from hf_accel.machine.resources import GIB, cpu_energy_joules, energy_joules

ENERGY_EVERY = 0.05  # seconds: the counter of a GPU moves about as often, and asking takes longer than a phase may


class Reading(NamedTuple):
    """Counters of the process since its start, and its memory now. None: cannot be read here."""

    wall: float  # seconds of the host clock
    cpu: float  # seconds of all threads
    read_bytes: int | None  # from storage
    written_bytes: int | None  # to storage
    requested_bytes: int | None  # by read calls, from storage or from the page cache; mapped files are not in it
    energy: float | None  # joules of the device, or of the whole CPU package
    rss: int | None
    anonymous: int | None
    device_memory: int | None  # peak since the last reading


class Gauges:
    """Reads the counters of this process.

    Args:
        device: is synchronised before each reading, so that its work is charged to the phase that gave it; None: the CPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self._io, self._memory = _opened("/proc/self/io"), _opened("/proc/self/statm")
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._energy: float | None = None
        self._energy_at = -ENERGY_EVERY

    def read(self) -> Reading:
        is_cuda = self.device.type == "cuda"
        if is_cuda:
            torch.cuda.synchronize(self.device)
        rss, anonymous = self.memory()
        read, written, requested = self._io_bytes()
        peak = None
        if is_cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        wall = time.perf_counter()
        return Reading(wall, time.process_time(), read, written, requested, self._joules(wall), rss, anonymous, peak)

    def memory(self) -> tuple[int | None, int | None]:
        """Resident bytes, and those of them that belong to no file and are not shared."""
        if self._memory is None:
            return None, None
        _, resident, shared = os.pread(self._memory, 256, 0).split()[:3]
        return int(resident) * self._page, (int(resident) - int(shared)) * self._page

    def _io_bytes(self) -> tuple[int | None, int | None, int | None]:
        if self._io is None:
            return None, None, None
        values = dict(line.split(b": ") for line in os.pread(self._io, 512, 0).splitlines())
        return int(values[b"read_bytes"]), int(values[b"write_bytes"]), int(values[b"rchar"])

    def _joules(self, now: float) -> float | None:
        if now - self._energy_at >= ENERGY_EVERY:
            self._energy_at = now
            self._energy = energy_joules(self.device) if self.device.type == "cuda" else cpu_energy_joules()
        return self._energy


def seconds_since_start() -> float:
    """Seconds for which this process has existed."""
    return max(0.0, time.time() - psutil.Process().create_time())


def gib(count: int | None) -> float | None:
    return None if count is None else count / GIB


def _opened(path: str) -> int | None:
    """A descriptor that is read again and again; None where the file is not there, or hidden by a sandbox."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        os.pread(descriptor, 1, 0)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
