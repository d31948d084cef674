"""The plan of a comparison: its entries, the command of every run, and the time that they take."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_accel.comparison.checks import refusals
from hf_accel.comparison.runs import Machine, PlannedRun, finished_record, plan_run, probe_machine, reusable_run
from hf_accel.comparison.schema import AS_PUBLISHED, Entry, RunOutcome
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, RecipeFile
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_count, format_duration
from hf_accel.measure.paired import MOST_ROUNDS, PILOT_ROUNDS
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import failure_reason, run_process
from hf_accel.tables import format_table

PROBE_STEPS = 12
# Settings of `data` that change how images are read, not which images: the fingerprint does not depend on these.
NOT_OF_ROWS = ("augment", "cache", "cache_dir", "cache_size", "class_weights", "image_size", "progressive_resizing",
               "test_time_augmentation", "transforms")  # fmt: skip
SET_FOR_EACH_RUN = ("output_dir", "seed", "resume_from_checkpoint")


class Plan:
    """The entries of a comparison, which become the rows of its table, and the runs they need.

    Args:
        args: the parsed command line of `compare`.
        flags: settings that hold for every entry, `{"learning_rate": "1e-3"}`.
    Raises:
        UserError: an unknown recipe, variant, setting or baseline; nothing was run.
    """

    def __init__(self, args: argparse.Namespace, flags: dict[str, str]) -> None:
        for flag in SET_FOR_EACH_RUN:
            if flag in flags:
                raise UserError(f"--{flag}: a comparison sets it for each run. Leave it out.")
        overrides = overrides_from_flags(flags)
        passed = [word for name, text in flags.items() for word in (f"--{name}", text)]
        self.entries: list[Entry] = []
        self.options: dict[str, list[str]] = {}  # options of `train`, by entry
        for name in args.recipe:
            file = RecipeFile.read(name)
            for variant in _wanted_variants(file, args):
                recipe = file.recipe(variant, overrides)
                shown = _entry_name(recipe.name, recipe.variant, variant, several=len(args.recipe) > 1)
                trial = shortened(recipe, file.recipe(variant)) if args.paper else None
                entry = Entry(shown, recipe, trial=trial)
                if entry.name in self.options:
                    raise UserError(f"compare: {entry.name} is given twice, expected each row once")
                self.entries.append(entry)
                self.options[entry.name] = ["--recipe", name, *(["--variant", variant] if variant else []), *passed]
        names = list(self.options)
        self.baseline = args.baseline or next((n for n in names if n.split("/")[-1] == "baseline"), names[0])
        if self.baseline not in names:
            raise UserError(f"--baseline {self.baseline}: is not one of the rows. {did_you_mean(self.baseline, names)}")
        self.recipe_names = list(dict.fromkeys(entry.recipe.name for entry in self.entries))
        output_names = dict.fromkeys(entry.recipe.output_name or entry.recipe.name for entry in self.entries)
        self.folder = args.output_dir or Path("outputs") / "compare" / "+".join(output_names)[:100]
        self.repeats = args.repeats
        self._fingerprints: dict[tuple[str, int], str] = {}
        self.machine: Machine = probe_machine()
        if not self.machine.mixed_precision:
            why = f"no mixed precision is fast on this device: {self.machine.reason}"
            self.entries = [
                replace(entry, refused=why) if entry.recipe.variant in ("amp", "cpu_kernels") else entry
                for entry in self.entries
            ]

    def round(self, number: int) -> list[PlannedRun]:
        """The runs of a round in their order, which its number decides, so that a resumed round keeps it."""
        runs = [
            plan_run(entry, number, self.folder, self.options[entry.name], self.machine)
            for entry in self.entries
            if entry.refused is None
        ]
        return [runs[place] for place in np.random.default_rng(number).permutation(len(runs))]

    def data_fingerprint(self, entry: Entry, seed: int) -> str:
        """The fingerprint that a run of this entry would have now."""
        key = (_rows_key(entry.recipe), seed)
        if key not in self._fingerprints:
            from hf_accel.data.splits import load_splits

            self._fingerprints[key] = load_splits(entry.recipe.data, seed).fingerprint
        return self._fingerprints[key]

    def require_startable(self, overwrite: bool) -> None:
        """Ask once whether the data and models of the runs that are left are available.

        Args:
            overwrite: finished runs will be measured again, so that all runs are left.
        Raises:
            UserError: they are not; nothing was run or changed.
        """
        left = [
            run.entry.recipe for run in self._runs() if overwrite or reusable_run(run, self.data_fingerprint) is None
        ]
        found = refusals(list({(_rows_key(recipe), _model_key(recipe)): recipe for recipe in left}.values()))
        if found:
            raise UserError("\n".join(found))

    def progress(self) -> tuple[int, int]:
        """How many runs are finished, and how many are planned, as far as that is known before the noise is."""
        runs = self._runs()
        return sum(finished_record(run.folder) is not None for run in runs), len(runs)

    def summary(self) -> dict[str, Any]:
        """What `describe` says, as JSON types: baseline, rounds, most_rounds, rows, seconds and folder."""
        runs = self._runs()
        finished = {run.folder: done for run in runs if (done := reusable_run(run, self.data_fingerprint))}
        rows = []
        for entry in self.entries:
            own = [run for run in runs if run.entry is entry]
            there = sum(run.folder in finished for run in own)
            rows.append({"name": entry.name, "refused": entry.refused, "to_run": len(own) - there, "finished": there})
        seconds, source = self._run_seconds(list(finished.values()))
        rounds = self.repeats or PILOT_ROUNDS
        return {
            "baseline": self.baseline,
            "rounds": rounds,
            "most_rounds": self.repeats or MOST_ROUNDS,
            "rows": rows,
            "seconds_of_a_run": seconds,
            "measured": source,
            "seconds": seconds * (len(runs) - len(finished)),
            "most_seconds": seconds * len(runs) / rounds * (self.repeats or MOST_ROUNDS),
            "folder": str(self.folder),
        }

    def describe(self) -> str:
        """The runs to do, the runs that are finished, and the time that the rest takes."""
        plan = self.summary()
        more = "" if self.repeats else f", up to {MOST_ROUNDS} if the noise asks for it"
        table = [
            (row["name"], row["refused"] or f"{row['to_run']} to run, {row['finished']} finished")
            for row in plan["rows"]
        ]
        most = "" if self.repeats else f", at most {format_duration(plan['most_seconds'])}"
        one = f"a run takes {format_duration(plan['seconds_of_a_run'])} ({plan['measured']})"
        lines = [
            f"{len(self.entries)} rows, {plan['rounds']} rounds{more}; baseline: {self.baseline}",
            format_table((), table, align="ll", indent=2),
            f"expected time: {format_duration(plan['seconds'])}{most}; {one}",
            f"folder: {self.folder}",
        ]
        return "\n".join(lines)

    def _runs(self) -> list[PlannedRun]:
        return [run for number in range(self.repeats or PILOT_ROUNDS) for run in self.round(number)]

    def _run_seconds(self, finished: list[RunOutcome]) -> tuple[float, str]:
        """Wall seconds of one run, and their source: finished runs, else a few steps of the baseline."""
        if finished:
            return sum(run.wall_seconds for run in finished) / len(finished), f"mean of {len(finished)} finished runs"
        entry = next(entry for entry in self.entries if entry.name == self.baseline)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / "run"
            # A later flag of the same name would be refused, so the plan's own is replaced.
            options = [*_without(self.options[entry.name], "--max_steps"), "--max_steps", str(PROBE_STEPS)]
            start = time.perf_counter()
            code, output = run_process([*options, "--output_dir", str(place)], Path(scratch) / "output", lambda: None)
            seconds = time.perf_counter() - start
            if code:
                raise UserError(f"{entry.name}: {PROBE_STEPS} trial steps failed: {failure_reason(code, output)}")
            report = RunReport.load(place)
        steps = entry.recipe.training.get("max_steps", -1)
        if steps <= 0:
            rows, batch = report.data.train_rows, report.train.effective_batch_size
            assert rows is not None, "a run counts its rows"
            assert batch is not None, "a run has a batch size"
            epoch_steps = math.ceil(rows / batch)
            steps = math.ceil(entry.recipe.training.get("num_train_epochs", 3) * epoch_steps)
        seconds += max(0, steps - PROBE_STEPS) * (report.train.step_seconds_median or 0.0)
        return seconds, f"from {PROBE_STEPS} steps of {entry.name}"


def shortened(recipe: Recipe, written: Recipe) -> str | None:
    """How a recipe trains less than its file says, such as "2 epochs instead of 30"; None when it does not.

    Args:
        recipe: the recipe with the settings of the command line.
        written: the same recipe without them.
    """
    (steps, epochs), (full_steps, full_epochs) = (
        (r.training.get("max_steps", -1), r.training.get("num_train_epochs", 3)) for r in (recipe, written)
    )
    rows, all_rows = recipe.data.max_train_rows, written.data.max_train_rows
    full = f"{format_count(full_steps)} steps" if full_steps > 0 else _epochs(full_epochs)
    found = []
    if steps > 0 and (full_steps <= 0 or steps < full_steps):
        found.append(f"{format_count(steps)} steps instead of {full}")
    elif steps <= 0 and epochs < full_epochs:
        found.append(f"{_epochs(epochs)} instead of {full}")
    if rows is not None and (all_rows is None or rows < all_rows):
        found.append(
            f"{format_count(rows)} training rows instead of {'all' if all_rows is None else format_count(all_rows)}"
        )
    return ", ".join(found) or None


def _epochs(number: float) -> str:
    return "1 epoch" if number == 1 else f"{number:g} epochs"


def _wanted_variants(file: RecipeFile, args: argparse.Namespace) -> list[str | None]:
    """The variants to run of one recipe; None is the recipe as it stands."""
    if args.variants:
        return [None if variant == "default" else variant for variant in args.variants]
    if len(args.recipe) > 1:
        return [None]
    published = AS_PUBLISHED if args.paper else ()
    return [variant for variant in file.variants if variant not in AS_PUBLISHED or variant in published] + [None]


def _rows_key(recipe: Recipe) -> str:
    """The settings that decide on which rows a recipe trains and is scored, without the seed."""
    rows = {name: value for name, value in asdict(recipe.data).items() if name not in NOT_OF_ROWS}
    return json.dumps(rows, sort_keys=True)


def _model_key(recipe: Recipe) -> str:
    """The settings that decide which weights and processor a recipe loads."""
    model = recipe.model
    return json.dumps(
        [model.name, model.revision, model.pretrained, model.args, recipe.data.image_size], sort_keys=True
    )


def _entry_name(recipe: str, variant: str, asked: str | None, several: bool) -> str:
    if not several:
        return variant
    return recipe if asked is None else f"{recipe}/{variant}"


def _without(options: list[str], flag: str) -> list[str]:
    if flag not in options:
        return options
    place = options.index(flag)
    return options[:place] + options[place + 2 :]
