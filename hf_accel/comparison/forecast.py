"""How long the runs of a comparison take: from finished runs, else from a few steps of one row of each recipe."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel import terminal
from hf_accel.comparison.runs import PlannedRun, reusable_run
from hf_accel.comparison.schema import Entry, RunOutcome
from hf_accel.errors import UserError
from hf_accel.formatting import format_duration
from hf_accel.measure.paired import MOST_ROUNDS, PILOT_ROUNDS
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import failure_reason, run_process
from hf_accel.tables import format_table

if TYPE_CHECKING:
    from hf_accel.comparison.plan import Plan
    from hf_accel.config.recipe import Recipe

PROBE_STEPS = 12


@dataclass(frozen=True)
class Pace:
    """The speed of a recipe's runs, as one run of it had it.

    Attributes:
        other_seconds: the part of the run that was not optimisation: start, evaluation, saving.
    """

    images_per_second: float
    other_seconds: float
    train_rows: int

    def seconds(self, recipe: Recipe) -> float:
        """Wall seconds of a run of this recipe."""
        return self.other_seconds + images_of(recipe, self.train_rows) / self.images_per_second


def forecast(plan: Plan) -> dict[str, Any]:
    """The runs to do, the runs that are finished, and the seconds that the rest takes.

    Returns:
        JSON types: baseline, rounds, most_rounds, rows (name, refused, to_run, finished, seconds_of_a_run), seconds,
        most_seconds, measured (the source of the seconds) and folder.
    """
    rounds = plan.repeats or PILOT_ROUNDS
    most_rounds = plan.repeats or MOST_ROUNDS
    runs = plan.runs()
    finished = {run.folder: done for run in runs if (done := reusable_run(run, plan.data_fingerprint))}
    seconds, source = run_seconds(plan, runs, finished)
    rows = []
    for entry in plan.entries:
        own = [run for run in runs if run.entry.name == entry.name]
        there = sum(run.folder in finished for run in own)
        rows.append({"name": entry.name, "refused": entry.refused, "to_run": len(own) - there, "finished": there,
                     "seconds_of_a_run": seconds.get(entry.name)})  # fmt: skip
    return {
        "baseline": plan.baseline,
        "rounds": rounds,
        "most_rounds": most_rounds,
        "rows": rows,
        "seconds": sum(seconds[run.entry.name] for run in runs if run.folder not in finished),
        "most_seconds": sum(seconds.values()) * most_rounds,
        "measured": source,
        "folder": str(plan.folder),
    }


def describe(plan: dict[str, Any]) -> str:
    """What `forecast` says, as text."""
    is_fixed = plan["rounds"] == plan["most_rounds"]
    more = "" if is_fixed else f", up to {plan['most_rounds']} if the noise asks for it"
    most = "" if is_fixed else f", at most {format_duration(plan['most_seconds'])}"
    table = []
    for row in plan["rows"]:
        pace = f"{format_duration(row['seconds_of_a_run'])} per run"
        table.append((row["name"], row["refused"] or f"{row['to_run']} to run, {row['finished']} finished; {pace}"))
    return "\n".join(
        [
            f"{len(table)} rows, {plan['rounds']} rounds{more}; baseline: {plan['baseline']}",
            format_table((), table, align="ll", indent=2),
            f"expected time: {format_duration(plan['seconds'])}{most} (from {plan['measured']})",
            f"folder: {plan['folder']}",
        ]
    )


def run_seconds(
    plan: Plan, runs: Sequence[PlannedRun], finished: dict[Path, RunOutcome]
) -> tuple[dict[str, float], str]:
    """Wall seconds of one run of each entry, and the source of these figures.

    Args:
        runs: the runs of the plan.
        finished: those that need not be done again, by folder.
    """
    own = {entry.name: [finished[run.folder] for run in runs if run.entry is entry and run.folder in finished]
           for entry in plan.entries}  # fmt: skip
    seconds: dict[str, float] = {}
    paces: dict[str, Pace] = {}
    sources = [f"{len(finished)} finished runs"] if finished else []
    for entry in (entry for entry in plan.entries if entry.refused is None):
        recipe = entry.recipe.name
        if own[entry.name]:
            seconds[entry.name] = statistics.fmean(run.wall_seconds for run in own[entry.name])
            continue
        if recipe not in paces:
            known = [run for other in plan.entries if other.recipe.name == recipe for run in own[other.name]]
            pace = next(filter(None, (pace_of(run.measured, run.wall_seconds) for run in known)), None)
            if pace is None:
                probed = _probed_entry(plan, recipe)
                pace = probe(plan, probed)
                sources.append(f"{PROBE_STEPS} steps of {probed.name}")
            paces[recipe] = pace
        seconds[entry.name] = paces[recipe].seconds(entry.recipe)
    return seconds, ", ".join(sources)


def images_of(recipe: Recipe, train_rows: int) -> float:
    """The number of training images that a run of this recipe takes, in one process."""
    steps = recipe.training.get("max_steps", -1)
    if steps > 0:
        return steps * batch_of(recipe)
    return recipe.training.get("num_train_epochs", 3) * recipe.data.rows_of_epoch(train_rows)


def batch_of(recipe: Recipe) -> int:
    """The images of one optimizer step of one process."""
    accumulated = recipe.training.get("gradient_accumulation_steps", 1)
    return int(recipe.training.get("per_device_train_batch_size", 8) * accumulated)


def pace_of(report: RunReport, wall_seconds: float) -> Pace | None:
    """The pace of a run; None when it was too short to be measured."""
    train, rows = report.train, report.data.train_rows
    if train.images_per_second is None or rows is None or train.steps is None or train.effective_batch_size is None:
        return None
    optimised = train.steps * train.effective_batch_size / train.images_per_second
    return Pace(train.images_per_second, max(0.0, wall_seconds - optimised), rows)


def probe(plan: Plan, entry: Entry) -> Pace:
    """Train a few steps of one entry, in a folder that is deleted afterwards.

    Raises:
        UserError: the steps failed.
    """
    terminal.say(f"measuring {PROBE_STEPS} steps of {entry.name}")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "run"
        # A later flag of the same name would be refused, so the plan's own is replaced.
        options = [*_without(plan.options[entry.name], "--max_steps"), "--max_steps", str(PROBE_STEPS)]
        start = time.perf_counter()
        code, output = run_process([*options, "--output_dir", str(place)], Path(scratch) / "output", lambda: None)
        wall_seconds = time.perf_counter() - start
        if code:
            raise UserError(f"{entry.name}: {PROBE_STEPS} trial steps failed: {failure_reason(code, output)}")
        pace = pace_of(RunReport.load(place), wall_seconds)
    assert pace is not None, "steps after the warm-up are measured"
    return pace


def _probed_entry(plan: Plan, recipe: str) -> Entry:
    """The row of a recipe whose steps are tried: the baseline, else the one with the smallest steps."""
    able = [entry for entry in plan.entries if entry.recipe.name == recipe and entry.refused is None]
    return min(able, key=lambda entry: (entry.name != plan.baseline, batch_of(entry.recipe)))


def _without(options: list[str], flag: str) -> list[str]:
    if flag not in options:
        return options
    place = options.index(flag)
    return options[:place] + options[place + 2 :]
