"""`python -m benchmarks.zoo`: the networks of the zoo side by side on CIFAR-10, from scratch, and one with pretrained weights.

By default a short comparison for a CPU: five small networks on a part of the rows, each without augmentation (`plain`) and
with the augmentation of a published comparison (`blog`). --complete trains the recipes as they are shipped, on every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accuracy import mean_and_spread, run_or_resume
from benchmarks.processes import REPOSITORY
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import merge
from hf_accel.errors import UserError
from hf_accel.formatting import format_count

DESCRIPTION = """\
Test and train accuracy, parameters and seconds of the networks of the zoo on CIFAR-10.

  python -m benchmarks.zoo                                   a part of the rows: about 25 minutes on 2 cores with bf16
  python -m benchmarks.zoo --complete --network resnet18     the recipes as they are shipped, for a GPU

--pairs is the number of seeds. Flags of `hf-accel train` change every run."""


@dataclass(frozen=True)
class Network:
    """A row of the zoo: a recipe and what changes it; `goal` is the test accuracy that the complete run is to reach."""

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None  # a folder below HF_ACCEL_DATA
    goal: float | None = None


# The short comparison. A ResNet-18 of half the width has a quarter of the work.
SHORT = {
    "resnet20": Network("zoo_resnet18_cifar10", {"model": {"name": "hf_accel/cifar_resnet20"}}),
    "resnet18_half": Network("zoo_resnet18_cifar10", {"model": {"args": {"channels": [32, 64, 128, 256]}}}),
    "mobilenetv2": Network("zoo_mobilenetv2_cifar10"),
    "cct_2_3x2": Network("zoo_cct_cifar10"),
    "vit_tiny": Network("zoo_vit_tiny_cifar10"),
}
VARIANTS = ("plain", "blog")
ROWS = {"data": {"max_train_rows": 10_000}, "training": {"num_train_epochs": 4}}
PRETRAINED = {
    "efficientnet_lite0": Network(
        "zoo_efficientnet_b0_cifar10_pretrained",
        {
            "data": {"validation": 0, "max_train_rows": 5_000, "max_test_rows": 1_000},
            "training": {"num_train_epochs": 1, "per_device_train_batch_size": 32, "per_device_eval_batch_size": 64},
        },
        weights="efficientnet_lite0",
    )
}
COMPLETE = {
    "resnet18": Network("zoo_resnet18_cifar10", goal=0.95),
    "resnet34": Network("zoo_resnet34_cifar10", goal=0.95),
    "resnet50": Network("zoo_resnet50_cifar10", goal=0.95),
    "efficientnet_b0": Network("zoo_efficientnet_b0_cifar10", goal=0.93),
    "mobilenetv2": Network("zoo_mobilenetv2_cifar10", goal=0.93),
    "swin_t": Network("zoo_swin_t_cifar10", goal=0.90),
    "vit_tiny": Network("zoo_vit_tiny_cifar10", goal=0.88),
    "cct_2_3x2": Network("zoo_cct_cifar10"),
    "efficientnet_b1": Network("zoo_efficientnet_b1_cifar10"),
    "vit_small": Network("zoo_vit_small_cifar10"),
    "swin_s": Network("zoo_swin_s_cifar10"),
}
AS_SHIPPED, FINE_TUNED = "as shipped", "fine-tuned"
TINY = {
    "data.name": "digits", "data.max_train_rows": 40, "data.max_test_rows": 20, "data.image_size": 32,
    "model.pretrained": "false", "num_train_epochs": 1, "per_device_train_batch_size": 8,
}  # fmt: skip
RUNS = REPOSITORY / "outputs" / "benchmarks" / "zoo"
HEADINGS = ("network", "settings", "test accuracy, mean (least to most)", "goal", "train accuracy", "parameters",
            "training, s", "command, s", "training img/s", "seeds")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("zoo", DESCRIPTION, pairs=1)
    parser.add_argument("--complete", action="store_true", help="the recipes as they are shipped, on every row")
    parser.add_argument("--network", nargs="+", help="default: all")
    session = open_session(parser, argv)
    networks = COMPLETE if session.options.complete else SHORT | PRETRAINED
    names = session.options.network or list(networks)
    unknown = [name for name in names if name not in networks]
    if unknown:
        raise UserError(f"--network {' '.join(unknown)}: expected some of {', '.join(networks)}")
    entries = [(name, variant) for name in names for variant in variants(name, session.options.complete)]
    results = session.rounds(
        {
            f"{name}, {variant}": lambda seed, entry=(name, variant): measure(session, *entry, seed)
            for name, variant in entries
        }
    )
    rows = [row(name, variant, networks[name].goal, results[f"{name}, {variant}"]) for name, variant in entries]
    session.write([("CIFAR-10", HEADINGS, rows)], notes(session.options.complete))
    return 0


def variants(name: str, complete: bool) -> tuple[str, ...]:
    if complete:
        return (AS_SHIPPED,)
    return (FINE_TUNED,) if name in PRETRAINED else VARIANTS


def measure(session: Session, name: str, variant: str, seed: int) -> dict[str, Any] | None:
    settings = {"name": name, "variant": variant, "complete": session.options.complete, "quick": session.quick}
    return session.measure(
        "benchmarks.zoo:train", {**settings, "overrides": session.overrides, "seed": seed}, round_number=seed
    )


def train(name: str, variant: str, complete: bool, quick: bool, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """One network with one set of settings, from its start or from where it was interrupted.

    Returns:
        As `accuracy.run_recipe`; wall_seconds is None where the run was interrupted before.
    """
    network = (COMPLETE if complete else SHORT | PRETRAINED)[name]
    settings = network.settings if complete or network.weights else merge(ROWS, network.settings)
    flags: dict[str, Any] = {"recipe": network.recipe, "seed": seed}
    flags |= {"variant": variant} if variant in VARIANTS else {}
    if not quick:
        flags["data.name"] = data_folder("cifar10")
        flags |= {"model.name": data_folder(network.weights)} if network.weights else {}
    flags |= as_flags(merge(settings, overrides)) | (TINY if quick else {})
    kind = "quick" if quick else "complete" if complete else "short"
    return run_or_resume(RUNS / kind / name / variant.replace(" ", "_") / f"seed-{seed}", flags)


def row(name: str, variant: str, goal: float | None, results: list[dict[str, Any] | None]) -> tuple[str, ...]:
    """The row of one network; why there is no figure, where it failed."""
    measured = [value for value in figures(results, "accuracy") if value is not None]
    wanted = "-" if goal is None else f"{goal:.2f}"
    if not measured:
        return name, variant, failure(results) or "not measured: no time left", wanted, *["-"] * 5, "0"
    parameters = next(value for value in figures(results, "parameters") if value is not None)
    shown = [middle(figures(results, of)) for of in ("train_seconds", "wall_seconds", "images_per_second")]
    of_train = [value for value in figures(results, "train_accuracy") if value is not None]
    return (name, variant, mean_and_spread(measured), wanted, mean_and_spread(of_train) if of_train else "-",
            format_count(parameters), *shown, str(len(measured)))  # fmt: skip


def notes(complete: bool) -> list[str]:
    short = (
        "from scratch: 10,000 train rows and 4 epochs, if the flags above do not change it, all test rows, 32 px; plain: no "
        "augmentation, no weight decay; blog: the augmentation of a published comparison (pad 5 and crop, one chain of seven "
        "operations on half of the images). So few epochs compare the networks with each other, not with published figures",
        "efficientnet_lite0: pretrained, 5,000 train rows and 1,000 test rows, one epoch at 224 px",
    )
    return [
        *(("every recipe as it is shipped, on all train rows and all test rows",) if complete else short),
        "the last weights are scored once; train accuracy: on the batches of the last epoch, augmented as they were",
        "training: optimisation alone, without evaluation, saving and the first 3 steps; command: all of it, for runs that were "
        "not interrupted; medians",
        "networks in turn, each run a separate process",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
