"""Loss, gradients and weights stay finite, or the run ends: NaN weights would be saved, scored and believed.

The loss and the gradient norm of each optimizer step stay on the device until several steps are read together: reading
each one would make the host wait for the device. On a CPU there is nothing to wait for, so every step is read before its
update. The Trainer reads at the latest before it logs, evaluates or saves, and all processes read each other's values, so
that they end together.

`skip` leaves out a step whose loss or gradient norm is not finite: the weights, the optimizer's state and the running
statistics of batch norm are those of the step before. It reads every step, which on an accelerator costs one
synchronisation per step, and copies the model's buffers. A run ends all the same after `MOST_IN_A_ROW` such steps in a
row, or more than `MOST_IN_WINDOW` among `WINDOW` steps.

The loss scaling of fp16 leaves out steps of its own: its scale is too large until a gradient overflows. That is normal,
unless it happens `MOST_OVERFLOWS` times in a row, after which the smallest scale would have been found.

Source: ours; transformers has a filter that keeps such losses out of the log (`logging_nan_inf_filter`).
Recipe: `training: {on_nan: stop}`, the default, or `skip`.
Measured: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.errors import RunError

STEPS_UNREAD = 50  # on an accelerator: at most these many steps are trained for nothing
MOST_IN_A_ROW = 10
WINDOW = 100
MOST_IN_WINDOW = 10
MOST_OVERFLOWS = 30  # halving the scale 30 times leads from 65,536 to 0.00006


class BadStep(NamedTuple):
    """An optimizer step after which a run cannot continue."""

    step: int  # from 1
    learning_rate: float
    reason: str


class FiniteSteps(TrainerCallback):
    """Judges the optimizer steps of a run by their loss and gradient norm.

    Args:
        model: its buffers are put back when a step is left out.
        device: the training device.
        skips: leave bad steps out, up to the limits, instead of ending the run.
        is_scaled: a gradient scaler leaves out the steps whose gradients overflow.

    Attributes:
        skipped: steps left out so far, those of the gradient scaler included.
        every: so many steps are read together.
    """

    def __init__(self, model: nn.Module, device: torch.device, skips: bool = False, is_scaled: bool = False) -> None:
        self.model = model
        self.skips = skips
        self.is_scaled = is_scaled
        self.every = 1 if skips or device.type == "cpu" else STEPS_UNREAD
        self.skipped = 0
        self._recent: list[int] = []  # steps left out among the last WINDOW
        self._overflows = 0  # in a row
        self._loss = torch.zeros((), device=device)
        self._unread: list[tuple[int, float, Tensor]] = []  # step, learning rate, (2,) loss and gradient norm
        self._buffers: list[tuple[Tensor, Tensor]] = []  # each with its values before the step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.skips:
            self._buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]

    def add_loss(self, loss: Tensor) -> None:
        """Count the loss of a micro-batch, a scalar, to the step that it belongs to."""
        self._loss = self._loss + loss.detach()

    def end_step(self, step: int, learning_rate: float, grad_norm: Tensor | float | None) -> None:
        """The gradients of a step, counted from 1, are there; None: their norm is not known."""
        norm = torch.as_tensor(0.0 if grad_norm is None else grad_norm, device=self._loss.device)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self._unread.append((step, learning_rate, torch.stack([self._loss.float(), norm.detach().float()])))
        self._loss = torch.zeros_like(self._loss)

    @property
    def is_due(self) -> bool:
        return len(self._unread) >= self.every

    def read(self, gather: Callable[[Tensor], Tensor]) -> BadStep | None:
        """Judge the steps since the last reading.

        Args:
            gather: (n, 2) of this process -> (processes * n, 2); every process calls `read` after the same step.
        Returns:
            The first step after which the run must end.
        """
        if not self._unread:
            return None
        unread, self._unread = self._unread, []
        values = gather(torch.stack([value for _, _, value in unread])).cpu().double()
        sums = values.view(-1, len(unread), 2).sum(0)  # a value that is not finite makes its sum so
        for (step, learning_rate, _), (loss, norm) in zip(unread, sums.tolist(), strict=True):
            reason = self._judge(step, loss, norm)
            if reason is not None:
                return BadStep(step, learning_rate, reason)
        return None

    def was_left_out(self, step: int) -> bool:
        """Whether this step, already read, is one that `skips` leaves out."""
        return step in self._recent

    def restore_buffers(self) -> None:
        """Put back what the forward passes of this step have done to running statistics."""
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def _judge(self, step: int, loss: float, norm: float) -> str | None:
        """Count the step; why the run must end after it, if it must."""
        if math.isfinite(loss) and math.isfinite(norm):
            self._overflows = 0
            return None
        if math.isfinite(loss) and self.is_scaled:
            self.skipped += 1
            self._overflows += 1
            is_last = self._overflows >= MOST_OVERFLOWS
            return f"the gradients overflow, as in the {MOST_OVERFLOWS - 1} steps before" if is_last else None
        reason = (
            f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}, the loss is finite"
        )
        if not self.skips:
            return reason
        self.skipped += 1
        self._recent = [*(s for s in self._recent if s > step - WINDOW), step]
        if self._recent[-MOST_IN_A_ROW:] == list(range(step - MOST_IN_A_ROW + 1, step + 1)):
            return f"{reason}, as in the {MOST_IN_A_ROW - 1} steps before, which were left out"
        if len(self._recent) > MOST_IN_WINDOW:
            return f"{reason}, as in {MOST_IN_WINDOW} of the {WINDOW} steps before, which were left out"
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "recent": self._recent, "overflows": self._overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self._recent, self._overflows = state["skipped"], list(state["recent"]), state["overflows"]


def broken_tensor(model: nn.Module) -> str | None:
    """Name of the first weight that is not finite, or buffer that holds NaN (masks may hold infinities); None: all is well."""
    tensors = {name: torch.isfinite(_local(value.detach())).all() for name, value in model.named_parameters()}
    for name, value in model.named_buffers():
        if value.is_floating_point():
            tensors[name] = ~torch.isnan(_local(value)).any()
    device = next(model.parameters()).device
    fine = torch.stack([value.to(device) for value in tensors.values()]).tolist()  # one synchronisation
    return next((name for name, is_fine in zip(tensors, fine, strict=True) if not is_fine), None)


def refuse_broken_weights(model: nn.Module, name: str) -> None:
    """Raises:
    RunError: a weight is not finite; the message begins with `name` of the model.
    """
    broken = broken_tensor(model)
    if broken is not None:
        raise RunError(
            f"{name}: {broken} holds values that are not finite, so the model predicts nothing. Its training failed: train it "
            "again, for example with a lower training.learning_rate, or take an earlier checkpoint."
        )


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
