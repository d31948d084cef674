"""The confirmation: the recipe and the tuned recipe in turn, as `compare` runs them, with an evaluation and a checkpoint.

Trials choose; only whole runs of `hf-accel train`, in fresh processes, decide whether the choice is proposed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_accel.comparison.export import write_comparison
from hf_accel.comparison.fingerprints import DataFingerprints
from hf_accel.comparison.forecast import batch_of, pace_of
from hf_accel.comparison.page import write_comparison_page
from hf_accel.comparison.rounds import measure
from hf_accel.comparison.runs import Machine, PlannedRun, plan_run
from hf_accel.comparison.schema import Comparison, Entry, RunOutcome
from hf_accel.comparison.table import build_comparison
from hf_accel.config.recipe import Recipe
from hf_accel.measure.paired import PairedRatio, paired_ratio, verdicts
from hf_accel.report.run_report import RunReport
from hf_accel.tuning.estimate import Expected, expected_run, fill_seconds
from hf_accel.tuning.space import Facts
from hf_accel.tuning.trials import BATCHES, NOT_IN_A_TRIAL, SCORED_BATCHES, Trial

RECIPE, TUNED = "recipe", "tuned"
FEWEST_ROUNDS, MOST_ROUNDS = 3, 5
WARM_UP_STEPS, FEWEST_STEPS, MOST_STEPS = 3, 3, 200
MEASURED_SECONDS = 6.0  # of optimisation per run
OTHER_SECONDS = 12.0  # of a run: starting, scoring, saving, plots


@dataclass(frozen=True)
class Confirmed:
    """What the runs say.

    Attributes:
        ratio: cost of the recipe over the cost of the tuned one: seconds of the whole run, or GiB.
        verdict: better, worse, no measurable difference.
        start_seconds: of a run, beyond what is counted elsewhere.
        wall_seconds: of all runs.
    """

    ratio: PairedRatio
    verdict: str
    comparison: Comparison
    start_seconds: float
    wall_seconds: float


class Confirmation:
    """The plan of these runs, as `comparison.rounds.measure` reads it.

    Args:
        recipes: name of the entry -> its recipe, shortened by `short_run`.
        folder: for the runs.
    """

    def __init__(self, recipes: dict[str, Recipe], folder: Path, machine: Machine, rounds: int) -> None:
        self.entries = [Entry(name, recipe) for name, recipe in recipes.items()]
        self.baseline = next(iter(recipes))
        self.folder, self.machine, self.repeats = folder, machine, rounds
        self.data_fingerprint: Callable[[Entry, int], str] = DataFingerprints()
        folder.mkdir(parents=True, exist_ok=True)
        for entry in self.entries:
            entry.recipe.write(self._file(entry))

    def round(self, number: int) -> list[PlannedRun]:
        """The runs of a round; every other one is in reverse order."""
        options = {entry.name: ["--recipe", str(self._file(entry))] for entry in self.entries}
        runs = [plan_run(entry, number, self.folder, options[entry.name], self.machine) for entry in self.entries]
        return runs if number % 2 == 0 else runs[::-1]

    def _file(self, entry: Entry) -> Path:
        return self.folder / f"{entry.name}.yaml"


def short_run(recipe: Recipe, facts: Facts, steps: int, folder: Path, train_rows: int | None = None) -> Recipe:
    """The recipe with so many steps, then an evaluation and a checkpoint, on a part of the rows.

    Args:
        folder: for a cache on disk.
        train_rows: of the part; None: some batches.
    """
    training = {name: value for name, value in recipe.training.items() if name not in NOT_IN_A_TRIAL}
    training |= {"max_steps": steps, "save_strategy": "steps", "save_steps": steps, "save_total_limit": 1}
    training |= {"eval_strategy": "steps", "eval_steps": steps} if facts.scored_rows else {"eval_strategy": "no"}
    data = replace(recipe.data, progressive_resizing=None)
    if not data.streaming:
        rows = train_rows or math.ceil(BATCHES * batch_of(recipe) / (1 - data.validation))
        scored = SCORED_BATCHES * recipe.training.get("per_device_eval_batch_size", 8)
        data = replace(data, max_train_rows=_fewer(data.max_train_rows, rows, facts.train_rows))
        data = replace(data, max_test_rows=_fewer(data.max_test_rows, scored, facts.test_rows))
    if data.cache == "disk":
        data = replace(data, cache_dir=str(folder / "cache"))
    return replace(recipe, training=training, data=data, compress=None)


def _fewer(asked: int | None, rows: int, there_are: int) -> int | None:
    return asked if rows >= there_are or (asked is not None and asked <= rows) else rows


def steps_of(step_seconds: float) -> int:
    """Optimizer steps of each run."""
    measured = math.ceil(MEASURED_SECONDS / max(step_seconds, 1e-6))
    return WARM_UP_STEPS + min(MOST_STEPS, max(FEWEST_STEPS, measured))


def seconds_of_a_run(step_seconds: float, trial_seconds: float) -> float:
    """How long a run of the confirmation takes, as far as trials tell."""
    return trial_seconds + OTHER_SECONDS + steps_of(step_seconds) * step_seconds


def confirm(
    plain: Recipe,
    tuned: Recipe,
    facts: Facts,
    step_seconds: float,
    folder: Path,
    machine: Machine,
    rounds: int,
    objective: str,
) -> Confirmed | None:
    """Run both in turn; None where either has no finished pair.

    Args:
        step_seconds: of the recipe.
        folder: of the confirmation; runs that are there already are used again.
    """
    steps = steps_of(step_seconds)
    recipes = {name: short_run(one, facts, steps, folder) for name, one in ((RECIPE, plain), (TUNED, tuned))}
    plan = Confirmation(recipes, folder, machine, rounds)
    runs = measure(plan)
    comparison = build_comparison(plan.entries, runs, RECIPE)
    write_comparison(comparison, folder, with_paper=False)
    write_comparison_page(folder)
    pairs = paired_runs(runs)
    if not pairs:
        return None
    costs = [
        (cost_of(plain, facts, one.measured, objective), cost_of(tuned, facts, other.measured, objective))
        for one, other in pairs
    ]
    known = [(one, other) for one, other in costs if one is not None and other is not None]
    if not known:
        return None
    ratio = paired_ratio([one for one, _ in known], [other for _, other in known])
    ((verdict, _),) = verdicts([ratio], "better", "worse")
    start = start_seconds(tuned, facts, [run for _, run in pairs])
    return Confirmed(ratio, verdict, comparison, start, sum(run.wall_seconds for own in runs.values() for run in own))


def paired_runs(runs: dict[str, list[RunOutcome]]) -> list[tuple[RunOutcome, RunOutcome]]:
    """(recipe, tuned) of each round in which both finished."""
    by_round = {name: {run.round: run for run in outcomes if run.report} for name, outcomes in runs.items()}
    both = sorted(by_round[RECIPE].keys() & by_round[TUNED].keys())
    return [(by_round[RECIPE][number], by_round[TUNED][number]) for number in both]


def trial_of(report: RunReport) -> Trial:
    """The figures of a run as those of a trial."""
    train = report.train
    rate = train.images_per_second
    if rate and train.seconds and train.feature_seconds:  # the rate counts them, and a whole run has them once
        rate *= train.seconds / max(1e-9, train.seconds - train.feature_seconds)
    return Trial(
        images_per_second=rate,
        compile_seconds=train.compile_seconds,
        feature_seconds=train.feature_seconds,
        rows=report.data.train_rows,
        peak_memory_gib=train.peak_memory_gib,
        peak_anonymous_gib=train.peak_anonymous_gib,
    )


def cost_of(recipe: Recipe, facts: Facts, report: RunReport, objective: str) -> float | None:
    """What the whole run costs, by a short one: seconds, or GiB."""
    expected: Expected | None = expected_run(recipe, facts, trial_of(report))
    if expected is None:
        return None
    return expected.peak_gib if objective == "memory" else expected.training_seconds


def start_seconds(recipe: Recipe, facts: Facts, runs: list[RunOutcome]) -> float:
    """Seconds of a run that are neither optimisation, nor compilation, nor decoding."""
    found = []
    for run in runs:
        report: RunReport = run.measured
        pace = pace_of(report, run.wall_seconds)
        if pace is None:
            continue
        few: dict[str, Any] = {"train_rows": report.data.train_rows, "scored_rows": 0, "test_rows": 0}
        filled = fill_seconds(recipe, replace(facts, **few))
        found.append(max(0.0, pace.other_seconds - (report.train.compile_seconds or 0.0) - filled))
    return statistics.fmean(found) if found else 0.0
