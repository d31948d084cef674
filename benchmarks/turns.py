"""Two loops in turn, in one process.

A percent of a step is less than what a machine's other load moves in a second, so on a CPU the loops take turns step by
step. On a GPU, where a step is queued while another computes, a turn is 25 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.session import Session
from hf_accel.machine.probes import now

CPU_TURN, CUDA_TURN = 1, 25  # steps


def chosen_turn(session: Session, steps: int) -> int:
    """The number of steps after which the loops take turns."""
    return min(CUDA_TURN if session.is_cuda else CPU_TURN, steps)


def turn_note(turn: int, steps: int, warmup: int) -> str:
    one = f"{turn} {'step' if turn == 1 else 'steps'}"
    return f"both in turn in one process, {one} each, {steps} steps after a warm-up of {warmup}"


class Turns(TrainerCallback):
    """After every turn of the Trainer, runs one of another loop: both meet the same second of the machine.

    Args:
        other: runs the given number of its next steps.
        warmup: steps of both before the first turn.
        turn: the number of steps of a turn.
    """

    def __init__(self, other: Callable[[int], None], warmup: int, turn: int) -> None:
        self.other, self.warmup, self.turn = other, warmup, turn
        self.start = 0.0
        self.trainer_seconds: list[float] = []  # of each turn, the device idle at its start and its end
        self.other_seconds: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        step = state.global_step - self.warmup
        if step == 0:
            self.other(self.warmup)
        elif step > 0 and step % self.turn == 0:
            end = now(args.device)
            self.other(self.turn)
            self.trainer_seconds.append(end - self.start)
            self.other_seconds.append(now(args.device) - end)
        self.start = now(args.device) if step % self.turn == 0 else self.start

    def step_seconds(self) -> tuple[float, float]:
        """Seconds per step of the Trainer and of the other loop, medians of the turns."""
        return median(self.trainer_seconds) / self.turn, median(self.other_seconds) / self.turn

    def ratio(self) -> float:
        """Time of the Trainer over that of the other loop, median over the pairs of turns."""
        return median(own / other for own, other in zip(self.trainer_seconds, self.other_seconds, strict=True))
