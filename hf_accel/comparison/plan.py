"""The plan of a comparison: its entries, and the command of every run."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_accel.comparison.checks import refusals
from hf_accel.comparison.fingerprints import DataFingerprints, rows_key
from hf_accel.comparison.leave_out import chosen_techniques, why_without_effect
from hf_accel.comparison.names import expand_recipes, folder_name, is_glob
from hf_accel.comparison.runs import Machine, PlannedRun, finished_record, plan_run, probe_machine, reusable_run
from hf_accel.comparison.schema import AS_PUBLISHED, Entry
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import VARIANT_ALIASES, Recipe, RecipeFile
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_count, format_epochs
from hf_accel.measure.paired import PILOT_ROUNDS

SET_FOR_EACH_RUN = ("output_dir", "seed", "resume_from_checkpoint", "data.fold")


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
        self.entries: list[Entry] = []
        self.options: dict[str, list[str]] = {}  # options of `train`, by entry
        names = expand_recipes(args.recipe)
        several = len(names) > 1 or any(map(is_glob, args.recipe))
        for name in names:
            self._add_recipe(name, args, flags, several)
        _refuse_several_tasks(self.entries)
        self.baseline = _baseline(args.baseline, list(self.options))
        if args.leave_out is not None:
            self._add_left_out(args, flags)
        output_name = folder_name([entry.recipe.output_name or entry.recipe.name for entry in self.entries])
        output_name += "" if args.leave_out is None else "-leave_out"
        self.folder = args.output_dir or Path("outputs") / "compare" / output_name
        self.repeats = args.repeats or max((entry.folds or 0 for entry in self.entries), default=0) or None
        self._fingerprints = DataFingerprints()
        self.machine: Machine = probe_machine()
        self.entries = [replace(e, refused=e.refused or self._why_without_effect(e)) for e in self.entries]

    def _add_recipe(self, name: str, args: argparse.Namespace, flags: dict[str, str], several: bool) -> None:
        """Add the rows of a recipe: one for each variant that is asked for."""
        file, overrides = RecipeFile.read(name), overrides_from_flags(flags)
        for variant in _wanted_variants(file, args, several):
            recipe = file.recipe(variant, overrides)
            shown = _entry_name(recipe.name, recipe.variant, variant, several)
            if shown in self.options:
                raise UserError(_same_row(shown, self.options[shown][1], name))
            trial = shortened(recipe, file.recipe(variant)) if args.paper else None
            self.entries.append(Entry(shown, recipe, trial=trial))
            self.options[shown] = _options(name, variant, flags)

    def _add_left_out(self, args: argparse.Namespace, flags: dict[str, str]) -> None:
        """Add the rows of the one recipe, without each technique that is to be left out."""
        whole = _whole_recipe(args, self.entries)
        name = self.options[whole.name][1]
        file = RecipeFile.read(name)
        (variant,) = _wanted_variants(file, args, several=False)
        for left_out in chosen_techniques(whole.recipe, args.leave_out):
            own, refused = left_out.replace_in(flags), None
            try:
                recipe = file.recipe(variant, overrides_from_flags(own))
            except UserError as error:  # other settings of the recipe need this one: a row that says so
                recipe, refused = whole.recipe, " ".join(str(error).split())
            self.entries.append(Entry(left_out.row_name, recipe, refused, leaves_out=left_out.technique))
            self.options[left_out.row_name] = _options(name, variant, own)

    def _why_without_effect(self, entry: Entry) -> str | None:
        """Why a row would measure nothing on this machine; None where it may measure something."""
        no_mixed_precision = None if self.machine.mixed_precision else self.machine.reason
        if entry.leaves_out is not None:
            device = self.machine.environment.get("device")
            return why_without_effect(entry.leaves_out, self.entries[0].recipe, device, no_mixed_precision)
        if no_mixed_precision is not None and entry.recipe.variant in ("amp", "cpu_kernels"):
            return f"no mixed precision is fast on this device: {no_mixed_precision}"
        return None

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
        return self._fingerprints(entry, seed)

    def require_startable(self, overwrite: bool) -> None:
        """Ask once whether the data and models of the runs that are left are available.

        Args:
            overwrite: finished runs will be measured again, so that all runs are left.
        Raises:
            UserError: they are not; nothing was run or changed.
        """
        left = [
            run.entry.recipe for run in self.runs() if overwrite or reusable_run(run, self.data_fingerprint) is None
        ]
        found = refusals(list({(rows_key(recipe), _model_key(recipe)): recipe for recipe in left}.values()))
        if found:
            raise UserError("\n".join(found))

    def progress(self) -> tuple[int, int]:
        """How many runs are finished, and how many are planned, as far as that is known before the noise is."""
        runs = self.runs()
        return sum(finished_record(run.folder) is not None for run in runs), len(runs)

    def runs(self) -> list[PlannedRun]:
        """The runs of the rounds that are certain."""
        return [run for number in range(self.repeats or PILOT_ROUNDS) for run in self.round(number)]


def _refuse_several_tasks(entries: list[Entry]) -> None:
    """Raises UserError: images and texts per second cannot be compared, nor their accuracies."""
    names = {entry.recipe.model.task: entry.name for entry in reversed(entries)}
    if len(names) > 1:
        found = " and ".join(f"{name} is for {task}" for task, name in sorted(names.items()))
        raise UserError(f"--recipe: {found}, and their figures cannot be compared. Name recipes of one task.")


def shortened(recipe: Recipe, written: Recipe) -> str | None:
    """How a recipe does less than its file says, such as "2 epochs instead of 30 epochs"; None when it does not.

    Another model or another size of images counts, too: its figures are not those of the recipe.

    Args:
        recipe: the recipe with the settings of the command line.
        written: the same recipe without them.
    """
    (steps, epochs), (full_steps, full_epochs) = (
        (r.training.get("max_steps", -1), r.training.get("num_train_epochs", 3)) for r in (recipe, written)
    )
    full = f"{format_count(full_steps)} steps" if full_steps > 0 else format_epochs(full_epochs)
    found = []
    if steps > 0 and (full_steps <= 0 or steps < full_steps):
        found.append(f"{format_count(steps)} steps instead of {full}")
    elif steps <= 0 and epochs < full_epochs:
        found.append(f"{format_epochs(epochs)} instead of {full}")
    for what, rows, all_rows in (
        ("training", recipe.data.max_train_rows, written.data.max_train_rows),
        ("test", recipe.data.max_test_rows, written.data.max_test_rows),
    ):
        if rows is not None and (all_rows is None or rows < all_rows):
            full = "all" if all_rows is None else format_count(all_rows)
            found.append(f"{format_count(rows)} {what} rows instead of {full}")
    if recipe.model.name != written.model.name:
        found.append(f"{recipe.model.name} instead of {written.model.name}")
    size, full_size = recipe.data.image_size, written.data.image_size
    if size != full_size:
        found.append(f"images of {_pixels(size)} instead of {_pixels(full_size)}")
    return ", ".join(found) or None


def _pixels(size: int | None) -> str:
    return "the model's own size" if size is None else f"{size} px"


def _options(name: str, variant: str | None, flags: dict[str, str]) -> list[str]:
    """The options of `train` for a row."""
    passed = [word for flag, text in flags.items() for word in (f"--{flag}", text)]
    return ["--recipe", name, *(["--variant", variant] if variant else []), *passed]


def _whole_recipe(args: argparse.Namespace, entries: list[Entry]) -> Entry:
    """The row that techniques are left out of.

    Raises:
        UserError: there are several, or an option that does not go with --leave_out.
    """
    for flag in ("paper", "baseline"):
        if getattr(args, flag):
            raise UserError(f"--leave_out and --{flag} cannot be combined: every row is compared with the whole recipe")
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries[:3])
        raise UserError(
            f"--leave_out: got {len(entries)} rows ({names}{', ...' if len(entries) > 3 else ''}), expected one recipe, as it "
            "stands or with one of its --variants"
        )
    return entries[0]


def _wanted_variants(file: RecipeFile, args: argparse.Namespace, several: bool) -> list[str | None]:
    """The variants to run of one recipe; None is the recipe as it stands."""
    if args.variants:
        return [None if variant == "default" else variant for variant in args.variants]
    if several or args.leave_out is not None:
        return [None]
    published = AS_PUBLISHED if args.paper else ()
    return [variant for variant in file.variants if variant not in AS_PUBLISHED or variant in published] + [None]


def _model_key(recipe: Recipe) -> str:
    """The settings that decide which weights and processor a recipe loads."""
    model = recipe.model
    return json.dumps(
        [model.name, model.revision, model.pretrained, model.args, recipe.data.image_size], sort_keys=True
    )


def _baseline(asked: str | None, names: list[str]) -> str:
    """The row that the others are divided by; as of `--variants`, "ga" is an alias."""
    if asked is None:
        return next((name for name in names if name.split("/")[-1] == "baseline"), names[0])
    head, slash, variant = asked.rpartition("/")
    found = asked if asked in names else f"{head}{slash}{VARIANT_ALIASES.get(variant, variant)}"
    if found not in names:
        raise UserError(f"--baseline {asked}: is not one of the rows. {did_you_mean(asked, names)}")
    return found


def _same_row(name: str, first: str, second: str) -> str:
    if Path(first).absolute() == Path(second).absolute():
        return f"compare: {name} is given twice, expected each row once"
    return f"compare: {first} and {second} are both called {name}, expected a name for each row. Give one of them a `name:`"


def _entry_name(recipe: str, variant: str, asked: str | None, several: bool) -> str:
    if not several:
        return variant
    return recipe if asked is None else f"{recipe}/{variant}"
