"""`report.html`: one self-contained page of a run, or of a comparison, that loads nothing from the network.

There is no script in it: folding is `<details>`, themes and print are CSS, so the page works wherever it is opened,
mailed or archived.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

import hf_accel
from hf_accel.files import write_whole
from hf_accel.formatting import (
    MISSING,
    device_text,
    format_accuracy,
    format_bytes,
    format_count,
    format_duration,
    format_energy,
    format_epochs,
    format_gib,
    format_percent,
    format_quantity,
    format_score,
)
from hf_accel.measure.paired import wilson_interval
from hf_accel.report.gallery import shown
from hf_accel.report.next_commands import next_commands, place_below
from hf_accel.report.plots import Plot, largest_confusions, run_plots
from hf_accel.report.titles import run_title
from hf_accel.runs.folder import RunFolder
from hf_accel.tables import printable
from hf_accel.tasks.texts import TEXTS

if TYPE_CHECKING:
    from hf_accel.report.run_report import RunReport
    from hf_accel.tasks.gallery import GalleryItem

logger = logging.getLogger(__name__)

MOST_ROWS = 24  # per gallery, so that the page stays below 3 MB
MOST_CONFUSIONS = 10
# What the page links to, as attributes of a `RunFolder`, and what a reader finds there.
LINKED = {
    "report": "every figure",
    "history": "loss and learning rate by step",
    "predictions": "the prediction of every test row",
    "recipe": "every setting",
    "card": "the model card",
    "notebook": "load, predict, evaluate, train on",
    "plots": "the plots as SVG",
    "log": "what the run said",
}


def write_page(
    folder: Path,
    report: RunReport,
    gallery: Sequence[GalleryItem] = (),
    sample: Sequence[GalleryItem] = (),
    plots: dict[str, Plot] | None = None,
    recipe_text: str | None = None,
    pairs: Sequence[tuple[str, str, int, Sequence[GalleryItem]]] = (),
    as_trained: Sequence[GalleryItem] = (),
    forms: Sequence[Sequence[str]] = (),
) -> Path:
    """Write the page of a run; it links to the files of the run that are there, so it is written last.

    Args:
        folder: the folder of the run.
        report: the report to show, fit to be published.
        gallery: the most confident mistakes, surest first.
        sample: rows of the data set.
        plots: as `draw_plots` returns them; None draws and saves them.
        recipe_text: the recipe as YAML, fit to be published.
        pairs: (true class, predicted class, mistakes, some of them) of the most frequent pairs.
        as_trained: training images as augmentation changes them.
        forms: a table of the exported files, the headings first.
    Returns:
        The path of `report.html`.
    """
    run = RunFolder(folder)
    below = place_below(folder)
    return render(
        "run.html",
        run.page,
        report=report,
        words=TEXTS[report.task],
        title=run_title(report.model.name, report.data.name, len(report.data.labels)),
        plots=draw_plots(report, run.plots) if plots is None else plots,
        tiles=run_tiles(report),
        gallery=[shown(item, is_large=True) for item in gallery[:MOST_ROWS]],
        sample=[shown(item, is_large=False) for item in sample[:MOST_ROWS]],
        pairs=[(*names, count, [shown(item, is_large=False) for item in items]) for *names, count, items in pairs],
        forms=forms,
        as_trained=[shown(item, is_large=False) for item in as_trained[:MOST_ROWS]],
        confusions=largest_confusions(report.test.confusion, report.data.labels, MOST_CONFUSIONS)
        if report.test
        else [],
        next_commands=next_commands(below or ".", task=report.task),
        is_below=below is not None,
        files=_files_of(run),
        recipe_text=recipe_text,
    )


def _files_of(run: RunFolder) -> list[tuple[str, str]]:
    """What a run has left, by names relative to its page, with what it is."""
    places: dict[str, Path] = {name: getattr(run, name) for name in LINKED}
    return [(place.relative_to(run.path).as_posix(), LINKED[name]) for name, place in places.items() if place.exists()]


def draw_plots(report: RunReport, folder: Path) -> dict[str, Plot]:
    """Save the plots of a run as `folder/NAME.svg`, and return those that can be drawn, by name.

    A plot that cannot be drawn is left out, with a warning.
    """
    drawn = {}
    for name, plot in run_plots(report).items():
        try:
            plot.save(folder)
        except Exception as error:  # matplotlib can fail at any label, and a picture must not cost the page
            logger.warning("the plot %s cannot be drawn (%s: %s)", name, type(error).__name__, error)
        else:
            drawn[name] = plot
    return drawn


def run_tiles(report: RunReport) -> list[tuple[str, str, str]]:
    """(name, figure, remark) of the headline figures; figures that were not measured are left out."""
    tiles, words = [], TEXTS[report.task]
    if report.test is not None:
        how = "; with test-time augmentation" if report.has_several_views else ""
        for place, measure in enumerate(words.scores.headlines):
            value = getattr(report.test, measure.key)
            name = measure.heading if measure.heading.startswith("F1") else measure.name
            remark = measure.remark or _sampling_interval(value, report.data.test_rows, words.unit)
            if place == 0:
                name, remark = f"Test {measure.short}", remark + how
            if place == 0 or value is not None:
                tiles.append((name, format_accuracy(value), remark))
    if report.quantization is not None and report.quantization.test_accuracy is not None:
        tiles.append(("Accuracy as int8", format_accuracy(report.quantization.test_accuracy), "simulated, on the test"))
    train = report.train
    epochs = f"{format_epochs(train.epochs)}, " if train.epochs is not None else ""
    steps = f"{epochs}{format_count(train.steps)} steps"
    optional = (
        ("Training time", train.seconds, format_duration, steps),
        (words.rate_name, train.images_per_second, format_quantity, "in training"),
        *(("Peak memory", gib, format_gib, where) for gib, where in train.memory_figures[:1]),
        ("Energy", train.energy_joules, format_energy, "of the device, training"),
    )
    return tiles + [(name, write(value), remark) for name, value, write, remark in optional if value is not None]


def save_plots(plots: dict[str, Plot], folder: Path) -> None:
    for plot in plots.values():
        plot.save(folder / "plots")
        plot.save_png(folder / "plots")


def render(template: str, path: Path, **values: Any) -> Path:
    """Fill a template and write it whole."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_accel.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": format_count,
        "quantity": format_quantity,
        "accuracy": format_accuracy,
        "score": format_score,
        "share": format_percent,
        "gib": format_gib,
        "duration": format_duration,
        "bytes": format_bytes,
        "energy": format_energy,
        "plain": _plain_text,
        "code": _code_marked,
        "device": device_text,
    }
    text = environment.get_template(template).render(version=hf_accel.__version__, **values)
    # names of classes may hold control characters, which HTML may not
    return write_whole(path, "\n".join(map(printable, text.split("\n"))))


def _sampling_interval(accuracy: float | None, rows: int | None, unit: str) -> str:
    """How far the accuracy of one run could be off because the test split is a sample."""
    if not rows or accuracy is None:
        return "one run"
    low, high = wilson_interval(accuracy, rows)
    return f"95 %: {100 * low:.1f} to {100 * high:.1f}; {rows:,} {unit}s, one run"


def _code_marked(text: str) -> Markup:
    """Words between backticks as <code>."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _plain_text(value: Any) -> str:
    """A setting as a person would write it in YAML."""
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
