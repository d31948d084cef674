"""The display of a run: a bar with loss and images/s, and a line per evaluation.

Where stderr is not a terminal (CI, a log file) the bar is left out and the lines stay.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


class BarCallback(TrainerCallback):
    """A progress bar over the optimizer steps of the main process."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.last: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            hidden = bool(args.disable_tqdm) or not sys.stderr.isatty()
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit="step", disable=hidden)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n if not self.bar.disable else 0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is None or logs is None:
            return
        if "loss" in logs:
            self.last = logs
            rate = logs.get("images_per_second")
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}" + (f", {rate:,.0f} images/s" if rate else ""))
        elif "eval_accuracy" in logs:
            self._say(args, state, logs)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None and args.eval_strategy == "no":
            self._say(args, state, {})

    def _say(self, args: TrainingArguments, state: TrainerState, logs: dict[str, float]) -> None:
        parts = [f"epoch {state.epoch:.4g}/{state.num_train_epochs:g}", f"step {state.global_step}/{state.max_steps}"]
        if self.last:
            parts.append(f"loss {self.last['loss']:.4f}")
        if logs:
            parts += [f"validation accuracy {logs['eval_accuracy']:.4f}", f"F1 {logs['eval_f1_macro']:.4f}"]
        if self.last.get("images_per_second"):
            parts.append(f"{self.last['images_per_second']:,.0f} images/s")
        with tqdm.external_write_mode():
            logger.info("  ".join(parts))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
