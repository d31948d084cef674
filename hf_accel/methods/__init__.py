"""Techniques and corrections that change how a run trains, one module each.

A method is pure functions, and then at most one class that applies them to a run: a `TrainerCallback`, or a context
manager around each step (of training and of evaluation). `training/build.py` lists the methods of a recipe in the order
in which they act, one line each, and hands the objects of these classes to the Trainer. Beyond that a class may have

- `after_forward()`: called between the forward and the backward pass of each training step (`AfterForward`);
- `in_place()`: a context in which the model has the weights that are evaluated (`EvaluatedWeights`);
- `state_dict()` and `load_state_dict(state)`, if it remembers something from step to step: each rank's state is saved in
  every checkpoint and loaded by a resume, before the first step;
- `may_be_kept()`: whether the present weights may be the model that the run leaves (`KeptLater`);
- `figures()`: what is logged with the loss (`LoggedFigures`).

Where a method acts, in the order of a run: on the model before training (`whitening`); on the batch (`transforms/`:
mixup, progressive resizing, alternating flip); around the step (`cpu_kernels`, `batch_norm`); in the loss (`losses`);
in the optimizer (`muon`, `learning_rates`); after the step (`sparsity`); after the step and in evaluation (`ema`); in
evaluation (`transforms/views.py`).

The docstring of a module says what the method does, its source, its line in a recipe and its measured effect.
`tests/methods/test_matrix.py` takes every method through the same tests; a method refuses by name the
settings with which it cannot work.
"""

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


@runtime_checkable
class AfterForward(Protocol):
    """A method with something to do between the forward and the backward pass of a training step."""

    def after_forward(self) -> None: ...


@runtime_checkable
class EvaluatedWeights(Protocol):
    """A method whose weights, and not those that train, are evaluated and kept."""

    def in_place(self) -> AbstractContextManager[None]: ...


@runtime_checkable
class KeptLater(Protocol):
    """A method that changes the weights step by step into a form that the kept model must have."""

    def may_be_kept(self) -> bool: ...


@runtime_checkable
class LoggedFigures(Protocol):
    """A method with figures of its own."""

    def figures(self) -> dict[str, float]: ...
