"""`python -m benchmarks.cost`: the hours and the money of ImageNet, from the rates that finished runs measured.

    hours = epochs * 1,281,167 / (images per second) / 3600          money = hours * GPUs * price of a GPU for an hour

Nothing is extrapolated: a rate on one GPU says nothing about eight. docs/scale.md has the table without a run.
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

A short run has one epoch, and so images of full size: its hours are an upper bound for a recipe whose images grow."""

RECIPES = ("resnet50_imagenet", "efficientnet_b0_imagenet", "vit_base_imagenet")
SCHEDULES = (None, "epochs_88")  # variants
GPUS = (1, 8)
TRAIN_IMAGES = 1_281_167
HEADINGS = ("recipe", "epochs", "GPUs", "images per second", "time", "cost")
UNKNOWN = "not yet measured"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cost", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="FOLDER", help="folders of finished runs, or their reports"
    )
    parser.add_argument("--price", type=float, help="of one GPU for one hour, in dollars")
    options = parser.parse_args(argv)
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


def _figures(rate: float | None, epochs: float, gpus: int, price: float | None) -> tuple[str, str, str]:
    if rate is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    hours = training_hours(epochs, rate)
    money = UNKNOWN if price is None else f"${format_quantity(hours * gpus * price)}"
    return format_quantity(rate), format_duration(hours * 3600), money


if __name__ == "__main__":
    raise SystemExit(run(main))
