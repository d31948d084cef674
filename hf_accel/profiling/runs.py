"""The rows of a profile, each measured in processes of its own: a first run with empty caches, then one that finds them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, RecipeFile
from hf_accel.errors import UserError
from hf_accel.profiling.schema import JSON, ProfiledRun, Row
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.lock import refuse_folder_in_use
from hf_accel.runs.output_place import writable_place
from hf_accel.runs.process import failure_reason, run_process

PROFILED = (sys.executable, "-m", "hf_accel.training.profiled")
SET_BY_PROFILE = ("resume_from_checkpoint", "push_to_hub")
FIRST_STEPS = 2  # of the run with empty caches
RUNS = ".runs"  # checkpoints and caches of the runs, deleted at the end
WRITTEN = ("report.html", "plots", "profile.csv", "profile.md")  # after profile.json
IN_USE = "another profile is measured there"


@dataclass(frozen=True)
class Planned:
    """A row to be measured.

    Attributes:
        options: of `hf_accel.training.profiled`, the recipe and its settings.
    """

    name: str
    recipe: Recipe
    options: tuple[str, ...]


class Plan:
    """The rows of a profile.

    Args:
        args: the parsed command line.
        flags: settings that hold for every row.
    Raises:
        UserError: an unknown recipe, variant or setting; nothing was run.

    Attributes:
        has_crashed: a run ended in another way than by refusing its settings.
    """

    def __init__(self, args: argparse.Namespace, flags: dict[str, str]) -> None:
        for flag in SET_BY_PROFILE:
            if flag in flags:
                raise UserError(f"--{flag}: a profile trains a few steps and keeps no model. Leave it out.")
        file, overrides = RecipeFile.read(args.recipe), overrides_from_flags(flags)
        passed = [word for flag, text in flags.items() for word in (f"--{flag}", text)]
        self.rows: list[Planned] = []
        for variant in args.variants or [None]:
            variant = None if variant == "default" else variant
            recipe = file.recipe(variant, overrides)
            chosen = ["--variant", variant] if variant else []
            self.rows.append(Planned(recipe.variant, recipe, ("--recipe", args.recipe, *chosen, *passed)))
        names = [row.name for row in self.rows]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"profile: {twice} is given twice, expected each variant once")
        self.recipe = self.rows[0].recipe
        self.folder = args.output_dir or Path("outputs") / "profile" / (self.recipe.output_name or self.recipe.name)
        self.steps: int = args.steps
        self.traces: bool = args.trace
        self.has_crashed = False

    def claim(self, overwrite: bool) -> None:
        """Check that the output folder may be used; nothing is written.

        Raises:
            UserError: it cannot be written, is in use, or holds a profile that is not to be replaced, or other files.
        """
        folder = self.folder
        writable_place(folder)
        refuse_folder_in_use(folder, IN_USE)
        if RunFolder(folder).is_ours():
            raise UserError(
                f"{folder}: holds a run, and a profile would replace its page. Choose another --output_dir."
            )
        is_profile = (folder / JSON).is_file()
        found = [name for name in WRITTEN if os.path.lexists(folder / name)]
        if found and not is_profile:
            raise UserError(
                f"{folder}: holds {', '.join(found)}, which no profile left there. Choose another --output_dir."
            )
        if is_profile and not overwrite:
            raise UserError(f"{folder}: holds a profile, which is kept. Add --overwrite, or --output_dir FOLDER.")

    def remove_traces(self) -> None:
        """Delete the traces of an earlier profile: rows of this one may have other names."""
        for path in self.folder.glob("trace-*.json") if (self.folder / JSON).is_file() else ():
            path.unlink()

    def measure(self, planned: Planned, tick: Callable[[], None]) -> Row:
        """Measure one row; a failure is a row that says why."""
        runs: dict[str, ProfiledRun] = {}
        with self._workplace(planned) as place:
            for name, options in self._both_runs(planned, place):
                result = place / f"{name}.json"
                environment = {"HF_DATASETS_CACHE": str(place / "tables")}
                words = [*planned.options, *options, "--output_dir", str(place / name), "--result", str(result)]
                code, output = run_process(words, place / f"{name}.txt", tick, PROFILED, environment=environment)
                if code or not result.is_file():
                    self.has_crashed |= code != 2
                    return Row(planned.name, planned.recipe.name, failure=failure_reason(code, output))
                runs[name] = ProfiledRun.from_dict(json.loads(result.read_text("utf-8")))
        changes = changed_settings(self.rows[0].recipe, planned.recipe)
        return Row(planned.name, planned.recipe.name, runs["run"], runs["first"], changes=changes)

    def _both_runs(self, planned: Planned, place: Path) -> list[tuple[str, list[str]]]:
        """(name, options) of the run with empty caches and of the one that finds them full."""
        caches = [] if planned.recipe.data.cache_dir else ["--data.cache_dir", str(place / "pixels")]
        trace = ["--trace", str(self.folder / f"trace-{planned.name}.json")] if self.traces else []
        first = ["--first", "--steps", str(FIRST_STEPS), *caches]
        return [("first", first), ("run", ["--steps", str(self.steps), *caches, *trace])]

    @contextmanager
    def _workplace(self, planned: Planned) -> Iterator[Path]:
        place = self.folder / RUNS / planned.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(self.folder / RUNS, ignore_errors=True)


def changed_settings(first: Recipe, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two recipes: dotted name -> (there, here)."""
    there, here = (_flat(asdict(one)) for one in (first, recipe))
    names = [name for name in {**there, **here} if name.partition(".")[0] in ("model", "data", "training")]
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
