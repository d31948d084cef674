"""The metrics of an evaluation, and the accuracy on training batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.errors import RunError
from hf_accel.training.answers import Answers


class EvaluationMetrics:
    """`compute_metrics` of the Trainer: the loss and those of the answers, and the metrics of the caller next to them.

    The predictions that it is called with are either the figures that `prediction_step` keeps (those of
    `Answers.kept_of_rows` and the row's number), or logits (N, C) and row numbers.

    Args:
        answers: of the model.
        own: a further function of an `EvalPrediction` whose predictions are the logits (N, C), as the Trainer promises.
            A metric that has the name of one of ours replaces it.
        standard: False: of our metrics the loss alone is computed.
    Raises:
        RunError: logits are not finite, so their order means nothing.
    """

    def __init__(
        self,
        answers: Answers,
        own: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        standard: bool = True,
    ) -> None:
        self.answers = answers
        self.own = own
        self.standard = standard

    @property
    def needs_logits(self) -> bool:
        return self.own is not None

    def __call__(self, prediction: EvalPrediction) -> dict[str, Any]:
        *figures, rows = prediction.predictions
        labels = np.asarray(prediction.label_ids)
        # a distributed sampler pads the last batch: a row counted twice would change the figures silently
        assert len(np.unique(rows)) == len(rows), "a row was evaluated twice"
        if len(figures) == 1:
            logits = np.asarray(figures[0])
            kept_of_logits = self.answers.kept_of_rows(torch.from_numpy(logits), torch.from_numpy(labels))
            kept = [figure.numpy() for figure in kept_of_logits]
        else:
            kept = figures[: self.answers.num_kept]
        losses = kept[-1]
        figures_of_row = [figure.reshape(len(rows), -1) for figure in kept if figure.dtype.kind == "f"]
        broken = int(np.isnan(np.concatenate(figures_of_row, axis=1)).any(axis=1).sum())
        if broken:
            raise RunError(
                f"{broken} of {len(rows)} rows got logits that are not finite, so they cannot be scored. Train with a lower "
                "training.learning_rate; if half precision overflows, use training.bf16 instead of fp16, or neither."
            )
        metrics: dict[str, Any] = {}
        if self.standard:
            metrics |= self.answers.metrics(kept, labels)
        # the Trainer's own eval_loss is a mean of batch means, which depends on the batches and the processes
        metrics["loss"] = float(losses.mean(dtype=np.float64))
        found = {name: value for name, value in metrics.items() if value is not None}
        if self.own is None:
            return found
        order = np.argsort(rows)
        return found | self.own(EvalPrediction(predictions=logits[order], label_ids=labels[order]))


class TrainAccuracyCallback(TrainerCallback):
    """Sums over the training batches of an epoch: correct predictions and loss, both augmented and with dropout on.

    Args:
        device: the training device, on which the counts stay.
    """

    def __init__(self, device: torch.device) -> None:
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.loss = torch.zeros((), dtype=torch.float32, device=device)
        self.seen = 0
        self.epoch = 0  # the epoch that is counted, from 0

    @torch.no_grad()
    def count(self, right: Tensor, loss: Tensor, rows: int) -> None:
        """Add a batch.

        Args:
            right: (), how many of its rows were answered right.
            loss: (), the sum of the losses of its rows.
        """
        self.correct += right
        self.loss += loss.detach()
        self.seen += rows

    def counts(self) -> Tensor:
        """(3,) float64 on a device that has it: correct predictions, loss and rows of this process."""
        kind = torch.float32 if self.loss.device.type == "mps" else torch.float64
        return torch.stack(
            [self.correct.to(kind), self.loss.to(kind), torch.full_like(self.loss, self.seen, dtype=kind)]
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch = math.floor(state.epoch or 0)
        if epoch != self.epoch:  # a run that resumes within an epoch keeps the counts of its checkpoint
            self.correct.zero_()
            self.loss.zero_()
            self.seen, self.epoch = 0, epoch

    def state_dict(self) -> dict[str, int | float]:
        return {"correct": int(self.correct), "loss": float(self.loss), "seen": self.seen, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.correct.fill_(state["correct"])
        self.loss.fill_(state.get("loss", math.nan))  # checkpoints of earlier versions do not know it
        self.seen, self.epoch = state["seen"], state["epoch"]

    def joined(self, states: Sequence[dict[str, Any]], process: int) -> dict[str, Any]:
        """The counts of all processes in the first one; see `DiffersBetweenProcesses`."""
        counted = states if process == 0 else []
        sums = {name: sum(state[name] for state in counted) for name in ("correct", "loss", "seen")}
        return {**states[0], **sums}
