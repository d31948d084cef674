"""Where the model of a run comes from: the recipe, a caller's model, or a caller's function that makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_utils import number_of_arguments

from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.models.given import classes_of_model, describe_model
from hf_accel.models.loaded import Loaded
from hf_accel.runs.folder import RunFolder
from hf_accel.tasks import TASKS

if TYPE_CHECKING:
    from hf_accel.tasks.image_inputs import OwnTransforms


@dataclass
class GivenModel:
    """The model that a caller brings, if any; false where there is none."""

    model: Any = None
    init: Callable[..., Any] | None = None  # of no argument, or of a trial
    processor: BaseImageProcessor | PreTrainedTokenizerBase | None = None

    def __post_init__(self) -> None:
        self.is_both = self.model is not None and self.init is not None
        if self.init is not None and self.model is None:
            self.model = self.init() if number_of_arguments(self.init) == 0 else self.init(None)

    def __bool__(self) -> bool:
        return self.model is not None

    def refuse_contradictions(self, loaded: Loaded | None) -> None:
        """Raises UserError: more than one model is given, or a processor without a model."""
        if self.is_both or (self and loaded is not None):
            raise UserError("model, model_init, loaded: two of them are given, and a run has one model. Leave one out.")
        if self.processor is not None and not self:
            raise UserError(
                "processor: is that of a given model, and none is given. Add model=, or set data.image_size."
            )

    def name(self) -> str:
        return describe_model(self.model)

    def label_names(self) -> list[str] | None:
        """The names of the model's classes, where it has any."""
        return classes_of_model(self.model) if self else None

    def load(self, recipe: Recipe, splits: Splits, own: OwnTransforms) -> Loaded:
        """The model with a head for these labels, ready to be trained; raises UserError where it cannot be."""
        task = TASKS[recipe.model.task]
        if not self:
            return task.load_model(from_run_folder(recipe), splits.label_names)
        return task.adopt_model(self.model, recipe, splits, self.processor, own)

    @property
    def is_single(self) -> bool:
        """Whether it exists once, so that no run can begin again with new weights."""
        return bool(self) and self.init is None

    def again(self, model: Any) -> GivenModel:
        """The same with new weights: a model that a caller's function has made; None: the recipe makes it."""
        return GivenModel(model, processor=self.processor)


def from_run_folder(recipe: Recipe) -> Recipe:
    """The same recipe; where its model is the folder of a run, with the model in that folder."""
    model = RunFolder(recipe.model.name).model
    return replace(recipe, model=replace(recipe.model, name=str(model))) if model.is_dir() else recipe
