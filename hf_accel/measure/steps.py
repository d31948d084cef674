"""How fast a run is: seconds per step, images per second, waiting for data, transforming, compiling.

A step is timed from the end of one optimizer step to the end of the next, because batches are fetched before
`on_step_begin`; the clock restarts after evaluation and saving. On CUDA the marks are events, read when the device is
idle anyway, so that measuring adds no synchronisation. All figures are saved with each checkpoint, one file per
process, and a resumed run continues from them: steps that were lost with the process, and are done again, count once.
"""

from __future__ import annotations

import copy
import json
import mmap
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.files import write_whole
from hf_accel.machine.resources import ResourceWatch, join_resources
from hf_accel.runs.checkpoints import processes_of
from hf_accel.runs.folder import RunFolder

SAVED = ("step_seconds", "warmup_seconds", "feature_seconds", "images", "wait_seconds", "transform_seconds", "resumes",
         "resources")  # fmt: skip


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


class Step(NamedTuple):
    """The marks of one optimizer step, and its images."""

    start: Any
    end: Any
    images: int
    waits: list[tuple[Any, Any]]
    transforms: list[tuple[Any, Any]]
    size: int | None


class Measurement:
    """Sums over the optimizer steps of a run, in this process.

    Warm-up steps count in no rate: the first of each process (compilation, allocator, autotuning) and, in a compiled
    run, each step with a number or a size of images that is new to this process, because the network is compiled again
    for it.

    Args:
        stopwatch: where the time is read.
        warmup_steps: first steps of each process that are warm-up.
        compiled: the network is compiled; `MeasureCallback` sets it from the TrainingArguments.

    Attributes:
        step_seconds: seconds of each step that counts.
        warmup_seconds: seconds of each warm-up step.
        feature_seconds: seconds in which the classifier's inputs were computed before the first step, None where they were
            not; a resumed run computes them again, and they count once.
        images: number of images in the steps that count.
        wait_seconds: seconds that these steps waited for batches, None while there was no wait.
        transform_seconds: seconds of image transforms in these steps, None while there were none.
        resumes: how often the run was interrupted and resumed.
        resources: figures of the finished stretches of the run, see `ResourceWatch`.
        repeated_steps: how many were lost with a process, or with a batch that was too large, and done again; known to
            the first process at the end of training.
    """

    def __init__(self, stopwatch: Stopwatch, warmup_steps: int = 3, compiled: bool = False) -> None:
        self.stopwatch = stopwatch
        self.warmup_steps = warmup_steps
        self.compiled = compiled
        self.step_seconds: list[float] = []
        self.warmup_seconds: list[float] = []
        self.feature_seconds: float | None = None
        self.images = 0
        self.wait_seconds: float | None = None
        self.transform_seconds: float | None = None
        self.resumes = 0
        self.resources: dict[str, float | int | None] = {}
        self.repeated_steps: int | None = None
        self._features_here = 0.0
        self._steps_here = 0
        self._sizes_here: set[tuple[int, int | None]] = set()
        self._recent: deque[tuple[int, float]] = deque(maxlen=20)
        self._pending: list[Step] = []
        self._last: Any = None
        self._forget_step()

    def sums(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON types."""
        self._settle()
        return {name: copy.copy(getattr(self, name)) for name in SAVED}

    def set_sums(self, values: dict[str, Any]) -> None:
        """Count from the sums of a checkpoint, or of the time before an attempt that failed, as in a new process."""
        for name, value in values.items():
            setattr(self, name, copy.copy(value))
        self._steps_here = 0
        self._sizes_here.clear()
        self._recent.clear()
        self._pending = []

    def _forget_step(self) -> None:
        self._images = 0
        self._size: int | None = None
        self._waits: list[tuple[Any, Any]] = []
        self._transforms: list[tuple[Any, Any]] = []

    def restart(self) -> None:
        """Start the clock again: what happened since the last step (evaluation, saving) is not training."""
        self._settle()
        self._last = self.stopwatch.mark()
        self._forget_step()

    def step(self) -> None:
        """An optimizer step ended."""
        now = self.stopwatch.mark()
        self._pending.append(Step(self._last, now, self._images, self._waits, self._transforms, self._size))
        self._last = now
        self._forget_step()

    def count_images(self, rows: int, size: int | None = None) -> None:
        """A batch begins, whose rows have this size (any number that tells sizes apart; None: they never differ)."""
        self._images += rows
        self._size = size

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which the device has no batch to work on, copying it there included.

        The host asks for a batch long before a CUDA device has finished the last one. Only between the marks on the
        device's own time line is it idle.
        """
        start = self.stopwatch.mark()
        yield
        self._waits.append((start, self.stopwatch.mark()))

    @contextmanager
    def transforming(self) -> Iterator[None]:
        """Time of the image transforms on the training device."""
        start = self.stopwatch.mark()
        yield
        self._transforms.append((start, self.stopwatch.mark()))

    @contextmanager
    def computing_features(self) -> Iterator[None]:
        """Time before the first step that belongs to training."""
        start = self.stopwatch.mark()
        yield
        self._features_here += self.stopwatch.seconds(start, self.stopwatch.mark())
        self.feature_seconds = self._features_here  # a resumed run computes them again

    def _settle(self) -> None:
        for step in self._pending:
            seconds = self.stopwatch.seconds(step.start, step.end)
            self._steps_here += 1
            is_new_size = self.compiled and (step.images, step.size) not in self._sizes_here
            self._sizes_here.add((step.images, step.size))
            if self._steps_here <= self.warmup_steps or is_new_size:
                self.warmup_seconds.append(seconds)
                continue
            self.step_seconds.append(seconds)
            self.images += step.images
            self._recent.append((step.images, seconds))
            self.wait_seconds = self._added(self.wait_seconds, step.waits)
            self.transform_seconds = self._added(self.transform_seconds, step.transforms)
        self._pending = []

    def _added(self, total: float | None, spans: list[tuple[Any, Any]]) -> float | None:
        if not spans:
            return total
        return (total or 0.0) + sum(self.stopwatch.seconds(start, end) for start, end in spans)

    def total_seconds(self) -> float:
        """Seconds of training so far: what `summary` calls seconds, and the warm-up steps.

        After a resume they continue from the checkpoint's. Evaluation, saving and everything before the first step of a
        process (starting, loading) are in neither.
        """
        self._settle()
        return sum(self.step_seconds) + sum(self.warmup_seconds) + (self.feature_seconds or 0.0)

    def recent_images_per_second(self) -> float | None:
        """Rate of the last 20 steps that this process did, None during its warm-up."""
        self._settle()
        if not self._recent:
            return None
        images, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        return images / seconds

    def summary(self) -> dict[str, float | None]:
        """The timing keys of `train` in a report; None where nothing was measured. Images are this process's.

        seconds contain feature_seconds. compile_seconds is what the warm-up steps of all processes of the run took beyond as
        many median steps; None in a run that is not compiled.
        """
        self._settle()
        if not self.step_seconds:
            return dict.fromkeys(
                ("seconds", "feature_seconds", "images_per_second", "step_seconds_median", "data_wait_fraction",
                 "transform_fraction", "compile_seconds")
            )  # fmt: skip
        seconds, median = sum(self.step_seconds), statistics.median(self.step_seconds)
        seconds += self.feature_seconds or 0.0
        compile_seconds = max(0.0, sum(s - median for s in self.warmup_seconds))
        return {
            "seconds": seconds,
            "feature_seconds": self.feature_seconds,
            "images_per_second": self.images / seconds,
            "step_seconds_median": median,
            "data_wait_fraction": None if self.wait_seconds is None else self.wait_seconds / seconds,
            "transform_fraction": None if self.transform_seconds is None else self.transform_seconds / seconds,
            "compile_seconds": compile_seconds if self.compiled else None,
        }

    def save(self, checkpoint: Path, resources: dict[str, float | int | None]) -> None:
        """Keep the sums next to a checkpoint's weights.

        Args:
            checkpoint: folder of the checkpoint.
            resources: figures of the present stretch of the run.
        """
        values = {**self.sums(), "resources": join_resources(self.resources, resources)}
        file = state_file(checkpoint)
        # each rank comes here at its own time, and only rank 0 made the folder on its machine
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(values))  # the checkpoint counts as complete: half a file would stop its resume

    def load(self, checkpoint: Path, processes: int = 1) -> None:
        """Continue from the sums of a checkpoint; one of another Trainer has none, and counting starts from zero.

        Args:
            processes: that train now. The times and images of more or fewer of them cannot be joined with theirs.
        """
        file = state_file(checkpoint)
        others = sorted(checkpoint.glob("measurement_*.json"))
        if processes_of(checkpoint) not in (None, processes) and others:
            self.resumes = json.loads(others[0].read_text())["resumes"]
        elif file.is_file():
            self.set_sums(json.loads(file.read_text()))
        self.resumes += 1


def state_file(checkpoint: Path) -> Path:
    """Where this process keeps its sums, next to the rng_state_*.pth of its rank."""
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return checkpoint / f"measurement_{torch.distributed.get_rank() if is_distributed else 0}.json"


class StepsDone:
    """Counts the steps of all processes of a run, in a file that a killed process leaves up to date.

    Args:
        path: of the file; its folder is made.
        step: at which this process begins; 0 starts a new run.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.count = step
        if step:
            with suppress(
                OSError, ValueError
            ):  # no file: the steps before were counted by nobody, and are taken as done
                self.count = max(step, int(path.read_text()))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._text())
        with path.open("r+b") as file:  # mapped, so that a step costs a copy of 20 bytes, and no process holds it open
            self._map = mmap.mmap(file.fileno(), 0)

    def add(self) -> None:
        self.count += 1
        self._map[:] = self._text()

    def _text(self) -> bytes:
        return b"%020d" % self.count  # always of one width


class MeasureCallback(TrainerCallback):
    """Feeds a `Measurement` from the Trainer's events and watches memory, disk and energy.

    Args:
        measurement: is fed.
        device: the training device.
        prepare: does what a run does once before its first step.
    """

    def __init__(
        self, measurement: Measurement, device: torch.device, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self.measurement = measurement
        self.prepare = prepare
        self.device = device
        self.resources = ResourceWatch(device)
        self.steps_done: StepsDone | None = None  # of the first process alone
        self._sums_before: dict[str, Any] | None = None  # while it trains: those with which it began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.measurement.compiled = args.torch_compile
        if self._sums_before is not None:  # the Trainer begins again, without an end, with a smaller batch
            self.measurement.set_sums(self._sums_before)
        elif state.is_world_process_zero:
            assert args.output_dir is not None  # training_arguments sets it
            self.steps_done = StepsDone(RunFolder(args.output_dir).steps_done, state.global_step)
        self._sums_before = self.measurement.sums()
        self.resources.start()
        self.prepare()
        self.measurement.restart()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measurement.step()
        if self.steps_done is not None:
            self.steps_done.add()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measurement.restart()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measurement.restart()

    def save(self, checkpoint: Path) -> None:
        """Keep the figures so far in a checkpoint."""
        self.measurement.save(checkpoint, self.resources.figures())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.measurement.restart()
        self.resources.stop()
        self.measurement.resources = join_resources(self.measurement.resources, self.resources.figures())
        self._sums_before = None
        if self.steps_done is not None:
            self.measurement.repeated_steps = self.steps_done.count - state.global_step
            self.steps_done = None
