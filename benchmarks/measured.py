"""`python -m benchmarks.measured`: enter finished runs of shipped recipes into recipes/measured.json.

`hf-accel recipe list` shows that file. Only runs of a recipe as it is shipped are entered: whoever repeats the command
must get the figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from hf_accel.cli import run
from hf_accel.comparison.table import recipe_differences
from hf_accel.config.measured import MEASURED, Measured, measured_recipes
from hf_accel.config.recipe import Recipe, load_recipe, shipped_recipes
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.formatting import device_text
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder

DESCRIPTION = """\
Enter finished runs into recipes/measured.json: the mean of the runs of each recipe replaces what was there.

  python -m benchmarks.measured outputs/resnet20_cifar10/default
  python -m benchmarks.measured outputs/compare/*/runs/*/round-*
  python -m benchmarks.measured --parameters              count the parameters of all recipes again, without a run"""

# Settings that do not change what a run measures; data and weights may be local copies of those that the recipe names.
FREE = {"output_name", "data.cache_dir", "training.report_to", "training.run_name", "training.logging_steps"}
COPIES = ("data.name", "model.name")
CLASSES = {"uoft-cs/cifar10": 10, "uoft-cs/cifar100": 100, "digits": 10, "ILSVRC/imagenet-1k": 1000}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.measured", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="FOLDER", help="folders of finished runs")
    parser.add_argument("--command", help="what repeats the measurement; default: hf-accel train --recipe NAME")
    parser.add_argument("--parameters", action="store_true", help="count parameters")
    options = parser.parse_args(argv)
    if not options.runs and not options.parameters:
        raise UserError("benchmarks.measured: expected folders of finished runs, or --parameters")
    known = measured_recipes()
    found = measured_of(options.runs, options.command)
    known |= found
    if options.parameters:
        counts = {name: count_parameters(load_recipe(name)) for name in shipped_recipes()}
        known |= {
            name: dataclasses.replace(known.get(name, Measured()), parameters=count)
            for name, count in counts.items()
            if count is not None
        }
    write_measured(known)
    for name, figures in found.items():
        print(
            f"{name}: test accuracy {figures.test_accuracy:.4f}, {figures.seconds:.1f} s, n = {figures.n}, {figures.device}"
        )
    return 0


def measured_of(folders: Sequence[Path], command: str | None = None) -> dict[str, Measured]:
    """The figures of the recipes that these runs are of.

    Raises:
        UserError: a run that is not finished, or not of a recipe as it is shipped; runs of one recipe on several devices or
            data sets.
    """
    by_recipe: dict[str, list[RunReport]] = {}
    for folder in folders:
        report = RunReport.load(folder)
        require_shipped(folder, load_recipe(RunFolder(folder).recipe), report)
        by_recipe.setdefault(report.recipe, []).append(report)
    return {name: _measured(name, reports, command) for name, reports in by_recipe.items()}


def require_shipped(folder: Path, recipe: Recipe, report: RunReport) -> None:
    """Raise UserError where a run is not one of a shipped recipe, or changes something that its figures depend on."""
    if report.recipe not in shipped_recipes() or report.variant != "default":
        raise UserError(f"{folder}: is {report.recipe}, {report.variant}; expected a shipped recipe without a variant")
    if report.test is None or report.test.accuracy is None or report.train.seconds is None:
        raise UserError(f"{folder}: has no test accuracy or no training time")
    differences = recipe_differences(load_recipe(report.recipe), recipe)
    changed = [
        f"{name} {after!r} instead of {before!r}"
        for name, (before, after) in differences.items()
        if name not in FREE and not (name in COPIES and Path(str(after)).is_absolute())
    ]
    if changed:
        raise UserError(f"{folder}: is not {report.recipe} as it is shipped: {'; '.join(changed)}")


def count_parameters(recipe: Recipe) -> int | None:
    """The parameters of the network, with random weights; None where it cannot be built without a download."""
    from hf_accel.models.load import load_model

    if recipe.data.name not in CLASSES or not recipe.model.name.startswith(("timm/", "hf_accel/")):
        return None
    labels = [str(number) for number in range(CLASSES[recipe.data.name])]
    settings = dataclasses.replace(recipe.model, pretrained=False)
    return load_model(settings, labels, recipe.data.image_size).parameters


def write_measured(recipes: dict[str, Measured]) -> None:
    """Write recipes/measured.json, a recipe per line, in the order of `recipe list`."""
    lines = []
    for name in sorted(recipes):
        figures = {key: value for key, value in dataclasses.asdict(recipes[name]).items() if value is not None}
        lines.append(f"{json.dumps(name)}: {json.dumps(figures, ensure_ascii=False)}")
    write_whole(MEASURED, "{\n" + ",\n".join(lines) + "\n}\n")


def _measured(name: str, reports: Sequence[RunReport], command: str | None) -> Measured:
    devices = {device_text(report.environment) for report in reports}
    data = {report.data.name for report in reports}
    for what, values in (("devices", devices), ("data sets", data)):
        if len(values) > 1:
            raise UserError(f"{name}: runs on {len(values)} {what} ({', '.join(map(str, values))}), expected one")
    used, named = Path(str(data.pop())).name, load_recipe(name).data.name
    return Measured(
        parameters=reports[0].model.parameters,
        test_accuracy=round(statistics.fmean(r.test.accuracy for r in reports if r.test and r.test.accuracy), 6),
        seconds=round(statistics.fmean(r.train.seconds for r in reports if r.train.seconds), 2),
        n=len(reports),
        device=devices.pop(),
        command=command or f"hf-accel train --recipe {name}",
        data=None if used == Path(named).name else used,
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
