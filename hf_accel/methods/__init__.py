"""Techniques and corrections that change how a run trains, one module each.

A method is pure functions, and then at most one class that applies them to a run: a `TrainerCallback`, a context manager
around each step (of training and of evaluation), or an object that the Trainer asks about rows or losses.
`training/build.py` lists the methods of a recipe in the order in which they act, one line each, and hands the objects of
these classes to the Trainer. Such a class may have

- `rows(seed, epoch)` and a length: it chooses the rows of an epoch (`ChoosesRows`);
- `before_forward(rows, inputs)` and `loss_sum(logits, labels, loss)`: it follows each training batch, and may change
  its loss (`BatchLoss`);
- `before_training(counted)`: called once before the first step, for work that takes the place of work of the steps; its
  time counts as training within `counted()` (`BeforeTraining`);
- `after_forward()`: called between the forward and the backward pass of each training step (`AfterForward`);
- `in_place()`: a context in which the model has the weights that are evaluated (`EvaluatedWeights`);
- `state_dict()` and `load_state_dict(state)`, if it remembers something from step to step: each rank's state is saved in
  every checkpoint and loaded by a resume, before the first step;
- `joined(states, process)`: that state for one of another number of processes, if it is a part of a sum over all
  (`DiffersBetweenProcesses`); the states of others are those of the first process;
- `may_be_kept()`: whether the present weights may be the model that the run leaves (`KeptLater`);
- `figures()`: what is logged with the loss (`LoggedFigures`).

Where a method acts, in the order of a run: on the model before training (`whitening`); on the rows of an epoch (`row_losses`,
and `BalancedRows` of `inputs/sampling.py`), of which `linear_probe` stores the classifier's input; on the classifier before
the first step (`fitted_head`); on the batch (`transforms/`: augmentation, mixup, progressive resizing); around the step
(`cpu_kernels`, `batch_norm`); in the loss (`losses`, `distillation`); in the optimizer (`muon`, `timm_optimizers`,
`learning_rates`, `schedules`, `unfreezing`); after the step (`sparsity`); around the step and after it
(`quantization_aware`); after the step and in evaluation (`ema`); in evaluation (`transforms/views.py`).

The docstring of a module says what the method does, its source, its line in a recipe and its measured effect.
`tests/methods/test_matrix.py` takes every method through the same tests; a method refuses by name the
settings with which it cannot work.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@runtime_checkable
class BeforeTraining(Protocol):
    """A method with work of its own before the first step."""

    def before_training(self, counted: Callable[[], AbstractContextManager[None]]) -> None: ...


@runtime_checkable
class AfterForward(Protocol):
    """A method with something to do between the forward and the backward pass of a training step."""

    def after_forward(self) -> None: ...


@runtime_checkable
class BatchLoss(Protocol):
    """A method that follows each training batch, or changes its loss."""

    def before_forward(self, rows: Tensor, inputs: dict[str, Any]) -> None:
        """The numbers of the rows (B,) int64 and the model's arguments, within the precision of the step."""

    def loss_sum(self, logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
        """The sum of the losses of the batch, (): `loss` is what it was so far; labels as in `cross_entropy_sum`."""


@runtime_checkable
class ChoosesRows(Protocol):
    """A method that chooses the rows of an epoch; its length is their number, the same in every epoch."""

    note: str  # for the report

    def __len__(self) -> int: ...

    def rows(self, seed: int, epoch: int) -> np.ndarray: ...


@runtime_checkable
class EvaluatedWeights(Protocol):
    """A method whose weights, and not those that train, are evaluated and kept."""

    def in_place(self) -> AbstractContextManager[None]: ...


@runtime_checkable
class DiffersBetweenProcesses(Protocol):
    """What remembers sums over the rows of its process."""

    def joined(self, states: Sequence[dict[str, Any]], process: int) -> dict[str, Any]:
        """The state of this process, from those of all processes of a run that had more or fewer of them."""


@runtime_checkable
class KeptLater(Protocol):
    """A method that changes the weights step by step into a form that the kept model must have."""

    def may_be_kept(self) -> bool: ...


@runtime_checkable
class LoggedFigures(Protocol):
    """A method with figures of its own."""

    def figures(self) -> dict[str, float]: ...
