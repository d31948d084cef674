"""What a whole run costs with some techniques: its time, memory, energy and money, from a trial of a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hf_accel.comparison.forecast import batch_of, images_of
from hf_accel.config.recipe import Recipe
from hf_accel.config.selection import selection_defaults
from hf_accel.tuning.space import Facts
from hf_accel.tuning.trials import Trial

GIB = 2**30
START_SECONDS = 8.0  # importing, loading and writing the page, until a confirmed run has shown it


@dataclass(frozen=True)
class Expected:
    """A whole run; seconds of its parts, in the order in which they come.

    Attributes:
        start: everything that no other part counts.
        fill: decoding the images that are kept.
        features: computing the classifier's input before the first step.
        compiling: beyond what the steps take.
        steps: optimisation.
        scoring: evaluations, and the test rows.
        peak_gib: of the device, or of the process on a CPU; None: not measured.
        joules: None: it cannot be read.
    """

    start: float
    fill: float
    features: float
    compiling: float
    steps: float
    scoring: float
    peak_gib: float | None
    joules: float | None

    @property
    def seconds(self) -> float:
        return self.start + self.training_seconds + self.scoring

    @property
    def training_seconds(self) -> float:
        """What techniques change."""
        return self.fill + self.features + self.compiling + self.steps

    def price(self, per_hour: float) -> float:
        return self.seconds / 3600 * per_hour


def expected_run(recipe: Recipe, facts: Facts, trial: Trial, start_seconds: float = START_SECONDS) -> Expected | None:
    """The run that a finished trial foretells; None for one without figures.

    Args:
        start_seconds: of a run, before and after all that is measured here.
    """
    if trial.error is not None or not trial.images_per_second:
        return None
    images = images_of(recipe, facts.train_rows)
    rows = trial.rows or facts.train_rows
    scored = num_evaluations(recipe, facts) * facts.scored_rows + facts.test_rows
    joules = None if trial.joules_per_image is None else trial.joules_per_image * images
    return Expected(
        start=start_seconds,
        fill=fill_seconds(recipe, facts),
        features=(trial.feature_seconds or 0.0) * facts.train_rows / rows,
        compiling=(trial.compile_seconds or 0.0) * num_compilations(recipe, facts),
        steps=images / trial.images_per_second,
        scoring=scored * (trial.scoring_seconds_per_row or 0.0),
        peak_gib=peak_gib(recipe, facts, trial, rows),
        joules=joules,
    )


def fill_seconds(recipe: Recipe, facts: Facts) -> float:
    """Seconds in which a run decodes the images that it keeps, those that it scores included."""
    if recipe.data.cache == "none" or facts.fill_seconds_per_row is None:
        return 0.0
    return facts.fill_seconds_per_row * (facts.train_rows + facts.scored_rows + facts.test_rows)


def num_compilations(recipe: Recipe, facts: Facts) -> int:
    """How often the network is compiled: the last batch of an epoch has another size, unless it is dropped."""
    whole = facts.train_rows % recipe.training.get("per_device_train_batch_size", 8) == 0
    return 1 if whole or recipe.training.get("dataloader_drop_last") else 2


def num_evaluations(recipe: Recipe, facts: Facts) -> int:
    """How often the whole run scores its validation rows."""
    if not facts.scored_rows:
        return 0
    steps = math.ceil(images_of(recipe, facts.train_rows) / batch_of(recipe))
    training = recipe.training
    chosen: dict[str, Any] = {
        name: value for name, (value, _) in selection_defaults(recipe.name, training, True, False, True).items()
    }
    chosen |= training
    if chosen["eval_strategy"] == "steps":
        every = chosen.get("eval_steps") or chosen.get("logging_steps") or 500
        return max(1, int(steps // max(1, every * steps if every < 1 else every)))
    epochs = steps * batch_of(recipe) / facts.train_rows
    return math.ceil(epochs) if chosen["eval_strategy"] == "epoch" else 0


def peak_gib(recipe: Recipe, facts: Facts, trial: Trial, rows: int) -> float | None:
    """The peak of the whole run: that of the trial, and the rows that the trial did not keep."""
    peak = trial.peak_anonymous_gib if trial.peak_memory_gib is None else trial.peak_memory_gib
    if peak is None:
        return None
    kept_here = recipe.data.cache == ("memory" if trial.peak_memory_gib is None else "device")
    missing = max(0, facts.train_rows + facts.scored_rows + facts.test_rows - rows)
    return peak + (missing * (facts.cached_bytes_per_row or 0.0) / GIB if kept_here else 0.0)
