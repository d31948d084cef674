"""When memory runs out in a training step, the step is repeated with half as many rows in each forward pass.

The rows of a step, its effective batch, its augmentation and its loss stay: the batch of a process is divided, as with half
of the batch size and twice the accumulation steps, and the gradients of the parts are added up. What a failed attempt has
changed is put back first: gradients, running statistics, random numbers and the counts of the methods. Batch norm takes its
statistics from fewer rows, and dropout draws other numbers, as with accumulation.

Upstream's way of this argument (accelerate.utils.find_executable_batch_size) begins the run again, with batches of 90 % of
the rows, so the effective batch and the number of steps change; of several processes it leaves the others to wait for the
one that failed.

Several processes compute their gradients without DDP's exchange, in which a process that fails would leave the others to
wait. Once per step they agree on the rows of a forward pass and average the gradients, so this exchange does not overlap with
the backward pass.

Source: ours. Recipe: `training: {auto_find_batch_size: true}`. Measured: nothing.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from hf_accel.errors import RunError

logger = logging.getLogger(__name__)

Batch = dict[str, Any]
# A part of a batch, and the rows of the whole step -> its share of the loss, after the backward pass.
TrainRows = Callable[[Batch, Any], Tensor]


class SmallerBatches:
    """Trains a batch in parts, once memory has run out.

    Args:
        accelerator: of the Trainer.
        rows: of a batch of one process.
        changed: gives the objects that a forward pass changes, the model aside.

    Attributes:
        rows: the most rows of a forward pass; 0: memory ran out with the fewest that there can be.
        halvings: (step, rows from this step on) of each step in which memory ran out.
    """

    def __init__(self, accelerator: Accelerator, rows: int, changed: Callable[[], Sequence[object]]) -> None:
        self.accelerator = accelerator
        self.asked = self.rows = rows
        self.changed = changed
        self.halvings: list[tuple[int, int]] = []
        self._reason = "in another process"

    def train(self, model: nn.Module, batch: Batch, num_items: Any, step: int, train_rows: TrainRows) -> Tensor:
        """Train a batch in as many parts as it takes.

        Args:
            model: as it is trained, wrapped by DDP in several processes.
            num_items: the rows of the whole step; None: those of the batch.
            step: its number, from 1.
        Returns:
            The loss of the batch, ().
        Raises:
            RunError: memory runs out with the fewest rows; in every process, and after the last batch of the step.
        """
        loss = torch.zeros((), device=self.accelerator.device)
        if self.rows:
            with self.accelerator.no_sync(model):
                loss = self._train_parts(
                    model, batch, len(batch["labels"]) if num_items is None else num_items, train_rows
                )
        if self.accelerator.sync_gradients:  # the last batch of the step
            if isinstance(model, DistributedDataParallel):
                self.rows = exchange_gradients(model, self.rows)
            if self.rows < (self.halvings[-1][1] if self.halvings else self.asked):
                self._tell(model, step)
        return loss

    def _train_parts(self, model: nn.Module, batch: Batch, num_items: Any, train_rows: TrainRows) -> Tensor:
        before = _Before(model, self.accelerator.device, self.changed())
        fewest = fewest_rows(model)
        while self.rows:
            try:
                loss = torch.stack([train_rows(part, num_items) for part in parts(batch, self.rows, fewest)]).sum()
                before.add_gradients()
                return loss
            except RuntimeError as error:
                if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                    raise
                self._reason = " ".join(str(error).split()).split(". ")[0][:200]
            # here the frames of the error, which hold tensors, are gone
            before.restore()
            clear_device_cache(garbage_collection=True)
            halved = min(self.rows, len(batch["labels"])) // 2
            self.rows = halved if halved >= fewest else 0
        return torch.zeros((), device=self.accelerator.device)

    def _tell(self, model: nn.Module, step: int) -> None:
        if not self.rows:
            raise RunError(
                f"step {step}: memory ran out with {fewest_rows(model)} row(s) in a forward pass ({self._reason}). What was "
                "saved before stays. Set a smaller data.image_size, training.gradient_checkpointing: true, or end other programs."
            )
        self.halvings.append((step, self.rows))
        consequence = (
            f", but batch norm takes its statistics from {self.rows} rows, so the result is not that of enough memory"
        )
        logger.warning(
            "step %d: memory ran out (%s). The step was repeated with at most %d of the %d rows of a batch in each forward pass, "
            "as the later ones are: the rows of each step stay%s.",
            step,
            self._reason,
            self.rows,
            self.asked,
            consequence if learns_statistics(model) else "",
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "halvings": [list(halving) for halving in self.halvings]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = min(self.asked, state["rows"])
        self.halvings = [(step, rows) for step, rows in state["halvings"]]


def learns_statistics(model: nn.Module) -> bool:
    """Whether batch norm takes its statistics from the rows of a forward pass."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def fewest_rows(model: nn.Module) -> int:
    """The rows that a forward pass must have: a single one has no variance, which torch refuses for maps of one pixel."""
    return 2 if learns_statistics(model) else 1


def parts(batch: Batch, rows: int, fewest: int = 1) -> Iterator[Batch]:
    """A batch in parts of nearly the same size, in their order; what is not of single rows is in each of them.

    Args:
        rows: the most rows of a part; one more if they could not have `fewest` otherwise.
    """
    count = len(batch["labels"])
    number = -(-count // rows)
    number = number if count // number >= fewest else max(1, count // fewest)
    for place in torch.arange(count).tensor_split(number):
        start, end = int(place[0]), int(place[-1]) + 1
        yield {
            name: value[start:end] if isinstance(value, Tensor) and value.shape[:1] == (count,) else value
            for name, value in batch.items()
        }


def exchange_gradients(model: DistributedDataParallel, rows: int) -> int:
    """Average the gradients of all processes, as DDP does; the buffers become those of the first.

    Args:
        rows: the most rows of a forward pass of this process; 0: it could not train all of its batches.
    Returns:
        The fewest rows of all processes; if 0, nothing was averaged.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    facts = [-rows, *(int(parameter.grad is not None) for parameter in parameters)]
    agreed = torch.tensor(facts, device=parameters[0].device)
    distributed.all_reduce(agreed, op=distributed.ReduceOp.MAX)
    fewest, *used = agreed.tolist()
    if fewest == 0:
        return 0
    for parameter, is_used in zip(parameters, used, strict=True):
        if is_used and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    _together(gradients, lambda flat: distributed.all_reduce(flat.div_(distributed.get_world_size())))
    if model.broadcast_buffers:
        floats = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        _together(floats, lambda flat: distributed.broadcast(flat, src=0))
    return -fewest


def _together(tensors: Sequence[Tensor], act: Callable[[Tensor], Any]) -> None:
    """Act once on all tensors of a type, in place of once on each."""
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        of_kind = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in of_kind])
        act(flat)
        for tensor, values in zip(of_kind, flat.split([tensor.numel() for tensor in of_kind]), strict=True):
            tensor.copy_(values.view_as(tensor))


class _Before:
    """What the training of a batch changes, as it was before."""

    def __init__(self, model: nn.Module, device: torch.device, changed: Sequence[object]) -> None:
        self.parameters = [(parameter, parameter.grad) for parameter in model.parameters()]
        self._drop_gradients()
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self.states = [(each, _copied(vars(each))) for each in changed]
        self.module = None if device.type == "cpu" else torch.get_device_module(device)
        self.random = torch.get_rng_state(), None if self.module is None else self.module.get_rng_state()

    def restore(self) -> None:
        """Put everything back but the gradients of the batches before, which `add_gradients` needs."""
        self._drop_gradients()
        for buffer, before in self.buffers:
            buffer.detach().copy_(before)
        for each, state in self.states:
            vars(each).update(_copied(state))
        cpu, device = self.random
        torch.set_rng_state(cpu)
        if self.module is not None:
            self.module.set_rng_state(device)

    def add_gradients(self) -> None:
        """Add the gradients of this batch to those of the batches before."""
        for parameter, before in self.parameters:
            if before is not None:
                parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)

    def _drop_gradients(self) -> None:
        for parameter, _ in self.parameters:
            parameter.grad = None


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone()
        if isinstance(value, Tensor)
        else copy.copy(value)
        if isinstance(value, set | list)
        else value
        for name, value in state.items()
    }
