"""`python -m benchmarks.finetuning`: what each technique of fine-tuning does to accuracy and time, on two small networks.

Every row is the recipe finetune with one change. Each run is `hf-accel train` in a separate process, and the rows take turns
seed by seed. A technique that the installed package does not have is a row that says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import TINY, run_recipe
from benchmarks.processes import REPOSITORY
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, ratio_cells
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import merge
from hf_accel.errors import UserError
from hf_accel.formatting import format_score
from hf_accel.measure.paired import paired_difference

DESCRIPTION = """\
Test accuracy and seconds of the recipe finetune with one technique at a time: EfficientNet-Lite0 and MobileNetV2 on 600
photographs of clothes.

  python -m benchmarks.finetuning --pairs 3
  python -m benchmarks.finetuning --network mobilenetv2_100 --technique plain probe ema

--pairs is the number of seeds. Flags of `hf-accel train` change every run."""

NETWORKS = ("efficientnet_lite0", "mobilenetv2_100")  # folders below HF_ACCEL_DATA
TEACHER = NETWORKS[0]  # its plain run with the same seed teaches both networks
PLAIN = "plain"
FROZEN = {"model": {"freeze": "backbone"}, "data": {"augment": {"crop": "none", "flip": False}}}
# Technique -> its settings on top of the recipe finetune.
TECHNIQUES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "fit_head": {"model": {"fit_head": True}},
    "probe": {**FROZEN, "training": {"learning_rate": 5e-3, "weight_decay": 0.0}},
    "fitted_probe": {  # the recipe linear_probe
        **FROZEN,
        "model": {"freeze": "backbone", "fit_head": True},
        "training": {"learning_rate": 1e-4, "weight_decay": 0.0, "num_train_epochs": 3},
    },
    "layer_decay": {"training": {"layer_decay": 0.75}},
    "head_rate": {"training": {"head_learning_rate": 5e-3}},
    "freeze_4": {"model": {"freeze": 4}},  # the stem and four of its blocks
    "unfreezing": {"training": {"gradual_unfreezing": 0.5}},
    "drop_path": {"model": {"drop_path": 0.1}},
    "ema": {"training": {"ema_decay": 0.98}},  # about the last 50 of 190 steps
    "lora": {"model": {"lora": {"rank": 8}}, "training": {"learning_rate": 2e-3}},
    "mixup": {"data": {"augment": {"mixup": 0.2}}},
    "randaugment": {"data": {"augment": {"randaugment": {"num_ops": 2, "magnitude": 9}}}},
    "distillation": {"training": {"distillation_weight": 0.5}},  # model.teacher is a folder of this machine
}
HEADINGS = ("network", "technique", "test accuracy, mean (95 % interval)", "difference to plain, points (95 % interval)",
            "training, s", "command, s", "time of training: technique / plain (95 % interval)", "seeds")  # fmt: skip
RUNS = REPOSITORY / "outputs" / "benchmarks" / "finetuning"


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("finetuning", DESCRIPTION, pairs=3)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, help="default: both")
    parser.add_argument("--technique", nargs="+", choices=list(TECHNIQUES), help="default: all")
    session = open_session(parser, argv)
    networks = session.options.network or NETWORKS[: 1 if session.quick else None]
    techniques = session.options.technique or list(TECHNIQUES)
    if PLAIN not in techniques:
        raise UserError(
            f"--technique {' '.join(techniques)}: expected {PLAIN}, too, which the others are compared with"
        )
    rows: list[tuple[str, ...]] = []
    programs = {(network, name): measurement(session, network, name) for network in networks for name in techniques}
    results = session.rounds({f"{network} {name}": program for (network, name), program in programs.items()})
    for network in networks:
        of_plain = results[f"{network} {PLAIN}"]
        rows += [row(network, name, results[f"{network} {name}"], of_plain) for name in techniques]
    settings = [(name, ", ".join(f"{key} {value}" for key, value in as_flags(TECHNIQUES[name]).items()) or "the recipe")
                for name in techniques]  # fmt: skip
    session.write(
        [("Fine-tuning", HEADINGS, rows), ("Settings", ("technique", "settings"), settings)], notes(session.quick)
    )
    return 0


def measurement(session: Session, network: str, technique: str) -> Callable[[int], dict[str, Any] | None]:
    """Seed -> result of one row."""
    settings = {"network": network, "technique": technique, "overrides": session.overrides, "quick": session.quick}
    return lambda seed: session.measure("benchmarks.finetuning:train", {**settings, "seed": seed}, round_number=seed)


def train(network: str, technique: str, seed: int, quick: bool, overrides: dict[str, Any]) -> dict[str, Any]:
    """The recipe finetune with one technique; the folder of the run stays, because a plain run can teach.

    Returns:
        accuracy (test), train_seconds, images_per_second, wall_seconds of the command; or error.
    """
    settings = TECHNIQUES[technique]
    if technique == "distillation":
        teacher = run_folder(TEACHER, PLAIN, seed, quick, overrides)
        if not (teacher / "report.json").is_file():  # it has not had its turn, or was measured on another machine
            taught = train(TEACHER, PLAIN, seed, quick, overrides)
            if "error" in taught:
                return {"error": f"the teacher: {taught['error']}"}
        settings = merge(settings, {"model": {"teacher": str(teacher / "model")}})
    folder = run_folder(network, technique, seed, quick, overrides)
    flags: dict[str, Any] = {"recipe": "finetune", "seed": seed, "output_dir": folder, "overwrite": ""}
    flags |= {"data.name": "digits"} | TINY if quick else {"data.name": data_folder("clothing"),
                                                          "model.name": data_folder(network)}  # fmt: skip
    return run_recipe(flags | as_flags(merge(overrides, settings)))


def run_folder(network: str, technique: str, seed: int, quick: bool, overrides: dict[str, Any]) -> Path:
    """The folder of a run; a teacher that was trained with other flags has another one."""
    flags = hashlib.sha256(json.dumps([quick, overrides], sort_keys=True).encode()).hexdigest()[:8]
    return RUNS / flags / network / technique / f"seed-{seed}"


def row(
    network: str, technique: str, results: list[dict[str, Any] | None], of_plain: list[dict[str, Any] | None]
) -> tuple[str, ...]:
    """The row of one technique; why there is no figure, where the package refused it."""
    accuracies = figures(results, "accuracy")
    measured = [value for value in accuracies if value is not None]
    if not measured:
        refused = failure(results)
        return network, technique, f"refused: {refused}" if refused else "not measured: no time left", *["-"] * 4, "0"
    pairs = [(a, b) for a, b in zip(accuracies, figures(of_plain, "accuracy"), strict=True) if None not in (a, b)]
    difference, ratio = "-", "1"
    if technique != PLAIN:
        difference = with_interval([100 * (a - b) for a, b in pairs], lambda value: f"{value:+.1f}")
        ratio = ratio_cells(figures(results, "train_seconds"), figures(of_plain, "train_seconds"))[0]
    return (
        network,
        technique,
        with_interval(measured, format_score),
        difference,
        *(middle(figures(results, name)) for name in ("train_seconds", "wall_seconds")),
        ratio,
        str(len(measured)),
    )


def with_interval(values: Sequence[float], written: Callable[[float], str]) -> str:
    """The mean over seeds with Student's 95 % interval, as text.

    >>> with_interval([0.8, 0.9], lambda value: f"{value:.2f}")
    '0.85 (0.21 to 1.49)'
    """
    if not values:
        return "-"
    mean, low, high = paired_difference(values, [0.0] * len(values))
    return written(mean) if low is None or high is None else f"{written(mean)} ({written(low)} to {written(high)})"


def notes(quick: bool) -> list[str]:
    data = (
        "digits, 20 test rows" if quick else "clothing: 10 classes, 600 train, 138 validation and 179 test photographs"
    )
    return [
        f"{data}; the recipe finetune with the settings below; the checkpoint with the best validation "
        "accuracy is scored once on the test split",
        "intervals over seeds (Student); the same test rows for all: with 179 of them, one image is 0.6 points",
        "training: optimisation alone, without evaluation, saving and the first 3 steps; command: all of it; medians",
        f"distillation: the teacher is the plain run of {TEACHER} with the same seed, whose time is not in the row",
        "rows in turn, seed by seed, each run a separate process",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
