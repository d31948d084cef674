"""What a comparison will run: its arms, the command of every run, and how long that takes."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hf_accel.comparison.runs import Machine, PlannedRun, plan_run, probe_machine, reusable_run
from hf_accel.comparison.schema import AS_PUBLISHED, Arm, ArmRun
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import RecipeFile
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_duration
from hf_accel.measure.paired import MOST_ROUNDS, PILOT_ROUNDS
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import failure_reason, run_process

PROBE_STEPS = 12
# Settings of `data` that change how images are read, not which: arms that differ in these have the same fingerprint.
NOT_OF_ROWS = ("augment", "cache", "cache_dir", "cache_size", "class_weights", "image_size", "progressive_resizing",
               "test_time_augmentation", "transforms")  # fmt: skip
SET_FOR_EACH_RUN = ("output_dir", "seed", "resume_from_checkpoint")


class Plan:
    """The arms of a comparison and the runs they need.

    Args:
        args: of the command line of `compare`.
        flags: settings that hold for every arm, `{"learning_rate": "1e-3"}`.
    Raises:
        UserError: an unknown recipe, variant, setting or baseline; nothing was run.
    """

    def __init__(self, args: argparse.Namespace, flags: dict[str, str]) -> None:
        for flag in SET_FOR_EACH_RUN:
            if flag in flags:
                raise UserError(f"--{flag}: a comparison sets it for each run. Leave it out.")
        overrides = overrides_from_flags(flags)
        passed = [word for name, text in flags.items() for word in (f"--{name}", text)]
        self.arms: list[Arm] = []
        self.options: dict[str, list[str]] = {}  # of `train`, by arm
        for name in args.recipe:
            file = RecipeFile.read(name)
            for variant in _wanted_variants(file, args):
                recipe = file.recipe(variant, overrides)
                arm = Arm(_arm_name(recipe.name, recipe.variant, variant, several=len(args.recipe) > 1), recipe)
                if arm.name in self.options:
                    raise UserError(f"compare: the arm {arm.name} is there twice, expected each once")
                self.arms.append(arm)
                self.options[arm.name] = ["--recipe", name, *(["--variant", variant] if variant else []), *passed]
        names = list(self.options)
        self.baseline = args.baseline or next((n for n in names if n.split("/")[-1] == "baseline"), names[0])
        if self.baseline not in names:
            raise UserError(f"--baseline {self.baseline}: is no arm. {did_you_mean(self.baseline, names)}")
        self.recipe_names = list(dict.fromkeys(arm.recipe.name for arm in self.arms))
        output_names = dict.fromkeys(arm.recipe.output_name or arm.recipe.name for arm in self.arms)
        self.folder = args.output_dir or Path("outputs") / "compare" / "+".join(output_names)[:100]
        self.repeats = args.repeats
        self._fingerprints: dict[tuple[str, int], str] = {}
        self.machine: Machine = probe_machine()
        if not self.machine.mixed_precision:
            why = f"no mixed precision is fast on this device: {self.machine.reason}"
            self.arms = [
                Arm(a.name, a.recipe, why) if a.recipe.variant in ("amp", "cpu_kernels") else a for a in self.arms
            ]

    def round(self, number: int) -> list[PlannedRun]:
        """The runs of a round in their order, which the number decides, so that a continued round keeps it."""
        runs = [
            plan_run(arm, number, self.folder, self.options[arm.name], self.machine)
            for arm in self.arms
            if arm.refused is None
        ]
        return [runs[place] for place in np.random.default_rng(number).permutation(len(runs))]

    def data_fingerprint(self, arm: Arm, seed: int) -> str:
        """The fingerprint that a run of this arm would have now."""
        rows = {name: value for name, value in asdict(arm.recipe.data).items() if name not in NOT_OF_ROWS}
        key = (json.dumps(rows, sort_keys=True), seed)
        if key not in self._fingerprints:
            from hf_accel.data.splits import load_splits

            self._fingerprints[key] = load_splits(arm.recipe.data, seed).fingerprint
        return self._fingerprints[key]

    def describe(self) -> str:
        """What would run, what is finished already, and how long the rest takes."""
        rounds = self.repeats or PILOT_ROUNDS
        runs = [run for number in range(rounds) for run in self.round(number)]
        finished = {run.folder: done for run in runs if (done := reusable_run(run, self.data_fingerprint))}
        more = "" if self.repeats else f", up to {MOST_ROUNDS} if the noise asks for it"
        lines = [f"{len(self.arms)} arms, {rounds} rounds{more}; baseline: {self.baseline}"]
        for arm in self.arms:
            own = [run for run in runs if run.arm is arm]
            there = sum(run.folder in finished for run in own)
            lines.append(f"  {arm.name:<24} {arm.refused or f'{len(own) - there} to run, {there} finished'}")
        seconds, source = self._run_seconds(list(finished.values()))
        time_left = format_duration(seconds * (len(runs) - len(finished)))
        most = "" if self.repeats else f", at most {format_duration(seconds * (len(runs) / rounds * MOST_ROUNDS))}"
        lines.append(f"expected time: {time_left}{most}; a run takes {format_duration(seconds)} ({source})")
        return "\n".join([*lines, f"folder: {self.folder}"])

    def _run_seconds(self, finished: list[ArmRun]) -> tuple[float, str]:
        """Wall seconds of one run, and how that is known: finished runs, else a few steps of the baseline."""
        if finished:
            return sum(run.wall_seconds for run in finished) / len(finished), f"mean of {len(finished)} finished runs"
        arm = next(arm for arm in self.arms if arm.name == self.baseline)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / "run"
            # A later flag of the same name would be refused, so the plan's own is replaced.
            options = [*_without(self.options[arm.name], "--max_steps"), "--max_steps", str(PROBE_STEPS)]
            start = time.perf_counter()
            code, output = run_process([*options, "--output_dir", str(place)], Path(scratch) / "output", lambda: None)
            seconds = time.perf_counter() - start
            if code:
                raise UserError(f"{arm.name}: {PROBE_STEPS} steps on trial failed: {failure_reason(code, output)}")
            report = RunReport.load(place)
        steps = arm.recipe.training.get("max_steps", -1)
        if steps <= 0:
            epoch_steps = math.ceil(report.data.train_rows / report.train.effective_batch_size)
            steps = math.ceil(arm.recipe.training.get("num_train_epochs", 3) * epoch_steps)
        seconds += max(0, steps - PROBE_STEPS) * (report.train.step_seconds_median or 0.0)
        return seconds, f"from {PROBE_STEPS} steps of {arm.name}"


def _wanted_variants(file: RecipeFile, args: argparse.Namespace) -> list[str | None]:
    """The variants to run of one recipe; None is the recipe as it stands."""
    if args.variants:
        return [None if variant == "default" else variant for variant in args.variants]
    if len(args.recipe) > 1:
        return [None]
    published = AS_PUBLISHED if args.paper else ()
    return [variant for variant in file.variants if variant not in AS_PUBLISHED or variant in published] + [None]


def _arm_name(recipe: str, variant: str, asked: str | None, several: bool) -> str:
    if not several:
        return variant
    return recipe if asked is None else f"{recipe}/{variant}"


def _without(options: list[str], flag: str) -> list[str]:
    if flag not in options:
        return options
    place = options.index(flag)
    return options[:place] + options[place + 2 :]
