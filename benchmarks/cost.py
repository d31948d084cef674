"""`python -m benchmarks.cost`: the hours and the money of ImageNet, from rates that were measured, and their growth on paper.

    hours = epochs * 1,281,167 / (images per second) / 3600          money = hours * GPUs * price of a GPU for an hour

No rate is extrapolated: one GPU says nothing about eight. docs/scale.md has the table without a run. `--growth` is another
matter, and says so: what one step computes and what it sends, from published figures, for up to 1,024 GPUs.

    bytes sent by a GPU in a step = 2 * (n - 1) / n * 4 * parameters        seconds = bytes / bandwidth of the slowest link
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError
from hf_accel.formatting import format_duration, format_quantity
from hf_accel.report.run_report import RunReport
from hf_accel.tables import format_table

DESCRIPTION = """\
Print the table of docs/scale.md, with the cells that finished runs can fill.

  hf-accel train --recipe resnet50_imagenet --variant one_gpu --max_steps 200
  python -m benchmarks.cost outputs/resnet50_imagenet/one_gpu --price 3
  python -m benchmarks.cost --growth                  ImageNet-21k on 1 to 1,024 GPUs, calculated

A short run has one epoch, and so images of full size: its hours are an upper bound for a recipe whose images grow."""

RECIPES = ("resnet50_imagenet", "efficientnet_b0_imagenet", "vit_base_imagenet")
SCHEDULES = (None, "epochs_88")  # variants
GPUS = (1, 8)
TRAIN_IMAGES = 1_281_167
HEADINGS = ("recipe", "epochs", "GPUs", "images per second", "time", "cost")
UNKNOWN = "not yet measured"

# ImageNet-21k on A100s: where each figure is published is in docs/scale.md.
IMAGES_21K, CLASSES_21K = 14_197_122, 21_841
RESNET50_PARAMETERS = 23_508_032 + 2_048 * CLASSES_21K + CLASSES_21K
IMAGES_PER_SECOND = 2_866  # of one A100: FFCV's 16 epochs of ImageNet in 14.9 minutes on 8 of them
GPUS_PER_MACHINE, NVLINK_BYTES, NETWORK_BYTES = 8, 300e9, 25e9  # per second and GPU, in one direction
LARGEST_BATCH, BATCH_PER_GPU = 32_768, 512
GROWTH_GPUS = (1, 8, 16, 64, 256, 1_024)
GROWTH_HEADINGS = (
    "GPUs",
    "images per GPU and step",
    "computes",
    "sends",
    "all-reduce",
    "efficiency",
    "epoch",
    "GPU hours",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cost", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="FOLDER", help="folders of finished runs, or their reports"
    )
    parser.add_argument("--price", type=float, help="of one GPU for one hour, in dollars")
    parser.add_argument(
        "--growth", action="store_true", help="print how the cost grows with the number of GPUs, calculated"
    )
    options = parser.parse_args(argv)
    if options.growth:
        print(growth_table())
        return 0
    print(cost_table(measured_rates([RunReport.load(folder) for folder in options.runs]), options.price))
    return 0


def training_hours(epochs: float, images_per_second: float, images: int = TRAIN_IMAGES) -> float:
    """Hours of optimisation alone: evaluation, saving and the first steps come on top, as they do in a report.

    >>> round(training_hours(16, 16_000), 3)
    0.356
    """
    return epochs * images / images_per_second / 3600


def measured_rates(reports: Sequence[RunReport]) -> dict[tuple[str, int], float]:
    """(recipe, GPUs) -> images per second of all GPUs together.

    Raises:
        UserError: a run of another recipe, on a CPU, without a rate, or the second of the same recipe and GPUs.
    """
    rates: dict[tuple[str, int], float] = {}
    for report in reports:
        rate, gpus = report.train.images_per_second, report.train.world_size
        if report.recipe not in RECIPES:
            raise UserError(f"{report.recipe}, {report.variant}: expected a run of {', '.join(RECIPES)}")
        if report.environment.get("cuda") is None or rate is None or gpus is None:
            raise UserError(f"{report.recipe}, {report.variant}: has no rate of a GPU. Expected a longer run, on GPUs.")
        if (report.recipe, gpus) in rates:
            raise UserError(f"{report.recipe} on {gpus} GPUs: is given twice, expected one run")
        rates[report.recipe, gpus] = rate
    return rates


def cost_table(rates: dict[tuple[str, int], float], price: float | None = None) -> str:
    """The cost plan in Markdown.

    Args:
        rates: as `measured_rates` returns them.
        price: dollars per GPU and hour; None: no money.
    """
    rows = []
    for name in RECIPES:
        for variant in SCHEDULES:
            epochs = load_recipe(name, variant).training["num_train_epochs"]
            rows += [(name, epochs, gpus, *_figures(rates.get((name, gpus)), epochs, gpus, price)) for gpus in GPUS]
    return format_table(HEADINGS, rows, style="markdown")


def all_reduce_bytes(parameters: int, gpus: int) -> float:
    """Bytes that each GPU sends, and receives, when gradients of four bytes are averaged by a ring.

    >>> all_reduce_bytes(1_000, 2)
    4000.0
    """
    return 2 * (gpus - 1) / gpus * 4 * parameters


def growth(gpus: int) -> tuple[int, float, float, float]:
    """Images per GPU and step, seconds in which it computes, bytes that it sends, and seconds of the all-reduce.

    The batch of all GPUs has at most `LARGEST_BATCH` images, so many GPUs have few images each.
    """
    images = min(BATCH_PER_GPU, LARGEST_BATCH // gpus)
    sent = all_reduce_bytes(RESNET50_PARAMETERS, gpus)
    return (
        images,
        images / IMAGES_PER_SECOND,
        sent,
        sent / (NVLINK_BYTES if gpus <= GPUS_PER_MACHINE else NETWORK_BYTES),
    )


def growth_table() -> str:
    """The growth of the cost in Markdown: ranges from an all-reduce that follows the backward pass to one hidden in it."""
    rows = []
    for gpus in GROWTH_GPUS:
        images, computing, sent, reducing = growth(gpus)
        steps = [computing + reducing, max(computing, reducing)]
        hours = [IMAGES_21K / (images * gpus) * step / 3600 for step in steps]
        rows.append(
            (
                gpus,
                images,
                f"{computing * 1000:.0f} ms",
                f"{sent / 1e6:.0f} MB",
                f"{reducing * 1000:.1f} ms",
                _range([f"{computing / step:.0%}" for step in steps]),
                _range([format_duration(hour * 3600) for hour in hours]),
                _range([f"{hour * gpus:.2f}" for hour in hours]),
            )
        )
    return format_table(GROWTH_HEADINGS, rows, style="markdown")


def _range(ends: list[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _figures(rate: float | None, epochs: float, gpus: int, price: float | None) -> tuple[str, str, str]:
    if rate is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    hours = training_hours(epochs, rate)
    money = UNKNOWN if price is None else f"${format_quantity(hours * gpus * price)}"
    return format_quantity(rate), format_duration(hours * 3600), money


if __name__ == "__main__":
    raise SystemExit(run(main))
