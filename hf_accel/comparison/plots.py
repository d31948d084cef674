"""The plots of a comparison: ratios with their intervals, memory, and those of `model_plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, NullFormatter

from hf_accel.comparison.model_plots import (
    LONG_NAME,
    TITLES,
    class_legend,
    class_plot,
    cost_legend,
    cost_plot,
    row_label,
)
from hf_accel.comparison.schema import Comparison
from hf_accel.formatting import format_gib
from hf_accel.report.plots import GREEN, INK, MUTED, STYLE, VERMILION, Plot, new_axes, verbatim

VERDICT_COLOURS = {"faster": GREEN, "less": GREEN, "slower": VERMILION, "more": VERMILION}


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Every plot that the comparison has figures for, by name."""
    with matplotlib.rc_context(STYLE):
        plots = [
            _speed(comparison),
            _memory(comparison),
            cost_plot(comparison, "seconds"),
            cost_plot(comparison, "parameters"),
            class_plot(comparison.classes) if comparison.classes else None,
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
    for cost, (name, _) in TITLES.items():
        legends[f"accuracy_by_{name}"] = cost_legend(comparison, cost)
    legends["accuracy_by_class"] = class_legend(comparison.classes) if comparison.classes else ""
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
    axes.set_yticks(range(len(rows)), [row_label(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    _place_ticks(axes, [edge for _, r in rows for edge in (r.low or r.ratio, r.high or r.ratio)])
    space = "\n" if len(comparison.baseline) > LONG_NAME else " "
    axes.set_xlabel(f"{comparison.words.rate}, ratio to{space}{verbatim(comparison.baseline)}")
    axes.grid(axis="y", visible=False)
    listed = "; ".join(
        f"{name} {ratio.ratio:.2f}"
        + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else "")
        + f", {ratio.verdict}"
        for name, ratio in rows
    )
    alt = f"{comparison.words.rate_name} as a ratio to {comparison.baseline}, with 95 % intervals: {listed}."
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
    axes.set_yticks(range(len(rows)), [row_label(row.name) for row in rows])
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


def _height_of_row(names: Sequence[str]) -> float:
    """Inches."""
    return 0.5 if any("/" in name for name in names) else 0.34
