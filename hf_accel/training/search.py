"""`hyperparameter_search`: every trial begins with new weights, and the Trainer is usable afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerCallback, set_seed

from hf_accel.errors import UserError
from hf_accel.measure.steps import Measurement, Stopwatch
from hf_accel.models.given import base_of

if TYPE_CHECKING:
    from hf_accel.training.trainer import ImageTrainer


def search(trainer: ImageTrainer, search_upstream: Callable[[], Any]) -> Any:
    """See `ImageTrainer.hyperparameter_search`."""
    if trainer.eval_dataset is None:
        raise UserError(
            "hyperparameter_search: trials are compared on validation rows, and there are none. Set data.validation, for "
            "example 0.1."
        )
    if trainer.begin_again is None:
        raise UserError(
            "hyperparameter_search: every trial begins with new weights, and a model that is given exists once. Give "
            "build_trainer model_init=, a function that makes it, in place of model=."
        )
    before, asked = dict(vars(trainer.args)), trainer.model_init
    trainer.model_init = of_recipe if asked is None else asked
    try:
        return search_upstream()
    finally:
        # upstream leaves no model, and the arguments of the last trial
        vars(trainer.args).update(before)
        trainer.create_accelerator_and_postprocess()
        set_seed(trainer.args.seed)
        trainer.call_model_init()
        trainer.model = trainer.model_wrapped = nn.Module.to(trainer.loaded.model, trainer.args.device)
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.model_init = asked


def begin_again(trainer: ImageTrainer, make_upstream: Callable[[], nn.Module]) -> nn.Module:
    """A new model, prepared as the first was; what is counted of a run begins at zero."""
    assert trainer.begin_again is not None, "a model that exists once has no model_init"
    made = None if trainer.model_init is of_recipe else make_upstream()
    before = trainer.methods
    trainer.loaded, trainer.methods = trainer.begin_again(made)
    for method in (method for method in before if isinstance(method, TrainerCallback)):
        trainer.remove_callback(method)
    for method in (method for method in trainer.methods if isinstance(method, TrainerCallback)):
        trainer.add_callback(method)
    trainer.processing_class = trainer.loaded.processor
    refuse_loss_kwargs(trainer.loaded.model)
    trainer.finite_steps.model = trainer.loaded.model
    trainer.finite_steps.load_state_dict({"skipped": 0, "recent": [], "overflows": 0})
    trainer.train_accuracy_counts.load_state_dict({"correct": 0, "seen": 0, "epoch": 0})
    trainer.measurement.set_sums(Measurement(Stopwatch(trainer.args.device)).sums())
    return trainer.loaded.model


def of_recipe() -> None:
    """Stands for `model_init` where the recipe makes the model of each trial."""


def refuse_loss_kwargs(model: nn.Module) -> None:
    """Keep the Trainer from handing the row count of an accumulation window to the model, whose head would take it."""
    for part in (model, base_of(model)):
        part.accepts_loss_kwargs = False
