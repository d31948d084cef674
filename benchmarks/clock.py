"""The clock of all programs with a Trainer; a module by itself, so that a peer need not import this package's Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.machine.probes import now

if TYPE_CHECKING:
    from benchmarks.workloads import Size


class StepClock(TrainerCallback):
    """Host time from the end of the last warm-up step to the end of the last step, the device idle at both.

    Loading, transforms, forward, backward, optimizer and whatever the Trainer does between steps are inside.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.start = self.end = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.warmup:
            self.start = now(args.device)
        elif state.global_step == state.max_steps:
            self.end = now(args.device)

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def images_per_second(self, size: Size) -> float:
        return size.batch * size.steps / self.seconds
