"""From a profile of a few steps to the run that the recipe asks for: how often each phase occurs in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from hf_accel.profiling.phases import INPUT, NETWORK, UNACCOUNTED


class Schedule(Protocol):
    """The part of TrainingArguments that says how often a run evaluates and saves."""

    max_steps: int
    num_train_epochs: float
    eval_steps: float | None
    save_steps: float

    @property
    def eval_strategy(self) -> Any: ...

    @property
    def save_strategy(self) -> Any: ...


@dataclass(frozen=True)
class WholeRun:
    """How often things happen in a run.

    Attributes:
        kept_rows: rows that are decoded once, before the first step; 0 where each is decoded when it is read.
    """

    steps: int
    evaluations: int
    saves: int
    validation_rows: int
    kept_rows: int


def whole_run(args: Schedule, rows: int, rows_of_step: int, validation_rows: int, kept_rows: int) -> WholeRun:
    """The run that these arguments describe.

    Args:
        rows: of an epoch.
        rows_of_step: the effective batch.
    """
    steps_of_epoch = max(1, math.ceil(rows / rows_of_step))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(steps_of_epoch * args.num_train_epochs)
    epochs = max(1, math.ceil(steps / steps_of_epoch))
    evaluations = occurrences(str(args.eval_strategy.value), args.eval_steps, steps, epochs) if validation_rows else 0
    saves = occurrences(str(args.save_strategy.value), args.save_steps, steps, epochs)
    return WholeRun(steps, evaluations, saves, validation_rows, kept_rows)


def occurrences(strategy: str, every: float | None, steps: int, epochs: int) -> int:
    """How often a Trainer evaluates or saves; "best" saves at most as often as it evaluates, here once per epoch.

    >>> occurrences("steps", 10, steps=35, epochs=2), occurrences("epoch", None, steps=35, epochs=2)
    (4, 2)
    """
    if strategy == "no":
        return 0
    if strategy == "steps" and every:
        return math.ceil(steps / (math.ceil(every * steps) if every < 1 else every))
    return epochs


def seconds_of_whole_run(
    whole: WholeRun, step: dict[str, float], once: dict[str, float], decode_row: float, evaluate_row: float, save: float
) -> dict[str, float]:
    """Seconds of the whole run by part: once, input, network, optimizer, loop, evaluation, saving.

    Args:
        step: seconds of a mean step by phase.
        once: seconds of what happens once, by phase; decoding before the first step is not in it.
        decode_row: seconds to decode a row that is kept.
        evaluate_row: seconds of an evaluation per row.
        save: seconds of a checkpoint.
    """
    return {
        "once": sum(once.values()),
        "input": whole.steps * sum(step.get(name, 0.0) for name in INPUT) + whole.kept_rows * decode_row,
        "network": whole.steps * sum(step.get(name, 0.0) for name in NETWORK),
        "optimizer": whole.steps * step.get("optimizer", 0.0),
        "loop": whole.steps * step.get(UNACCOUNTED, 0.0),
        "evaluation": whole.evaluations * whole.validation_rows * evaluate_row,
        "saving": whole.saves * save,
    }
