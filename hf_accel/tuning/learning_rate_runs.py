"""`tune --learning_rate`: the range test in a process of its own, short runs around its suggestion, and the result."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_accel.comparison.forecast import batch_of, images_of
from hf_accel.comparison.rounds import measure
from hf_accel.comparison.runs import Machine
from hf_accel.comparison.table import DEFAULT_LEARNING_RATE
from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.runs.forked import can_fork
from hf_accel.tuning.bench import TrialBench
from hf_accel.tuning.candidates import Candidates
from hf_accel.tuning.confirm import OTHER_SECONDS, Confirmation, short_run
from hf_accel.tuning.learning_rate import best_rate, rates_to_run, suggestion
from hf_accel.tuning.record import Record
from hf_accel.tuning.trials import Trial, run_range_test

FEWEST_STEPS, MOST_STEPS = 20, 100  # of the range test
SHARE_OF_RANGE_TEST = 0.3  # of the budget
FEWEST_RUN_STEPS = 10


@dataclass(kw_only=True)
class LearningRate:
    """The result, `learning_rate.json`.

    Attributes:
        own: of the recipe.
        suggested: by the range test; None: its loss never falls.
        curve: (rate, loss) of each step of the range test.
        runs: rate, steps, loss (of the validation rows, else the training loss at the end), accuracy and error of each run.
        selected_by: what `loss` is.
        best: own, unless another rate is clearly better.
    """

    recipe: str
    own: float
    suggested: float | None
    best: float
    selected_by: str
    curve: list[list[float]]
    runs: list[dict[str, Any]]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def patch(self) -> dict[str, Any]:
        return {} if self.best == self.own else {"training": {"learning_rate": self.best}}


def tune_learning_rate(candidates: Candidates, folder: Path, budget: float, machine: Machine, key: str) -> LearningRate:
    """Find a rate, and write `learning_rate.json`.

    Args:
        folder: where trials and runs are kept.
        budget: seconds for all of it.
        key: of the recipe and the machine, for trials that were done.
    Raises:
        UserError: the recipe cannot run, or the budget is too small for it.
    """
    plain = candidates.plain
    forked = can_fork(machine.environment.get("device"))
    bench = TrialBench(candidates, Record(folder / "trials.jsonl", key), folder, budget, forked=forked)
    first = bench.begin()
    step_seconds = first.step_seconds or 0.01
    curve = _curve(bench, plain, folder, budget, step_seconds)
    own = float(plain.training.get("learning_rate", DEFAULT_LEARNING_RATE))
    suggested = suggestion(curve.learning_rates, curve.losses)
    rates = rates_to_run(suggested, own)
    steps = _steps_of_runs(bench, plain, budget - bench.seconds, len(rates), step_seconds)
    recipes = {}
    for rate in rates:
        recipe = candidates.with_patch({"training": {"learning_rate": rate}})
        rows = steps * batch_of(plain)
        recipes[f"learning_rate_{rate:g}"] = short_run(recipe, bench.facts, steps, folder, _rows(plain, rows))
    runs = measure(Confirmation(recipes, folder / "learning_rates", machine, rounds=1))
    found = [_run(rate, runs[name][0], steps) for rate, name in zip(rates, recipes, strict=True)]
    notes = [] if curve.error is None else [f"The range test ended early: {curve.error}."]
    result = LearningRate(
        recipe=plain.name,
        own=own,
        suggested=suggested,
        best=best_rate({run["rate"]: run["loss"] for run in found}, own),
        selected_by="validation loss" if bench.facts.scored_rows else "training loss",
        curve=[list(pair) for pair in zip(curve.learning_rates, curve.losses, strict=False)],
        runs=found,
        environment=machine.environment,
        notes=notes,
    )
    write_whole(folder / "learning_rate.json", json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    return result


def _curve(bench: TrialBench, plain: Recipe, folder: Path, budget: float, step_seconds: float) -> Trial:
    """The range test, once."""
    known = bench.record.find(("range_test",), 0, 0)
    if known is not None:
        return known
    steps = int(min(MOST_STEPS, max(FEWEST_STEPS, SHARE_OF_RANGE_TEST * budget / step_seconds)))
    place = folder / "trial"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    limit = bench.first.wall_seconds + 4 * steps * step_seconds + OTHER_SECONDS
    trial = dataclasses.replace(run_range_test(plain, place, steps, limit, bench.forked), techniques=("range_test",))
    bench.record.add(trial)
    shutil.rmtree(place, ignore_errors=True)
    return trial


def _steps_of_runs(bench: TrialBench, plain: Recipe, left: float, num_runs: int, step_seconds: float) -> int:
    """Optimizer steps of each short run; at most those of the whole one."""
    of_each = left / num_runs - bench.typical_seconds() - OTHER_SECONDS
    steps = int(of_each / step_seconds)
    if steps < FEWEST_RUN_STEPS:
        needed = num_runs * (FEWEST_RUN_STEPS * step_seconds + OTHER_SECONDS + bench.typical_seconds())
        minutes = round((needed + bench.seconds) / 60 + 0.5)
        raise UserError(
            f"--budget: {num_runs} runs of {FEWEST_RUN_STEPS} steps do not fit, expected at least {minutes}m for "
            f"{plain.name}. The range test is kept: the same command with a larger --budget continues."
        )
    whole = images_of(plain, bench.facts.train_rows) / batch_of(plain)
    return max(FEWEST_RUN_STEPS, min(steps, int(whole)))


def _rows(plain: Recipe, rows: int) -> int:
    """Training rows that are drawn, so that this many are left when the validation rows are held out."""
    return int(rows / (1 - plain.data.validation)) + 1


def _run(rate: float, outcome: Any, steps: int) -> dict[str, Any]:
    report = outcome.report
    if report is None:
        return {"rate": rate, "steps": steps, "loss": None, "accuracy": None, "error": outcome.error}
    scores = report.validation
    loss = report.train.final_loss if scores is None else scores.loss
    accuracy = None if scores is None else scores.accuracy
    return {"rate": rate, "steps": steps, "loss": loss, "accuracy": accuracy, "error": None}
