"""The plots that tell models apart: accuracy against what a model costs, with its Pareto front, and accuracy by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hf_accel.comparison.fronts import cost_of
from hf_accel.comparison.model_text import shown_classes
from hf_accel.comparison.schema import Classes, Comparison, Row
from hf_accel.formatting import format_percent
from hf_accel.report.plots import (
    BLUE,
    GREEN,
    INK,
    MOST_NAMED,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILION,
    WIDTH,
    Plot,
    new_axes,
    short_label,
    verbatim,
)

TITLES = {"seconds": ("time", "training time"), "parameters": ("parameters", "parameters")}  # in file names, in words
LONG_NAME = 20  # characters of a row's name beyond which it takes much of the width of a plot
MOST_LABELLED = 16  # rows; of more, only the baseline and those on the front are named
LINES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (VERMILION, "D"), (PURPLE, "v"), (INK, "P"))


def row_label(name: str) -> str:
    """The name of a row next to a plot; "recipe/variant" takes two lines, because its width would be taken from the axes."""
    return verbatim(name).replace("/", "/\n")


def cost_plot(comparison: Comparison, cost: str) -> Plot | None:
    """Test accuracy against a cost, with the Pareto front where the rows are several recipes.

    Args:
        cost: "parameters" or "seconds".
    """
    name, against = TITLES[cost]
    rows = cost_points(comparison, cost)
    if len({x for _, x, _ in rows}) < 2:
        return None
    unit, divisor = _unit(cost, [x for _, x, _ in rows])
    points = {row.name: (x / divisor, 100 * y) for row, x, y in rows}
    front = comparison.fronts.get(cost, [])
    named = _named(comparison, cost)
    figure, axes = new_axes(max(3.4, 0.26 * len(named)))
    if front:
        axes.plot(
            *zip(*(points[name] for name in front), strict=True), color=GREEN, linewidth=1.2, drawstyle="steps-post"
        )
    for row, _, _ in rows:
        x, y = points[row.name]
        std = accuracy_std(row)
        colour = GREEN if row.name in front else BLUE
        colour, marker = (INK, "s") if row.name == comparison.baseline else (colour, "o")
        if std:
            axes.plot([x, x], [y - 100 * std, y + 100 * std], color=colour, linewidth=1, alpha=0.45)
        axes.plot(x, y, marker, color=colour, markersize=5.5)
    axes.margins(0.1)
    _place_ticks(axes, [x for x, _ in points.values()], 2 if max(map(len, named)) > LONG_NAME else 5)
    _label_next_to(axes, [(name, *points[name]) for name in named])
    axes.set_xlabel(unit)
    axes.set_ylabel("test accuracy, %")
    title = f"Accuracy against {against}"
    listed = "; ".join(f"{name} {y:.2f} % at {x:.3g}" for name, (x, y) in points.items())
    alt = f"{title} ({unit}): {listed}." + (f" Pareto front: {', '.join(front)}." if front else "")
    return Plot(f"accuracy_by_{name}", title, figure, alt)


def cost_points(comparison: Comparison, cost: str) -> list[tuple[Row, float, float]]:
    """(row, cost, test accuracy as a fraction) of the rows that have both."""
    figures = [(row, cost_of(row, cost), row.mean("accuracy")) for row in comparison.rows]
    return [(row, x, y) for row, x, y in figures if x is not None and y is not None]


def cost_legend(comparison: Comparison, cost: str) -> str:
    """The marks of that plot."""
    shown = [row for row, _, _ in cost_points(comparison, cost)]
    marks = ["Square: the baseline."] if any(row.name == comparison.baseline for row in shown) else []
    marks += ["Bars: one standard deviation over the seeds."] if any(map(accuracy_std, shown)) else []
    if comparison.fronts.get(cost):
        marks.append("Line: the Pareto front; no row is more accurate for the same cost or less.")
    named = _named(comparison, cost)
    if len(named) < len(shown):
        marks.append(f"Of {len(shown)} rows, those on the front and the baseline are named.")
    return " ".join(marks)


def accuracy_std(row: Row) -> float | None:
    return row.figures["accuracy"]["std"]


def class_plot(classes: Classes) -> Plot:
    """Test accuracy by class, one line per row; of many rows, the ones with the best mean are coloured and named."""
    places = shown_classes(classes, MOST_NAMED)
    best = sorted(classes.accuracy, key=lambda name: -_mean(classes.accuracy[name], places))[: len(LINES)]
    figure, axes = new_axes(3.4 + 0.17 * len(best), width=max(WIDTH, 0.24 * len(places) + 1.6))
    handles = {}
    for name, values in classes.accuracy.items():
        heights = [math.nan if (value := values[place]) is None else 100 * value for place in places]
        if name in best:
            colour, marker = LINES[best.index(name)]
            handles[name] = axes.plot(heights, f"{marker}-", color=colour, markersize=4, linewidth=1.2, zorder=3)[0]
        else:
            axes.plot(heights, "-", color=MUTED, linewidth=0.6, alpha=0.6)
    axes.set_xticks(range(len(places)), [short_label(classes.labels[place]) for place in places], rotation=90)
    axes.set_ylabel("test accuracy, %")
    axes.grid(axis="x", visible=False)
    # matplotlib leaves out names that start with an underscore
    names = [row_label(name if name[0] != "_" else f" {name}") for name in best]
    figure.legend([handles[name] for name in best], names, loc="outside upper left", ncols=1, fontsize=8)
    which = (
        "by class"
        if len(places) == len(classes.labels)
        else f"of the {len(places)} hardest of {len(classes.labels)} classes"
    )
    hardest = places[0]
    listed = "; ".join(f"{name} {format_percent(values[hardest])}" for name, values in classes.accuracy.items())
    alt = f"Test accuracy {which}, one line per row. On the hardest, {classes.labels[hardest]}: {listed}."
    return Plot("accuracy_by_class", f"Accuracy {which}", figure, alt)


def class_legend(classes: Classes) -> str:
    """The marks of that plot."""
    others = len(classes.accuracy) - len(LINES)
    named = f" Coloured: the {len(LINES)} rows with the highest mean; grey: the other {others}." if others > 0 else ""
    return f"From left to right: the hardest class first.{named}"


def _mean(values: Sequence[float | None], places: Sequence[int]) -> float:
    known = [value for place in places if (value := values[place]) is not None]
    return sum(known) / len(known) if known else 0.0


def _named(comparison: Comparison, cost: str) -> list[str]:
    """The rows whose names the plot has room for."""
    names, front = [row.name for row, _, _ in cost_points(comparison, cost)], comparison.fronts.get(cost)
    if not front or len(names) <= MOST_LABELLED:
        return names
    return [name for name in names if name in front or name == comparison.baseline]


def _unit(cost: str, values: Sequence[float]) -> tuple[str, float]:
    """The label of the axis, and what the values are divided by to be readable."""
    if cost == "parameters":
        return "million parameters", 1e6
    longest = max(values)
    unit, seconds = ("hours", 3600) if longest > 3 * 3600 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    return f"training time, {unit}", seconds


def _place_ticks(axes: Any, values: Sequence[float], most: int) -> None:
    """Round costs, on a logarithmic axis where the largest is more than ten times the smallest."""
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
        steps = (1.0, 2.0, 5.0) if max(values) < 100 * min(values) else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=most + 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(most))


def _label_next_to(axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Names in a column to the right of the axes, ordered as the points are, so that none covers another."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[2])
    gap = min(0.085, 1 / len(ordered))
    heights = [(y - low) / (high - low) for _, _, y in ordered]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    heights = [height - max(0.0, heights[-1] - 1) for height in heights]  # the column moves down when it is too tall
    for place in range(len(heights) - 2, -1, -1):
        heights[place] = min(heights[place], heights[place + 1] - gap)
    for (name, x, y), height in zip(ordered, heights, strict=True):
        axes.annotate(
            row_label(name),
            (x, y),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": MUTED,
                "linewidth": 0.5,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )
