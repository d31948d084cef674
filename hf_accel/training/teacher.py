"""The teacher of a run that distils one: loaded, compared with the data, and ready to answer the student's batches."""

from __future__ import annotations

from typing import Any

from torch import nn

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.methods.distillation import DEFAULT_TEMPERATURE, DEFAULT_WEIGHT, Distillation, class_order
from hf_accel.methods.finite import broken_tensor
from hf_accel.models.head import known_labels
from hf_accel.models.layout import use_channels_last
from hf_accel.runs.named_model import model_place
from hf_accel.tasks import TASKS
from hf_accel.tasks.image_inputs import ImageInputs
from hf_accel.tasks.text_classification import TextInputs
from hf_accel.training.arguments import Arguments

SETTING = "model.teacher"


def distillation(recipe: Recipe, arguments: Arguments, inputs: ImageInputs | TextInputs) -> Distillation | None:
    """What the recipe's teacher adds to the loss, with the teacher on the training device; None without one.

    Raises:
        UserError: the teacher cannot be loaded, is broken, or has other classes than the data; of texts, other tokens.
    """
    name, settings = recipe.model.teacher, arguments.methods
    weight = settings.get("distillation_weight", DEFAULT_WEIGHT)
    if name is None or weight == 0:
        return None
    loaded = load_teacher(recipe, name)
    try:
        order = class_order(known_labels(loaded.model.config), inputs.label_names)
    except ValueError as error:
        raise UserError(
            f"{recipe.name}: {SETTING} is {name}, whose classes are not those of the data: {error}. Expected a model that was "
            "fine-tuned for the same class names, in any order."
        ) from None
    if recipe.model.channels_last:
        use_channels_last(loaded.model)
    view = inputs.teacher_view(loaded)
    temperature = settings.get("distillation_temperature", DEFAULT_TEMPERATURE)
    model = nn.Module.to(loaded.model, arguments.training.device)
    return Distillation(name, model, order, view, weight, temperature)


def load_teacher(recipe: Recipe, name: str) -> Any:
    """The model of a run's folder, a model's folder or an id on the Hub.

    Raises:
        UserError: it cannot be loaded, or holds values that are not finite.
    """
    try:
        place = model_place(name)
    except UserError as error:
        raise UserError(f"{SETTING}: {error}") from None
    loaded = TASKS[recipe.model.task].load_trained(place, setting=SETTING)
    broken = broken_tensor(loaded.model)
    if broken is not None:
        raise UserError(
            f"{recipe.name}: {SETTING} is {name}, whose {broken} holds values that are not finite. Expected a model that "
            "predicts something: take another one, or an earlier checkpoint."
        )
    return loaded
