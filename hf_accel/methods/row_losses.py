"""`data.hard_examples`: rows with a high loss train more often, or they alone do.

The loss of a row is the cross-entropy of its label in the batch in which it trained, averaged with those of earlier epochs. It
needs no further forward pass, but is as old as the last epoch that had the row: with `strategy: hardest`, a row that was left
out returns once the losses of the others have fallen below its own. Losses are exchanged between the processes after each
epoch, so that all of them draw the same order. Nothing tells a wrong label from a hard image: both have high losses.

Source: loss-proportional sampling, https://arxiv.org/abs/1511.06343 (which ranks); only rows with high losses,
https://arxiv.org/abs/1910.00762 (which chooses within the batch).
Recipe: `data: {hard_examples: {strategy: proportional, fraction: 0.5, warmup_epochs: 1}}`, or `strategy: hardest`.
Measured: ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds: proportional +4.4 points of test accuracy (-44.0 to
+52.8) in the same time, hardest -1.4 (-22.5 to +19.7) in half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast, reduce
from torch import Tensor
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.config.sections import DataSettings, HardExamples
from hf_accel.inputs.hard_examples import hardest_rows, rows_by_loss
from hf_accel.inputs.sampling import BalancedRows, rows_in_turn

_KEPT = 0.5  # of a row's loss, when a new one is known


def chosen_rows(data: DataSettings, labels: np.ndarray, device: torch.device) -> RowLosses | BalancedRows | None:
    """What chooses the rows of an epoch by a recipe, or None: every row trains once.

    Args:
        labels: (N,) int64, of the training rows.
        device: the training device.
    """
    if data.hard_examples is not None:
        return RowLosses(data.hard_examples, len(labels), data.rows_of_epoch(len(labels)), device)
    return BalancedRows(labels) if data.sampling == "balanced" else None


class RowLosses(TrainerCallback):
    """The losses of all training rows, and the rows of an epoch that follow from them.

    Args:
        settings: `data.hard_examples`.
        num_rows: N, of the training split.
        length: rows of an epoch.
        device: the training device.
    """

    def __init__(self, settings: HardExamples, num_rows: int, length: int, device: torch.device) -> None:
        self.settings = settings
        self.length = length
        self.epoch = 0  # the epoch whose losses are summed, from 0
        self.losses = torch.full((num_rows,), math.inf, device=device)  # before this epoch; infinite: not known
        self._sums = torch.zeros(num_rows, device=device)  # of this epoch, in this process
        self._counts = torch.zeros(num_rows, device=device)
        self._batch = torch.zeros(0, dtype=torch.int64, device=device)
        kind = (
            f"the {length} of {num_rows} rows with the highest losses train in an epoch"
            if settings.strategy == "hardest"
            else f"{settings.fraction:.0%} of an epoch is drawn by loss"
        )
        self.note = f"hard_examples: {kind} (warmup_epochs {settings.warmup_epochs})"

    def __len__(self) -> int:
        return self.length

    def rows(self, seed: int, epoch: int) -> np.ndarray:
        """(length,) int64: the rows of an epoch; in the warm-up, all of them in turn."""
        if epoch < self.settings.warmup_epochs:
            everyone = np.arange(len(self.losses))
            return rows_in_turn(seed, everyone, epoch * self.length, (epoch + 1) * self.length)
        losses = self.losses.cpu().numpy()
        if self.settings.strategy == "hardest":
            return hardest_rows(losses, self.length, seed, epoch)
        return rows_by_loss(losses, self.settings.fraction, seed, epoch)

    def before_forward(self, rows: Tensor, inputs: dict[str, Any]) -> None:
        self._batch = rows

    @torch.no_grad()
    def loss_sum(self, logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
        found = functional.cross_entropy(logits.float(), labels, reduction="none")
        # not index_add_, which adds in any order on a GPU
        self._sums.index_put_((self._batch,), found, accumulate=True)
        self._counts.index_put_((self._batch,), torch.ones_like(found), accumulate=True)
        return loss

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.losses.fill_(math.inf)
            self._start_epoch(0)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch = math.floor(state.epoch or 0)
        if epoch != self.epoch:  # a run that resumes within an epoch keeps the sums of its checkpoint
            self._take_in()
            self._start_epoch(epoch)

    def _take_in(self) -> None:
        """Join the losses of the epoch, those of all processes, with the ones before."""
        sums, counts = reduce(torch.stack([self._sums, self._counts]), "sum")
        means = sums / counts  # a row that was not seen, or whose loss was not finite, keeps what it had
        joined = torch.where(self.losses.isfinite(), torch.lerp(means, self.losses, _KEPT), means)
        self.losses = broadcast(torch.where(means.isfinite(), joined, self.losses))

    def _start_epoch(self, epoch: int) -> None:
        self._sums.zero_()
        self._counts.zero_()
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "sums": self._sums, "counts": self._counts, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the losses of a checkpoint; those of a run on other rows are not used."""
        if len(state["losses"]) != len(self.losses):
            return
        self.losses, self._sums, self._counts = state["losses"], state["sums"], state["counts"]
        self.epoch = state["epoch"]

    def joined(self, states: Sequence[dict[str, Any]], process: int) -> dict[str, Any]:
        """The sums of all processes in the first one; see `DiffersBetweenProcesses`."""
        share = 1 if process == 0 else 0
        return states[0] | {name: share * sum(state[name] for state in states) for name in ("sums", "counts")}
