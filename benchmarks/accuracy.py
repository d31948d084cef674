"""`python -m benchmarks.accuracy`: test accuracy and seconds of training of whole recipes, with several seeds.

Each run is `hf-accel train`; one that --minutes interrupted is resumed from its last checkpoint by --resume.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.session import benchmark_parser, failure, figures, middle, open_session
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import shipped_recipes
from hf_accel.formatting import format_score
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

DESCRIPTION = """\
Test accuracy, seconds of training and wall time of recipes that need nothing from the network.

  python -m benchmarks.accuracy --recipe resnet20_cifar10 --pairs 3

--pairs is the number of seeds. Flags of `hf-accel train` change every run."""

HEADINGS = ("recipe", "test accuracy, mean (least to most)", "training, s", "command, s", "training img/s", "seeds")
# Recipe -> its data and, for pretrained weights, its model below HF_ACCEL_DATA; in the order of their worth.
RECIPES = {
    "resnet50_cifar10_scratch": ("cifar10", None),
    "speedrun_cifar10_94": ("cifar10", None),
    "speedrun_cifar10_96": ("cifar10", None),
    "resnet20_cifar10": ("cifar10", None),
    "mobilenetv2_imagefolder": ("hymenoptera", "mobilenetv2_100"),
    "resnet50_cifar100_scratch": ("cifar100", None),
}
TINY = {
    "data.max_train_rows": 40, "data.max_test_rows": 20, "data.image_size": 16, "num_train_epochs": 1,
    "per_device_train_batch_size": 8, "model.name": "hf_accel/cifar_resnet20", "model.pretrained": "false",
    "model.freeze_batch_norm": "false",
}  # fmt: skip
RUNS = REPOSITORY / "outputs" / "benchmarks" / "accuracy"


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("accuracy", DESCRIPTION)
    parser.add_argument(
        "--recipe", nargs="+", choices=list(RECIPES), help="default: all that are shipped and have data"
    )
    session = open_session(parser, argv)
    default = list(RECIPES)[:1] if session.quick else list(RECIPES)
    rows, missing = [], []
    for recipe in session.options.recipe or default:
        if recipe not in shipped_recipes():
            missing.append(f"{recipe}: there is no such recipe yet")
            continue
        settings = {"recipe": recipe, "overrides": session.overrides, "quick": session.quick}
        results = [
            session.measure("benchmarks.accuracy:train", {**settings, "seed": seed}, round_number=seed)
            for seed in range(session.pairs)
        ]
        accuracies = [value for value in figures(results, "accuracy") if value is not None]
        if not accuracies:
            rows.append((recipe, failure(results) or "not measured: no time left", "-", "-", "-", "0"))
            continue
        shown = [middle(figures(results, name)) for name in ("train_seconds", "wall_seconds", "images_per_second")]
        rows.append((recipe, mean_and_spread(accuracies), *shown, str(len(accuracies))))
    notes = [
        "every recipe as it is shipped; the test split is scored once, with the weights that the recipe keeps",
        "training: optimisation alone, without evaluation, saving and the first 3 steps; command: all of it, imports "
        "included, for runs that were not interrupted; medians",
        *missing,
    ]
    session.write([("Accuracy", HEADINGS, rows)], notes)
    return 0


def train(recipe: str, seed: int, quick: bool, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a recipe, or resume it where it was interrupted.

    Returns:
        accuracy (test), train_seconds, images_per_second; wall_seconds, None where the run was interrupted before.
    """
    data, model = RECIPES[recipe]
    folder = RUNS / ("quick" if quick else "full") / recipe / f"seed-{seed}"
    flags: dict[str, Any] = {"recipe": recipe, "data.name": "digits" if quick else data_folder(data)}
    flags |= {"model.name": data_folder(model)} if model and not quick else {}
    flags |= {"seed": seed, **(TINY if quick else {}), **as_flags(overrides or {})}
    return run_or_resume(folder, flags)


def run_or_resume(folder: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """`run_recipe` in a folder where an earlier call may have been interrupted; wall_seconds is None if one was."""
    is_new = not folder.exists()
    if (folder / "report.json").is_file():  # left by an earlier benchmark, perhaps by other code
        flags = flags | {"overwrite": ""}
        is_new = True
    result = run_recipe(flags | {"output_dir": folder})
    return result if is_new else result | {"wall_seconds": None}


def mean_and_spread(accuracies: Sequence[float]) -> str:
    """The mean and, for several runs, the least and the most."""
    spread = f" ({format_score(min(accuracies))} to {format_score(max(accuracies))})" if len(accuracies) > 1 else ""
    return format_score(statistics.mean(accuracies)) + spread


def run_recipe(flags: dict[str, Any], launcher: Sequence[str] = ()) -> dict[str, Any]:
    """`hf-accel train` with these flags, as a user starts it.

    Args:
        launcher: words before `-m hf_accel.train`, for several processes.
    Returns:
        accuracy (test), train_accuracy (on the augmented batches of the last epoch), train_seconds, images_per_second,
        parameters, world_size, and wall_seconds of the whole command; or error.
    """
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value)) if word]
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    start = time.perf_counter()
    done = subprocess.run(
        [*parent, sys.executable, *launcher, "-m", "hf_accel.train", *words],
        capture_output=True,
        text=True,
        errors="replace",
    )
    wall = time.perf_counter() - start
    if done.returncode:
        return {"error": failure_reason(done.returncode, done.stdout + done.stderr)}
    report = RunReport.load(Path(flags["output_dir"]))
    return {
        "accuracy": report.test.accuracy,
        "train_accuracy": report.train.accuracy,
        "parameters": report.model.parameters,
        "world_size": report.train.world_size,
        "train_seconds": report.train.seconds,
        "images_per_second": report.train.images_per_second,
        "wall_seconds": wall,
    }


if __name__ == "__main__":
    raise SystemExit(run(main))
