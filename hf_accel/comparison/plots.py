"""The plots of a comparison: ratios with their intervals, accuracy against time and parameters, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from hf_accel.comparison.schema import ArmRow, Comparison
from hf_accel.formatting import format_gib
from hf_accel.report.plots import BLUE, GREEN, INK, MUTED, STYLE, VERMILION, Plot, new_axes, verbatim

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


def _speed(comparison: Comparison) -> Plot | None:
    arms = [(arm.name, arm.speed) for arm in comparison.arms if arm.speed is not None]
    if not arms:
        return None
    figure, axes = new_axes(0.34 * len(arms) + 1.0)
    for place, (_, ratio) in enumerate(arms):
        colour = VERDICT_COLOURS.get(ratio.verdict, MUTED)
        if ratio.low is not None:
            axes.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        # The shape repeats the colour: filled has a verdict, hollow has none.
        fill = colour if ratio.verdict in VERDICT_COLOURS else "none"
        axes.plot(ratio.ratio, place, "o", color=colour, markerfacecolor=fill, markersize=6.5)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(arms)), [verbatim(name) for name, _ in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_xscale("log")
    _place_ticks(axes, [edge for _, r in arms for edge in (r.low or r.ratio, r.high or r.ratio)])
    axes.set_xlabel(f"images/s, ratio to {comparison.baseline}")
    axes.grid(axis="y", visible=False)
    told = "; ".join(
        f"{name} {ratio.ratio:.2f}"
        + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else "")
        + f", {ratio.verdict}"
        for name, ratio in arms
    )
    alt = f"Images per second as a ratio to {comparison.baseline}, with 95 % intervals: {told}."
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
    arms = [arm for arm in comparison.arms if arm.mean(comparison.memory_kind) is not None]
    if not arms:
        return None
    figure, axes = new_axes(0.34 * len(arms) + 0.9)
    colours = [VERDICT_COLOURS.get(arm.memory.verdict, MUTED) if arm.memory else MUTED for arm in arms]
    peaks = [arm.mean(comparison.memory_kind) for arm in arms]
    bars = axes.barh([arm.name for arm in arms], peaks, color=colours, height=0.62)
    marks = {"less": " less", "more": " more"}
    axes.bar_label(
        bars,
        [f"{peak:.2f}{marks.get(arm.memory.verdict, '') if arm.memory else ''}"
         for arm, peak in zip(arms, peaks, strict=True)],
        padding=4,
        fontsize=9,
    )  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("GiB")
    axes.grid(axis="y", visible=False)
    what = "device" if comparison.memory_kind == "peak_memory_gib" else "process (anonymous)"
    told = "; ".join(f"{arm.name} {format_gib(peak)}" for arm, peak in zip(arms, peaks, strict=True))
    return Plot("memory", f"Peak memory of the {what}", figure, f"Peak memory of the {what}: {told}.")


def _scatter(
    comparison: Comparison, name: str, against: str, unit: str, value: Callable[[ArmRow], float | None]
) -> Plot | None:
    arms = [(arm, value(arm), arm.mean("accuracy")) for arm in comparison.arms]
    arms = [(arm, x, 100 * y) for arm, x, y in arms if x is not None and y is not None]
    if len({x for _, x, _ in arms}) < 2:
        return None
    figure, axes = new_axes(max(3.4, 0.26 * len(arms)))
    for arm, x, y in arms:
        std = arm.figures["accuracy"]["std"]
        colour, marker = (INK, "s") if arm.name == comparison.baseline else (BLUE, "o")
        if std:
            axes.plot([x, x], [y - 100 * std, y + 100 * std], color=colour, linewidth=1, alpha=0.45)
        axes.plot(x, y, marker, color=colour, markersize=5.5)
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _label_beside(axes, [(arm.name, x, y) for arm, x, y in arms])
    axes.set_xlabel(unit)
    axes.set_ylabel("test accuracy, %")
    told = "; ".join(f"{arm.name} {y:.2f} % at {x:.3g}" for arm, x, y in arms)
    title = f"Accuracy against {against}"
    return Plot(f"accuracy_by_{name}", title, figure, f"{title} ({unit}): {told}.")


def _time_unit(comparison: Comparison) -> tuple[str, Callable[[ArmRow], float | None]]:
    """The axis label and the value, in the unit that gives readable numbers."""
    longest = max((arm.mean("seconds") or 0 for arm in comparison.arms), default=0)
    unit, seconds = ("hours", 3600) if longest > 3 * 3600 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    return f"training time, {unit}", lambda arm: arm.mean("seconds") and arm.mean("seconds") / seconds


def _million_parameters(arm: ArmRow) -> float | None:
    return arm.parameters / 1e6 if arm.parameters else None


def _label_beside(axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Names in a column right of the axes, in the order of the points' heights, so that none covers another."""
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
            name,
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
