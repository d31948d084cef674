"""The result of `tune --learning_rate` as text and as a page with the curve."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from hf_accel.files import write_whole
from hf_accel.formatting import MISSING, device_text, format_accuracy, format_score
from hf_accel.report.page import render, save_plots
from hf_accel.report.plots import BLUE, GREEN, GRID, INK, ORANGE, STYLE, Plot, new_axes
from hf_accel.tables import format_table
from hf_accel.tuning.learning_rate import smoothed
from hf_accel.tuning.learning_rate_runs import LearningRate

HEADINGS = ("learning rate", "steps", "loss", "validation accuracy", "")


def summary(found: LearningRate) -> list[str]:
    """What was found, in sentences."""
    of_range = (
        "The loss of the range test never falls."
        if found.suggested is None
        else f"The range test suggests {found.suggested:.2g}, where its loss falls fastest."
    )
    if not found.patch:
        return [
            f"Keep the learning rate of {found.own:g}: no other is clearly better by {found.selected_by}.",
            of_range,
        ]
    steps = found.runs[0]["steps"]
    return [
        f"Learning rate {found.best:g} in place of {found.own:g}: the smallest {found.selected_by} after {steps:,} steps.",
        of_range,
        "Short runs favour large rates a little: the schedule of the whole run has more small steps.",
    ]


def rows_of_runs(found: LearningRate) -> list[list[str]]:
    rows = []
    for run in found.runs:
        marks = [word for word, rate in (("the recipe's", found.own), ("best", found.best)) if run["rate"] == rate]
        end = run["error"] or ", ".join(marks)
        accuracy = MISSING if run["accuracy"] is None else format_accuracy(run["accuracy"])
        rows.append([f"{run['rate']:g}", f"{run['steps']:,}", format_score(run["loss"]), accuracy, end])
    return rows


def terminal_text(found: LearningRate) -> str:
    table = format_table(HEADINGS, rows_of_runs(found), align="rrrrl", indent=2)
    return "\n\n".join(["\n".join(summary(found)), table, *found.notes])


def write_learning_rate_page(found: LearningRate, folder: Path) -> Path:
    """Write `learning_rate.md`, `learning_rate.html` and the curve; returns the path of the page."""
    lines = "\n".join(f"- {line}" for line in [*summary(found), *found.notes])
    table = format_table(HEADINGS, rows_of_runs(found), "markdown", align="rrrrl")
    write_whole(folder / "learning_rate.md", f"# {found.recipe}: learning rate\n\n{lines}\n\n{table}\n")
    with matplotlib.rc_context(STYLE):
        plots = {plot.name: plot for plot in [curve_plot(found)] if plot is not None}
    save_plots(plots, folder)
    return render(
        "learning_rate.html",
        folder / "learning_rate.html",
        found=found,
        summary=summary(found),
        headings=HEADINGS,
        rows=rows_of_runs(found),
        plots=plots,
        measured=f"Measured on {device_text(found.environment)}.",
    )


def curve_plot(found: LearningRate) -> Plot | None:
    """Loss by learning rate, with the suggestion and the rate that was chosen."""
    if len(found.curve) < 2:
        return None
    rates, losses = zip(*found.curve, strict=True)
    curve = smoothed(losses)
    figure, axes = new_axes()
    axes.plot(rates, losses, color=GRID, linewidth=1)
    axes.plot(rates, curve, color=BLUE)
    marks = [("suggested", found.suggested, ORANGE), ("best", found.best, GREEN), ("recipe", found.own, INK)]
    for name, rate, colour in marks:
        if rate is not None:
            axes.axvline(rate, color=colour, linewidth=1.2, linestyle="--" if name == "recipe" else "-", label=name)
    axes.set_xscale("log")
    axes.set_ylim(0.95 * min(curve), min(max(losses), 1.6 * curve[0]))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    alt = f"Training loss by learning rate: {curve[0]:.3g} at {rates[0]:.0e}, smallest {min(curve):.3g}"
    return Plot("range_test", "Range test", figure, f"{alt}, last {curve[-1]:.3g} at {rates[-1]:.0e}.")
