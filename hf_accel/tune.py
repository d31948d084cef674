"""`hf-accel tune`: find the fastest safe settings of a recipe on this machine, by measuring."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel import terminal
from hf_accel.cli import command_parser, interrupt_says, parse_with_overrides, print_result, run_and_exit
from hf_accel.config.domains import MULTI_LABEL
from hf_accel.config.flags import overrides_from_flags
from hf_accel.errors import UserError
from hf_accel.formatting import format_duration
from hf_accel.runs.lock import refuse_folder_in_use, sole_use
from hf_accel.runs.output_place import writable_place

if TYPE_CHECKING:
    from hf_accel.tuning.candidates import Candidates
    from hf_accel.tuning.engine import Request
    from hf_accel.tuning.trials import Trial

DESCRIPTION = """\
Find the fastest safe settings of a recipe on this machine, by measuring.

  hf-accel tune --recipe resnet50_cifar10
  hf-accel tune --recipe resnet50_cifar10 --budget 30m --write mine.yaml
  hf-accel tune --recipe vit_cifar10 --objective memory --allow batch
  hf-accel tune --recipe finetune --data.name ./photos --learning_rate      a range test, confirmed by short runs

Precision, memory format, compilation, micro-batch, cache, workers, optimizer and kernels are tried in short trials,
each in its own process. The effective batch and everything else that changes the result stay as they are, unless --allow names
them. The result is confirmed by whole runs, in turn with the recipe, and is a recipe that train takes. The same command
continues an interrupted search. Settings are given as for train: --data.name ./photos."""

BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)?")
SECONDS = {"s": 1, "m": 60, "h": 3600, None: 60}
IN_USE = "another search is running there"


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("tune", DESCRIPTION)
    parser.add_argument("--recipe", required=True, help="shipped recipe or YAML file")
    parser.add_argument("--variant", help="one of the recipe's variants")
    parser.add_argument("--budget", default="10m", help="time for all of it: 90s, 10m, 1h; default: 10m")
    parser.add_argument("--objective", choices=("time", "memory", "cost"), default="time", help="default: time")
    parser.add_argument("--allow", nargs="+", action="extend", choices=("batch", "image_size", "augmentation"),
                        default=[], metavar="WHAT", help="what may change the result: batch (the micro-batch of a network with "
                        "batch norm), image_size, augmentation")  # fmt: skip
    parser.add_argument("--price_per_hour", type=float, metavar="PRICE", help="of this machine, for --objective cost")
    parser.add_argument("--learning_rate", action="store_true", help="find the learning rate instead")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the recipe that is found")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/tune/RECIPE")
    parser.add_argument("--overwrite", action="store_true", help="measure everything again")
    parser.add_argument("--dry_run", action="store_true", help="list the trials and their expected time, write nothing")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    budget = budget_seconds(args.budget)
    refuse_contradictions(args)

    from hf_accel.tuning.candidates import Candidates
    from hf_accel.tuning.engine import Request

    candidates = Candidates.read(args.recipe, args.variant, flags)
    plain = candidates.plain
    terminal.say_each(plain.notes)
    if plain.model.task == MULTI_LABEL:
        raise UserError(f"{plain.name}: model.task is {MULTI_LABEL}, whose settings `hf-accel tune` does not search.")
    folder = args.output_dir or Path("outputs") / "tune" / (plain.output_name or plain.name)
    refuse_foreign_folder(folder)
    request = Request(candidates, folder, budget, args.objective, tuple(args.allow), args.price_per_hour)
    if args.dry_run:
        return dry_run(args, request)
    with (
        sole_use(folder, IN_USE),
        interrupt_says(f"what was measured is kept in {folder}. The same command continues."),
    ):
        if args.overwrite:
            remove_search(folder)
        return find_learning_rate(args, request) if args.learning_rate else find_settings(args, request)


def budget_seconds(text: str) -> float:
    """Seconds of `90s`, `10m` or `1h`; a number alone is minutes.

    Raises:
        UserError: it is none of these.
    """
    found = BUDGET.fullmatch(text.strip())
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise UserError(f"--budget {text}: expected a time such as 90s, 10m or 1h")
    return seconds


def refuse_contradictions(args: argparse.Namespace) -> None:
    """Raises UserError: flags that need or exclude each other."""
    if args.objective == "cost" and args.price_per_hour is None:
        raise UserError("--objective cost: the price of this machine is not known. Add --price_per_hour, such as 2.5")
    if args.price_per_hour is not None and args.price_per_hour <= 0:
        raise UserError(f"--price_per_hour {args.price_per_hour:g}: expected a number above 0")
    if args.write is not None and args.write.exists():
        raise UserError(f"--write {args.write}: exists already; nothing was written. Name another file.")
    if args.write is not None and (args.write.suffix not in (".yaml", ".yml") or not args.write.parent.is_dir()):
        raise UserError(f"--write {args.write}: expected a .yaml file in a folder that exists")


def refuse_foreign_folder(folder: Path) -> None:
    """Raises UserError: the folder cannot be written, is in use, or holds something else."""
    from hf_accel.runs.folder import RunFolder
    from hf_accel.tuning.engine import RECORD

    writable_place(folder)
    refuse_folder_in_use(folder, IN_USE)
    if RunFolder(folder).is_ours() or ((folder / "report.html").exists() and not (folder / RECORD).exists()):
        raise UserError(
            f"{folder}: holds a run or a comparison, and a search would replace its page. Choose another --output_dir."
        )


def remove_search(folder: Path) -> None:
    """Delete what a search left, and nothing else that may lie next to it."""
    import shutil

    from hf_accel.tuning.engine import CONFIRMATION, RECORD

    (folder / RECORD).unlink(missing_ok=True)
    for name in (CONFIRMATION, "learning_rates"):
        shutil.rmtree(folder / name / "runs", ignore_errors=True)


def find_settings(args: argparse.Namespace, request: Request) -> int:
    """Search, store and print the result."""
    from hf_accel.comparison.runs import probe_machine
    from hf_accel.tasks.texts import TEXTS
    from hf_accel.tuning.engine import Engine
    from hf_accel.tuning.stored import Stored, store
    from hf_accel.tuning.text import header_lines, summary, terminal_text

    rate = TEXTS[request.candidates.plain.model.task].rate
    engine = Engine(request, probe_machine(), partial(tell, rate))
    tuning = engine.finish()
    if request.objective == "time" and not request.allowed:
        store(engine.key, Stored(tuning.patch, summary(tuning)[0]))
    page = request.folder / "report.html"
    text = f"{terminal_text(tuning)}\n\n{page}"
    if args.write is not None:
        text += f"\n{write_recipe(args.write, request.candidates, tuning.patch, header_lines(tuning))}"
    print_result(args, {"folder": str(request.folder), **tuning.to_dict()}, text, str(page))
    return 0


def find_learning_rate(args: argparse.Namespace, request: Request) -> int:
    """Find a learning rate and print it."""
    import dataclasses

    from hf_accel.comparison.runs import probe_machine
    from hf_accel.tuning.candidates import recipe_key
    from hf_accel.tuning.learning_rate_page import summary, terminal_text, write_learning_rate_page
    from hf_accel.tuning.learning_rate_runs import tune_learning_rate

    machine = probe_machine()
    key = recipe_key(request.candidates.plain, machine.environment)
    found = tune_learning_rate(request.candidates, request.folder, request.budget, machine, key)
    page = write_learning_rate_page(found, request.folder)
    text = f"{terminal_text(found)}\n\n{page}"
    if args.write is not None:
        text += f"\n{write_recipe(args.write, request.candidates, found.patch, summary(found))}"
    print_result(args, {"folder": str(request.folder), **dataclasses.asdict(found)}, text, str(page))
    return 0


def dry_run(args: argparse.Namespace, request: Request) -> int:
    """List the trials, from a first one that is not kept."""
    import dataclasses
    import tempfile

    from hf_accel.comparison.runs import probe_machine
    from hf_accel.tuning.engine import Engine
    from hf_accel.tuning.forecast import describe, forecast

    with tempfile.TemporaryDirectory() as scratch:
        terminal.say("measuring a few steps of the recipe")
        engine = Engine(dataclasses.replace(request, folder=Path(scratch)), probe_machine())
        plan = forecast(engine)
    print_result(args, plan, describe(plan))
    return 0


def write_recipe(path: Path, candidates: Candidates, patch: dict[str, object], remarks: list[str]) -> str:
    """Write the recipe that was found; returns what is said of it."""
    if not patch:
        return f"{path}: not written, because the recipe stays as it is"
    candidates.write(path, patch, remarks)
    return f"{path}: written. Train it with: hf-accel train --recipe {path}"


def tell(rate: str, trial: Trial) -> None:
    """A line for each trial, with its speed in this unit."""
    speed = "" if trial.images_per_second is None else f"{trial.images_per_second:,.0f} {rate}"
    terminal.say(f"trial: {trial.name}: {trial.error or speed} ({format_duration(trial.wall_seconds)})")


if __name__ == "__main__":
    run_and_exit(main)
