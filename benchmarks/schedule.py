"""`python -m benchmarks.schedule`: a whole fine-tuning, by this package and by the Hugging Face example.

Steps alone do not say how long a user waits: starting, reading, decoding, scoring and saving are in the command. And a
quicker step is worth nothing if the model is worse, so the accuracy of both stands next to the seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import RECIPES, mean_and_spread, run_recipe
from benchmarks.processes import REPOSITORY
from benchmarks.session import benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.workloads import Workload, as_flags, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import Recipe, apply_patch, load_recipe
from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

DESCRIPTION = """\
Test accuracy, seconds of training and of the whole command: the recipe mobilenetv2_imagefolder by this package, and the
same schedule from the same weights by the Hugging Face example's method with its default flags.

  python -m benchmarks.schedule --pairs 3

--pairs is the number of seeds. Flags of `hf-accel train` apply to this package alone; the schedule (epochs, batch, learning
rate, warm-up, decay, smoothing) and the scale of the crop change for both."""

RECIPE = "mobilenetv2_imagefolder"
OURS, EXAMPLE = "hf_accel", "HF example, default flags"
HEADINGS = ("program", "test accuracy, mean (least to most)", "training, s", "command, s", "seeds",
            "command: program / hf_accel (95 % interval)", "training: program / hf_accel (95 % interval)")  # fmt: skip
SCHEDULE = ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
            "lr_scheduler_type", "warmup_steps", "weight_decay", "label_smoothing_factor")  # fmt: skip
TINY = {"training": {"num_train_epochs": 1, "per_device_train_batch_size": 8}}


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("schedule", DESCRIPTION, pairs=3)
    session = open_session(parser, argv)
    overrides = apply_patch(TINY, session.overrides) if session.quick else session.overrides
    recipe = load_recipe(RECIPE, overrides=overrides)
    schedule = {name: recipe.training[name] for name in SCHEDULE if name in recipe.training}
    scale = list(recipe.data.augment.scale)
    programs = {
        OURS: ("benchmarks.schedule:ours", {"overrides": overrides}),
        EXAMPLE: ("benchmarks.schedule:example", {"schedule": schedule, "scale": scale}),
    }
    with workplace() as shared:
        workload = Workload(session, shared, "timm/test_resnet", images=40) if session.quick else None

        def measure(target: str, settings: dict[str, Any], number: int) -> dict[str, Any] | None:
            with workplace() as place:
                return session.measure(
                    target, {**settings, "seed": number}, lambda: {"place": place, **inputs(workload)}, number
                )

        results = session.rounds(
            {name: lambda n, program=program: measure(*program, n) for name, program in programs.items()}
        )
    seconds = {name: {of: figures(results[name], of) for of in ("wall_seconds", "train_seconds")} for name in programs}
    rows = []
    for name in programs:
        accuracies = [value for value in figures(results[name], "accuracy") if value is not None]
        whole, training = seconds[name].values()
        ratios = ("1", "1")
        if name != OURS:
            ratios = [ratio_cells(seconds[name][of], seconds[OURS][of])[0] for of in ("wall_seconds", "train_seconds")]
        score = mean_and_spread(accuracies) if accuracies else failure(results[name]) or "not measured: no time left"
        rows.append((name, score, middle(training), middle(whole), str(len(accuracies)), *ratios))
    session.write([("Whole schedule", HEADINGS, rows)], notes(recipe, schedule, scale, session.quick))
    return 0


def notes(recipe: Recipe, schedule: dict[str, Any], scale: list[float], quick: bool) -> list[str]:
    """What both programs share, and every difference between them."""
    data, model = ("digits", "a small network") if quick else RECIPES[RECIPE]
    texts = [f"{name} {value}" for name, value in schedule.items()]
    args = recipe.training
    return [
        f"both: {data}, every train row, the weights of {model} with a new head, seeds 0, 1, 2...; {', '.join(texts)}; "
        f"AdamW as TrainingArguments has it, clipping at 1; random-resized crop of scale {scale}, flip; the test split "
        "scored once, with the last weights",
        "command: all of it, imports, reading, decoding, scoring and saving included; training: the steps alone, without "
        "evaluation, saving and the first 3; programs in turn, a ratio is taken within a round; medians",
        f"hf_accel: the recipe as it is shipped and as the flags above change it: bf16 {args.get('bf16', False)}, "
        f"channels_last {recipe.model.channels_last}, statistics of batch norm frozen "
        f"{recipe.model.freeze_batch_norm}, cache {recipe.data.cache} (every image decoded once), transforms on whole "
        f"batches, {args.get('per_device_eval_batch_size', 8)} rows per evaluation batch, a checkpoint per epoch, a report, a "
        "page and a model card at the end",
        "HF example: the method of run_image_classification.py on the installed Trainer: fp32, no worker, NCHW, batch norm "
        "keeps training its statistics, every image decoded by PIL each time it is read, a torchvision chain per image, 8 rows "
        "per evaluation batch, one checkpoint and a model card at the end; in evaluation it resizes and crops as the model's "
        "data_config says. With a timm model the published script takes timm's train transform, which jitters colours too: "
        "left out. Other random numbers for order, crops and flips, the same ones for the new head",
    ]


def inputs(workload: Workload | None) -> dict[str, str]:
    """`data` and `model`: real ones, or those of a rehearsal."""
    if workload is None:
        return dict(zip(("data", "model"), (str(data_folder(name)) for name in RECIPES[RECIPE]), strict=True))
    place = Path(workload.places()["place"])
    return {"data": str(place / "data"), "model": str(place / "model")}


def ours(place: str, data: str, model: str, seed: int, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """`hf-accel train` on the recipe.

    Returns:
        accuracy (test), train_seconds, images_per_second, wall_seconds of the command; or error.
    """
    flags = {"recipe": RECIPE, "data.name": data, "model.name": model, "seed": seed, "output_dir": Path(place) / "run"}
    return run_recipe(flags | as_flags(overrides or {}))


def example(
    place: str, data: str, model: str, seed: int, schedule: dict[str, Any], scale: Sequence[float]
) -> dict[str, Any]:
    """The example's script.

    Args:
        schedule: TrainingArguments, name for name.
        scale: the least and the largest share of the image that a crop keeps.
    Returns:
        accuracy (test), train_seconds, wall_seconds of the command; or error.
    """
    output = Path(place) / "run"
    flags = {"model_name_or_path": model, "dataset_name": data, "cache_dir": Path(place) / "cache", "output_dir": output,
             "remove_unused_columns": False, "seed": seed, **schedule}  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    command = [*parent, sys.executable, "-m", "benchmarks.hf_script", *words, "--scale", *map(str, scale)]
    env = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=REPOSITORY, env=env)
    wall = time.perf_counter() - start
    if done.returncode:
        return {"error": failure_reason(done.returncode, done.stdout + done.stderr)}
    metrics = json.loads((output / "all_results.json").read_text("utf-8"))
    return {"accuracy": metrics["eval_accuracy"], "train_seconds": metrics["train_seconds"], "wall_seconds": wall}


if __name__ == "__main__":
    raise SystemExit(run(main))
