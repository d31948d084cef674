"""The display of a run: a bar with loss and images/s, the expected time, and a line per evaluation.

Where stderr is not a terminal (CI, a log file) the bars are left out and the lines stay.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel import terminal
from hf_accel.formatting import format_count, format_duration
from hf_accel.tasks.texts import ACCURACY, Measure

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from tqdm import tqdm

logger = logging.getLogger(__name__)

FIRST_STEPS = 3  # of the process: they compile, allocate and tune, and the expected time leaves them out
MEASURED_SECONDS, MEASURED_STEPS = 3.0, 3  # at least, before the expected time is said
SHORT_SECONDS = 20.0  # no time is said of a rest that is shorter
FORWARD_SHARE = 1 / 3  # of a training step: an evaluation has neither a backward pass nor an update


class BarCallback(TrainerCallback):
    """Bars over the optimizer steps and over the batches of evaluations, on the main process.

    Args:
        epoch_loss: the mean loss of the epoch so far over all processes, all of which call it; None: not known.
        clock: in seconds.
        rate: the unit of the speed that is shown.
        scored_rows: the rows of an evaluation, and of the test at the end.
        main: the figure of an evaluation that is shown, with F1.
    """

    def __init__(
        self,
        epoch_loss: Callable[[], float | None],
        clock: Callable[[], float] = time.perf_counter,
        rate: str = "images/s",
        scored_rows: tuple[int, int] = (0, 0),
        main: Measure = ACCURACY,
    ) -> None:
        self.epoch_loss = epoch_loss
        self.rate = rate
        self.scored_rows = scored_rows
        self.main = main
        self.clock = clock
        self.bar: tqdm | None = None
        self.evaluation_bar: tqdm | None = None
        self.last: dict[str, float] = {}
        self._is_training = False
        self._measured_from: tuple[int, float] | None = None  # step and time
        self._time_is_said = False
        self._evaluation_began: float | None = None
        self._seconds_per_scored_row: float | None = None  # as the last evaluation had it

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._is_training = True
        self._first_step = state.global_step
        if state.is_world_process_zero:
            self.bar = terminal.bar(
                state.max_steps,
                "train",
                "step",
                delay=0,
                initial=state.global_step,
                disable=bool(args.disable_tqdm),
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is None:
            return
        self.bar.update(state.global_step - self.bar.n if not self.bar.disable else 0)
        if not self._time_is_said:
            self._say_expected_time(args, state)

    def _say_expected_time(self, args: TrainingArguments, state: TrainerState) -> None:
        """Say once, when enough steps are measured, how long the rest of a run takes that is not short."""
        if self._measured_from is None:
            if state.global_step - self._first_step >= FIRST_STEPS:
                self._measured_from = state.global_step, self.clock()
            return
        first, start = self._measured_from
        steps, seconds = state.global_step - first, self.clock() - start
        if steps < MEASURED_STEPS or seconds < MEASURED_SECONDS:
            return
        self._time_is_said = True
        left, step_seconds = state.max_steps - state.global_step, seconds / steps
        evaluations = evaluations_left(args, state)
        rows = evaluations * self.scored_rows[0] + self.scored_rows[1]
        expected = left * step_seconds + rows * self._scoring_pace(args, step_seconds)
        if expected >= SHORT_SECONDS:
            logger.info(
                "expected time: about %s for the rest of the run: %s steps of %s, %s",
                format_duration(expected),
                format_count(left),
                format_duration(step_seconds),
                f"{format_count(evaluations)} evaluations and the test" if evaluations else "and the test",
            )

    def _scoring_pace(self, args: TrainingArguments, step_seconds: float) -> float:
        """Seconds per row of an evaluation: as the last one had it, else by the share of a step that it repeats."""
        if self._seconds_per_scored_row is not None:
            return self._seconds_per_scored_row
        rows_of_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return FORWARD_SHARE * step_seconds / rows_of_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self._is_training or logs is None:
            return
        if "eval_loss" in logs:
            self._close_evaluation()  # it has ended, and would stand below the line
            self._say(args, state, logs)
        elif "loss" in logs and self.bar is not None:
            self.last = logs
            if self.bar.disable:
                return
            rate = logs.get("images_per_second")
            is_wide = self.bar.ncols is None or self.bar.ncols >= terminal.FULL_BAR_COLUMNS
            speed = f", {rate:,.0f} {self.rate}" if rate and is_wide else ""
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}{speed}")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.eval_strategy == "no":
            self._say(args, state, {})

    def _say(self, args: TrainingArguments, state: TrainerState, logs: dict[str, float]) -> None:
        loss = self.epoch_loss()
        if self.bar is None:
            return
        parts = [f"epoch {state.epoch:.4g}/{state.num_train_epochs:g}", f"step {state.global_step}/{state.max_steps}"]
        if loss is not None and math.isfinite(loss):
            parts.append(f"loss {loss:.4f}")
        shown = {f"eval_{self.main.key}": f"validation {self.main.short}", "eval_f1_macro": "F1"}
        if not shown.keys() & logs.keys():  # somebody has metrics of their own
            shown = {"eval_loss": "validation loss"}
        parts += [f"{label} {logs[name]:.4f}" for name, label in shown.items() if name in logs]
        if self.last.get("images_per_second"):
            parts.append(f"{self.last['images_per_second']:,.0f} {self.rate}")
        logger.info("  ".join(parts))

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        if eval_dataloader is None or not state.is_world_process_zero:
            return
        if self._evaluation_began is None:
            self._evaluation_began = self.clock()
        if self.evaluation_bar is None:
            title = "validation" if self._is_training else "scoring"
            hidden = bool(args.disable_tqdm)
            self.evaluation_bar = terminal.bar(len(eval_dataloader), title, "batch", leave=False, disable=hidden)
        self.evaluation_bar.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._evaluation_began is not None and self.scored_rows[0]:
            self._seconds_per_scored_row = (self.clock() - self._evaluation_began) / self.scored_rows[0]
        self._close_evaluation()

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        self._close_evaluation()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bars: training has ended, one way or another."""
        self._is_training = False
        self._close_evaluation()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _close_evaluation(self) -> None:
        self._evaluation_began = None
        if self.evaluation_bar is not None:
            self.evaluation_bar.close()
            self.evaluation_bar = None


def evaluations_left(args: TrainingArguments, state: TrainerState) -> int:
    """How often the rest of a run is evaluated, the test at the end not counted."""
    if args.eval_strategy == "no":
        return 0
    if args.eval_strategy == "epoch":
        last, now, every = math.ceil(state.num_train_epochs), int(state.epoch or 0), 1
    else:
        last, now, every = state.max_steps, state.global_step, int(state.eval_steps)
    first = max(now, math.ceil(args.eval_delay or 0) - 1)  # those before the delay are left out
    return max(0, last // every - first // every)
