"""The line of a run up to its first step, with every refusal on the way collected; nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hf_accel.compression.packages import refuse_missing_packages
from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import Splits
from hf_accel.errors import RunError, UserError, machine_failure, own_words
from hf_accel.formatting import format_million
from hf_accel.runs.output_place import writable_place
from hf_accel.tasks import TASKS
from hf_accel.training.arguments import choose_precision, training_arguments
from hf_accel.training.build import build_trainer

Result = TypeVar("Result")


@dataclass
class Rehearsal:
    """What stands in the way of a run.

    Attributes:
        problems: messages; none: the run can start.
        chosen: what was chosen for the user, and why, as the log of the run has it.
        splits: the data, if it could be opened.
        place: the existing folder in which the output folder is or can be made, if there is one.
    """

    problems: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    splits: Splits | None = None
    place: Path | None = None

    def attempt(self, part: Callable[[], Result]) -> Result | None:
        """The result of a part of the run; None where it fails, and the reason is a problem."""
        try:
            return part()
        except (UserError, RunError) as error:
            self.problems.append(own_words(error))
        except Exception as error:  # whatever it is, the run would meet it too
            self.problems.append(machine_failure(error) or " ".join(f"{type(error).__name__}: {error}".split()))
        return None


def rehearse(recipe: Recipe) -> Rehearsal:
    """Do all that a run of this recipe does before its first step: packages, arguments, data, model, trainer."""
    found = Rehearsal()
    if recipe.compress is not None:
        found.attempt(lambda: refuse_missing_packages(f"{recipe.name}: compress"))
    found.place = found.attempt(lambda: writable_place(recipe.output_dir))
    arguments = found.attempt(lambda: training_arguments(recipe, has_validation=recipe.data.validation > 0))
    seed = arguments.training.seed if arguments else int(recipe.training.get("seed", 42))
    task: Any = TASKS[recipe.model.task]
    splits = found.splits = found.attempt(lambda: task.open_splits(recipe.data, seed))
    if arguments is None or splits is None:
        return found
    with tempfile.TemporaryDirectory() as scratch:
        arguments.training.output_dir = scratch  # the Trainer makes its folder when it is built
        trainer = found.attempt(lambda: build_trainer(recipe, splits, arguments=arguments))
    if trainer is not None:
        loaded = trainer.loaded
        model = f"{recipe.model.name}, {format_million(loaded.parameters)} parameters, {task.size_of_row(loaded)}"
        _, precision = choose_precision(recipe.name, recipe.training, arguments.training.device.type)
        found.chosen = [model, f"precision: {precision}"]
    return found
