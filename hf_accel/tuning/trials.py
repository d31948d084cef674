"""One trial: a few steps of the real training line in a process of its own, with a time limit.

Running out of memory, a crash, a hang and a loss that is not finite are results. The trial trains on a part of the rows and
scores nothing; `trial_process` is the other side.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from hf_accel.config.recipe import Recipe
from hf_accel.config.selection import PLATEAU
from hf_accel.config.training import EARLY_STOPPING
from hf_accel.files import write_whole
from hf_accel.runs.forked import run_forked
from hf_accel.runs.process import failure_reason, run_process

PROCESS = "hf_accel.tuning.trial_process"
COMMAND = (sys.executable, "-m", PROCESS)
TASK, RESULT = "task.json", "result.json"
LOSS_STEPS = 3  # first steps whose loss is compared with the reference's
BATCHES, SCORED_BATCHES = 16, 2  # that the rows of a trial make, those that train and those that are scored
TRIAL_STEPS = 60  # the most; the same in every trial, because the schedule depends on it
# Settings of `training` that have no place in a trial, which neither scores, nor saves, nor publishes.
NOT_IN_A_TRIAL = (
    *EARLY_STOPPING, "auto_find_batch_size", "do_eval", "eval_delay", "eval_on_start", "eval_steps", "greater_is_better",
    "hub_model_id", "hub_token", "load_best_model_at_end", "logging_steps", "metric_for_best_model", "num_train_epochs",
    "push_to_hub", "report_to", "resume_from_checkpoint", "save_only_model", "save_steps", "save_total_limit",
)  # fmt: skip


@dataclass(frozen=True)
class Rung:
    """How long a trial measures: until both are reached, after the warm-up."""

    seconds: float
    steps: int = 2


RUNGS = (Rung(1.5), Rung(4.0))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one trial ended; a line of trials.jsonl.

    Attributes:
        techniques: in force, by name.
        number: tells trials of the same techniques and rung apart.
        error: why there are no figures; None: it finished.
        losses: of the first steps; of a range test, of all.
        learning_rates: of a range test, step by step.
        images_per_second, step_seconds, compile_seconds, data_wait_fraction, peak_memory_gib, peak_anonymous_gib: as in a report.
        compile_failure: why a compiled trial was eager.
        feature_seconds: computing the classifier's input before the first step, for `rows` rows.
        rows: that the trial trained on.
        joules_per_image: energy; None where it cannot be read.
        scoring_seconds_per_row: of an evaluation; None where it was not asked for.
        facts: of the model, the data and the machine; only of the first trial.
    """

    techniques: tuple[str, ...] = ()
    rung: int = 0
    number: int = 0
    wall_seconds: float = 0.0
    error: str | None = None
    losses: tuple[float, ...] = ()
    learning_rates: tuple[float, ...] = ()
    images_per_second: float | None = None
    step_seconds: float | None = None
    compile_seconds: float | None = None
    compile_failure: str | None = None
    data_wait_fraction: float | None = None
    feature_seconds: float | None = None
    rows: int | None = None
    peak_memory_gib: float | None = None
    peak_anonymous_gib: float | None = None
    joules_per_image: float | None = None
    scoring_seconds_per_row: float | None = None
    facts: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return "+".join(self.techniques) or "recipe"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises TypeError: the values are not those of a trial."""
        series = {name: tuple(values[name]) for name in ("techniques", "losses", "learning_rates")}
        series = {name: tuple(values[name]) for name in ("techniques", "losses", "learning_rates")}
        return cls(**{**values, **series})


@dataclass(frozen=True)
class Task:
    """What the process of a trial is asked for."""

    recipe: str  # path
    seconds: float
    steps: int
    learns_facts: bool = False  # and scores a few rows
    range_steps: int = 0  # of a range test; 0: a trial of the speed


def trial_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the settings of a trial."""
    training = {name: value for name, value in recipe.training.items() if name not in NOT_IN_A_TRIAL}
    training |= {
        "max_steps": TRIAL_STEPS,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "output_dir": str(folder / "run"),
    }
    if training.get("lr_scheduler_type") in PLATEAU:  # there is nothing that it could follow
        training |= {"lr_scheduler_type": "constant"}
        training.pop("lr_scheduler_kwargs", None)
    data = replace(recipe.data, progressive_resizing=None)  # images of full size
    if data.cache == "disk":
        data = replace(data, cache_dir=str(folder / "cache"))
    return replace(recipe, training=training, data=data, compress=None)


def run_trial(
    recipe: Recipe,
    folder: Path,
    rung: Rung,
    limit: float,
    learns_facts: bool = False,
    forked: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Trial:
    """Try a recipe; a failure is an outcome, not an exception.

    Args:
        folder: an empty folder for the files of the trial.
        limit: seconds after which the trial counts as hanging.
        forked: see `runs.forked`.
    """
    tried = trial_recipe(recipe, folder)
    return _run(tried, folder, limit, forked, tick, seconds=rung.seconds, steps=rung.steps, learns_facts=learns_facts)


def run_range_test(
    recipe: Recipe,
    folder: Path,
    steps: int,
    limit: float,
    forked: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Trial:
    """Train so many steps with a learning rate that grows; arguments as for `run_trial`."""
    tried = trial_recipe(recipe, folder)
    training = {name: value for name, value in tried.training.items() if not name.startswith("warmup_")}
    training |= {"max_steps": steps, "lr_scheduler_type": "constant"}
    training.pop("lr_scheduler_kwargs", None)
    return _run(replace(tried, training=training), folder, limit, forked, tick, seconds=0.0, steps=0, range_steps=steps)


def _run(recipe: Recipe, folder: Path, limit: float, forked: bool, tick: Callable[[], None], **asked: Any) -> Trial:
    path = folder / "trial.yaml"
    recipe.write(path)
    write_whole(folder / TASK, json.dumps(dataclasses.asdict(Task(recipe=str(path), **asked))))
    start = time.perf_counter()
    try:
        if forked:
            code, output = run_forked(PROCESS, [str(folder)], folder / "output.txt", tick, limit)
        else:
            code, output = run_process([str(folder)], folder / "output.txt", tick, command=COMMAND, limit=limit)
    except TimeoutError as error:
        return Trial(wall_seconds=time.perf_counter() - start, error=f"hangs: {error}")
    wall_seconds = time.perf_counter() - start
    result = folder / RESULT
    if code or not result.is_file():
        return Trial(wall_seconds=wall_seconds, error=failure_reason(code, output))
    return Trial.from_dict({**json.loads(result.read_text("utf-8")), "wall_seconds": wall_seconds})
