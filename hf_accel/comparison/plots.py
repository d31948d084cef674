"""The plots of a comparison: ratios with their intervals, accuracy against time and parameters, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from hf_accel.comparison.schema import Comparison, Row
from hf_accel.formatting import format_gib
from hf_accel.report.plots import BLUE, GREEN, INK, MUTED, STYLE, VERMILION, Plot, new_axes, verbatim

LONG_NAME = 20  # characters of a row's name beyond which it takes much of the width of a plot
VERDICT_COLOURS = {"faster": GREEN, "less": GREEN, "slower": VERMILION, "more": VERMILION}


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Every plot that the comparison has figures for, by name."""
    with matplotlib.rc_context(STYLE):
        plots = [
            _speed(comparison),
            _memory(comparison),
            _scatter(comparison, "time", "training time", *_time_unit(comparison)),
            _scatter(comparison, "parameters", "parameters", "million parameters", _million_parameters),
        ]
    return {plot.name: plot for plot in plots if plot is not None}


def plot_legends(comparison: Comparison) -> dict[str, str]:
    """The legend of each plot, by its name; it explains only marks that are on the plot."""
    ratios = [row.speed for row in comparison.rows if row.speed is not None]
    seen = {ratio.verdict for ratio in ratios}
    decided = [verdict for verdict in ("faster", "slower") if verdict in seen]
    speed = [f"Filled: measurably {' or '.join(decided)}."] if decided else []
    speed += ["Hollow: no measurable difference."] if "no measurable difference" in seen else []
    speed += ["Hollow: not repeated, so without a verdict."] if "not repeated" in seen else []
    speed += ["Bars: 95 % intervals."] if any(ratio.low is not None for ratio in ratios) else []
    legends = {"speed": " ".join(speed), "memory": ""}
    for name, value in (("time", lambda row: row.mean("seconds")), ("parameters", lambda row: row.parameters)):
        shown = [row for row in comparison.rows if "accuracy" in row.figures and value(row)]
        marks = ["Square: the baseline."] if any(row.name == comparison.baseline for row in shown) else []
        marks += ["Bars: one standard deviation over the seeds."] if any(map(_accuracy_std, shown)) else []
        legends[f"accuracy_by_{name}"] = " ".join(marks)
    return legends


def _speed(comparison: Comparison) -> Plot | None:
    rows = [(row.name, row.speed) for row in comparison.rows if row.speed is not None]
    if not rows:
        return None
    figure, axes = new_axes(_height_of_row([name for name, _ in rows]) * len(rows) + 1.0)
    for place, (_, ratio) in enumerate(rows):
        colour = VERDICT_COLOURS.get(ratio.verdict, MUTED)
        if ratio.low is not None:
            axes.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        # The shape repeats the colour: filled has a verdict, hollow has none.
        fill = colour if ratio.verdict in VERDICT_COLOURS else "none"
        axes.plot(ratio.ratio, place, "o", color=colour, markerfacecolor=fill, markersize=6.5)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [_label(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    _place_ticks(axes, [edge for _, r in rows for edge in (r.low or r.ratio, r.high or r.ratio)])
    space = "\n" if len(comparison.baseline) > LONG_NAME else " "
    axes.set_xlabel(f"images/s, ratio to{space}{verbatim(comparison.baseline)}")
    axes.grid(axis="y", visible=False)
    listed = "; ".join(
        f"{name} {ratio.ratio:.2f}"
        + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else "")
        + f", {ratio.verdict}"
        for name, ratio in rows
    )
    alt = f"Images per second as a ratio to {comparison.baseline}, with 95 % intervals: {listed}."
    return Plot("speed", "Speed against the baseline", figure, alt)


def _place_ticks(axes: Any, values: Sequence[float]) -> None:
    """Round ratios that span the data: a log axis by itself has too few labels between 0.9 and 1.5."""
    # Bounds beyond 20x are those of too few repeats: their bars leave the axes.
    low, high = max(0.05, min([0.96, *values]) / 1.03), min(20, max([1.04, *values]) * 1.03)
    span = high / low
    if span < 1.25:
        ticks = [0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.25]
    elif span < 1.9:
        ticks = [0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8]
    elif span < 5:
        ticks = [0.25, 0.35, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5]
    else:
        ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _memory(comparison: Comparison) -> Plot | None:
    rows = [row for row in comparison.rows if row.mean(comparison.memory_kind) is not None]
    if not rows:
        return None
    figure, axes = new_axes(_height_of_row([row.name for row in rows]) * len(rows) + 0.9)
    colours = [VERDICT_COLOURS.get(row.memory.verdict, MUTED) if row.memory else MUTED for row in rows]
    peaks = [row.mean(comparison.memory_kind) for row in rows]
    bars = axes.barh(range(len(rows)), peaks, color=colours, height=0.62)
    axes.set_yticks(range(len(rows)), [_label(row.name) for row in rows])
    marks = {"less": " less", "more": " more"}
    axes.bar_label(
        bars,
        [f"{peak:.2f}{marks.get(row.memory.verdict, '') if row.memory else ''}"
         for row, peak in zip(rows, peaks, strict=True)],
        padding=4,
        fontsize=9,
    )  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("GiB")
    axes.grid(axis="y", visible=False)
    what = "device" if comparison.memory_kind == "peak_memory_gib" else "process (anonymous)"
    listed = "; ".join(f"{row.name} {format_gib(peak)}" for row, peak in zip(rows, peaks, strict=True))
    return Plot("memory", f"Peak memory of the {what}", figure, f"Peak memory of the {what}: {listed}.")


def _scatter(
    comparison: Comparison, name: str, against: str, unit: str, value: Callable[[Row], float | None]
) -> Plot | None:
    figures = [(row, value(row), row.mean("accuracy")) for row in comparison.rows]
    rows = [(row, x, 100 * y) for row, x, y in figures if x is not None and y is not None]
    if len({x for _, x, _ in rows}) < 2:
        return None
    figure, axes = new_axes(max(3.4, 0.26 * len(rows)))
    for row, x, y in rows:
        std = _accuracy_std(row)
        colour, marker = (INK, "s") if row.name == comparison.baseline else (BLUE, "o")
        if std:
            axes.plot([x, x], [y - 100 * std, y + 100 * std], color=colour, linewidth=1, alpha=0.45)
        axes.plot(x, y, marker, color=colour, markersize=5.5)
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(2 if max(len(row.name) for row, _, _ in rows) > LONG_NAME else 5))
    _label_next_to(axes, [(row.name, x, y) for row, x, y in rows])
    axes.set_xlabel(unit)
    axes.set_ylabel("test accuracy, %")
    listed = "; ".join(f"{row.name} {y:.2f} % at {x:.3g}" for row, x, y in rows)
    title = f"Accuracy against {against}"
    return Plot(f"accuracy_by_{name}", title, figure, f"{title} ({unit}): {listed}.")


def _time_unit(comparison: Comparison) -> tuple[str, Callable[[Row], float | None]]:
    """The axis label and the value, in the unit that gives readable numbers."""
    longest = max((row.mean("seconds") or 0 for row in comparison.rows), default=0)
    unit, seconds = ("hours", 3600) if longest > 3 * 3600 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    return f"training time, {unit}", lambda row: row.mean("seconds") and row.mean("seconds") / seconds


def _label(name: str) -> str:
    """The name of a row next to a plot; "recipe/variant" takes two lines, because its width would be taken from the axes."""
    return verbatim(name).replace("/", "/\n")


def _height_of_row(names: Sequence[str]) -> float:
    """Inches."""
    return 0.5 if any("/" in name for name in names) else 0.34


def _accuracy_std(row: Row) -> float | None:
    return row.figures["accuracy"]["std"]


def _million_parameters(row: Row) -> float | None:
    return row.parameters / 1e6 if row.parameters else None


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
            _label(name),
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
