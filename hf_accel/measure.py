"""What a run costs: seconds a step, images a second, waiting for data, memory, bytes read, energy.

A step is timed from the end of one optimizer step to the end of the next, because batches are fetched before
`on_step_begin`; the clock restarts after evaluation and saving. On CUDA the marks are events, read when the device is
idle anyway, so that measuring adds no synchronisation. The sums are saved with each checkpoint and survive a resume.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

GIB = 2**30
STATE_FILE = "measurement.json"
SUMS = ("step_seconds", "warmup_seconds", "images", "wait_seconds", "transform_seconds", "resumes")


class Stopwatch:
    """Marks on a device's time line, and the seconds between them.

    Args:
        device: CUDA marks are events in the current stream; elsewhere work is synchronous and the host clock is used.
        clock: host clock in seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.is_cuda = device.type == "cuda"
        self.clock = clock

    def mark(self) -> Any:
        if not self.is_cuda:
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        if not self.is_cuda:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000


class Measurement:
    """Sums over the optimizer steps of a run.

    Args:
        stopwatch: where the time is read.
        warmup_steps: first steps of each process that count in no rate (compilation, allocator, autotuning).
    """

    def __init__(self, stopwatch: Stopwatch, warmup_steps: int = 3) -> None:
        self.stopwatch = stopwatch
        self.warmup_steps = warmup_steps
        self.step_seconds: list[float] = []
        self.warmup_seconds: list[float] = []
        self.images = 0
        self.wait_seconds = 0.0
        self.transform_seconds = 0.0
        self.resumes = 0
        self._steps_here = 0
        self._last: Any = None
        self._pending: list[tuple[Any, Any, int, float, list[tuple[Any, Any]]]] = []
        self._wait = 0.0
        self._transforms: list[tuple[Any, Any]] = []
        self._images = 0

    def restart(self) -> None:
        """Start the clock anew: what happened since the last step (evaluation, saving) is not training."""
        self._settle()
        self._last = self.stopwatch.mark()
        self._wait, self._transforms, self._images = 0.0, [], 0

    def step(self) -> None:
        """An optimizer step ended."""
        now = self.stopwatch.mark()
        if self._last is not None:
            self._pending.append((self._last, now, self._images, self._wait, self._transforms))
        self._last = now
        self._wait, self._transforms, self._images = 0.0, [], 0

    def count_images(self, rows: int) -> None:
        self._images += rows

    @contextmanager
    def waiting(self):
        """Time in which the host waits for a batch."""
        start = self.stopwatch.clock()
        yield
        self._wait += self.stopwatch.clock() - start

    @contextmanager
    def transforming(self):
        """Time of the image transforms on the training device."""
        start = self.stopwatch.mark()
        yield
        self._transforms.append((start, self.stopwatch.mark()))

    def _settle(self) -> None:
        for start, end, images, wait, transforms in self._pending:
            seconds = self.stopwatch.seconds(start, end)
            self._steps_here += 1
            if self._steps_here <= self.warmup_steps:
                self.warmup_seconds.append(seconds)
                continue
            self.step_seconds.append(seconds)
            self.images += images
            self.wait_seconds += wait
            self.transform_seconds += sum(self.stopwatch.seconds(a, b) for a, b in transforms)
        self._pending = []

    def total_seconds(self) -> float:
        """Seconds of optimisation so far, warm-up steps included."""
        self._settle()
        return sum(self.step_seconds) + sum(self.warmup_seconds)

    def recent_images_per_second(self) -> float | None:
        """Rate of the last 20 steps, this process alone."""
        self._settle()
        recent = self.step_seconds[-20:] or self.warmup_seconds[-1:]
        per_step = self.images / len(self.step_seconds) if self.step_seconds else None
        return per_step / statistics.mean(recent) if per_step else None

    def summary(self, compiled: bool) -> dict[str, float | None]:
        """The timing keys of `train` in a report; None where nothing was measured. Images are this process's."""
        self._settle()
        seconds = sum(self.step_seconds)
        if not self.step_seconds:
            return dict.fromkeys(
                ("seconds", "images_per_second", "step_seconds_median", "data_wait_fraction", "transform_fraction",
                 "compile_seconds")
            )  # fmt: skip
        median = statistics.median(self.step_seconds)
        return {
            "seconds": seconds,
            "images_per_second": self.images / seconds,
            "step_seconds_median": median,
            "data_wait_fraction": self.wait_seconds / seconds,
            "transform_fraction": self.transform_seconds / seconds,
            "compile_seconds": max(0.0, sum(s - median for s in self.warmup_seconds)) if compiled else None,
        }

    def save(self, checkpoint: Path) -> None:
        """Keep the sums beside a checkpoint's weights."""
        self._settle()
        (checkpoint / STATE_FILE).write_text(json.dumps({name: getattr(self, name) for name in SUMS}))

    def load(self, checkpoint: Path) -> None:
        """Go on from the sums of a checkpoint; one of another Trainer has none, and counting starts anew."""
        file = checkpoint / STATE_FILE
        if file.is_file():
            for name, value in json.loads(file.read_text()).items():
                setattr(self, name, value)
        self.resumes += 1


class MeasureCallback(TrainerCallback):
    """Feeds a `Measurement` from the Trainer's events and watches memory, disk and energy."""

    def __init__(self, measurement: Measurement, device: torch.device) -> None:
        self.measurement = measurement
        self.device = device
        self.resources = ResourceWatch(device)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.resources.start()
        self.measurement.restart()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measurement.step()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measurement.restart()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self.measurement.save(folder)
        self.measurement.restart()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.measurement.restart()
        self.resources.stop()


class ResourceWatch:
    """Peak memory, bytes read and energy of this process between start and stop."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_anonymous = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_start: int | None = None
        self._energy_start: float | None = None
        self.figures: dict[str, float | int | None] = {}

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._read_start = bytes_read()
        self._energy_start = energy_joules(self.device)
        self._stop.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.peak_anonymous = max(self.peak_anonymous, anonymous_bytes() or 0)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.peak_anonymous = max(self.peak_anonymous, anonymous_bytes() or 0)
        read, energy = bytes_read(), energy_joules(self.device)
        is_cuda = self.device.type == "cuda"
        self.figures = {
            "peak_memory_gib": torch.cuda.max_memory_allocated(self.device) / GIB if is_cuda else None,
            "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
            "peak_anonymous_gib": self.peak_anonymous / GIB if self.peak_anonymous else None,
            "read_bytes": read - self._read_start if read is not None and self._read_start is not None else None,
            "energy_joules": energy - self._energy_start if energy and self._energy_start else None,
        }


def anonymous_bytes() -> int | None:
    """RssAnon of this process: pages of a memory-mapped file do not count. None where /proc is absent."""
    return _proc_field("status", "RssAnon:", 1024)


def bytes_read() -> int | None:
    """Bytes this process had read from storage (page-cache hits do not count). None where /proc is absent."""
    return _proc_field("io", "read_bytes:", 1)


def _proc_field(file: str, name: str, unit: int) -> int | None:
    path = Path(f"/proc/{os.getpid()}/{file}")
    try:
        text = path.read_text()
    except OSError:  # not Linux, or hidden by the sandbox
        return None
    return next((int(line.split()[1]) * unit for line in text.splitlines() if line.startswith(name)), None)


def energy_joules(device: torch.device) -> float | None:
    """Energy counter of a CUDA device since its driver loaded; None without NVML (`pip install nvidia-ml-py`)."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except ImportError:
        return None
    except pynvml.NVMLError:  # the counter needs Volta or newer
        return None
