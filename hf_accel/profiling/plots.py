"""The plots of a profile: a bar per phase of a step, the whole run by part, and time lines."""

from __future__ import annotations

import matplotlib
from matplotlib.patches import Patch

from hf_accel.formatting import format_duration
from hf_accel.profiling.phases import INPUT, MEASURING, of_step
from hf_accel.profiling.schema import Profile, ProfiledRun
from hf_accel.report.plots import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    STYLE,
    VERMILION,
    Plot,
    new_axes,
    verbatim,
)

COLOURS = {"start and prepare": INK, "input": ORANGE, "forward": BLUE, "backward": PURPLE, "optimizer": GREEN,
           "evaluation, inference": VERMILION, "checkpoint": MUTED, "other": GRID}  # fmt: skip
PARTS = {"once": INK, "input": ORANGE, "network": BLUE, "optimizer": GREEN, "loop": GRID, "evaluation": VERMILION,
         "saving": MUTED}  # fmt: skip
ROWS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, MUTED)  # in turn
SHOWN_STEPS = 3  # of a time line


def profile_plots(profile: Profile) -> dict[str, Plot]:
    """Every plot that the profile has figures for, by name."""
    if not profile.measured:
        return {}
    with matplotlib.rc_context(STYLE):
        plots = [_steps(profile), _whole(profile), _step_lines(profile), _run_lines(profile)]
    return {plot.name: plot for plot in plots if plot is not None}


def part_of(phase: str) -> str:
    """What a phase is shown as on a time line."""
    if phase in ("start", "prepare"):
        return "start and prepare"
    if phase in INPUT:
        return "input"
    if phase == "evaluation" or phase.startswith("inference"):
        return "evaluation, inference"
    if phase == "reload":
        return "checkpoint"
    return phase if phase in COLOURS else "other"


def _steps(profile: Profile) -> Plot:
    """A group of bars for each phase of a step, a bar for each row."""
    measured = profile.measured
    names = [name for name in of_step() if any(run.step.get(name) for _, run in measured)]
    figure, axes = new_axes(0.28 * len(names) * max(1.4, len(measured)) + 1.0)
    height = 0.8 / len(measured)
    for number, (row, run) in enumerate(measured):
        places = [place + height * (number - (len(measured) - 1) / 2) for place in range(len(names))]
        values = [1000 * run.step.get(name, 0.0) for name in names]
        bars = axes.barh(places, values, height=0.9 * height, color=ROWS[number % len(ROWS)], label=verbatim(row.name))
        labels = [format_duration(run.step[name]) if name in run.step else "" for name in names]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlabel("milliseconds per step")
    axes.grid(axis="y", visible=False)
    if len(measured) > 1:
        axes.legend(loc="lower right")
    listed = "; ".join(
        f"{row.name}: " + ", ".join(f"{name} {format_duration(run.step.get(name))}" for name in names)
        for row, run in measured
    )
    return Plot("step", "A mean step by phase", figure, f"Time of a mean step by phase. {listed}.")


def _whole(profile: Profile) -> Plot:
    """The whole run of each row, one bar divided by part."""
    measured = profile.measured
    figure, axes = new_axes(0.42 * len(measured) + 1.5)
    scale, unit = _unit(max(sum(run.whole_seconds.values()) for _, run in measured))
    for place, (_, run) in enumerate(measured):
        left = 0.0
        for part, colour in PARTS.items():
            width = run.whole_seconds[part] / scale
            axes.barh(place, width, left=left, height=0.6, color=colour)
            left += width
    axes.set_yticks(range(len(measured)), [verbatim(row.name) for row, _ in measured])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    _legend(figure, PARTS)
    listed = "; ".join(
        f"{row.name}: " + ", ".join(f"{part} {format_duration(run.whole_seconds[part])}" for part in PARTS)
        for row, run in measured
    )
    return Plot("whole_run", "The whole run, computed", figure, f"The whole run by part. {listed}.")


def _step_lines(profile: Profile) -> Plot | None:
    """Time lines of the first steps after the warm-up."""
    lines = {row.name: _neighbouring_steps(run) for row, run in profile.measured}
    lines = {name: spans for name, spans in lines.items() if spans}
    if not lines:
        return None
    what = f"Time line of {SHOWN_STEPS} timed steps after the warm-up; steps without timers between them are left out."
    return _time_lines("step_timeline", "Time line of steps", lines, what)


def _run_lines(profile: Profile) -> Plot:
    """Time lines of the profiled runs from start to end, what is not a part of them left out."""
    lines = {row.name: _joined(list(run.spans)) for row, run in profile.measured}
    what = "Time line of the profiled run: a few steps, an evaluation, a checkpoint, inference."
    return _time_lines("timeline", "Time line of the profiled run", lines, what)


def _neighbouring_steps(run: ProfiledRun) -> list[tuple[str, float, float]]:
    """(part, start, seconds) of some steps, put next to each other."""
    names = of_step()
    found = []
    for start, following in zip(run.step_starts[:SHOWN_STEPS], [*run.step_starts[1:], float("inf")], strict=False):
        own = [span for span in run.spans if start <= span[1] < following]
        ends = next((place for place, span in enumerate(own) if span[0] not in names), len(own))
        found += own[:ends]
    return _joined(found)


def _joined(spans: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """The spans without what lies between them and is not of the run."""
    found, now = [], 0.0
    for phase, _, seconds in spans:
        if phase == MEASURING:
            continue
        found.append((part_of(phase), now, seconds))
        now += seconds
    return found


def _time_lines(name: str, title: str, lines: dict[str, list[tuple[str, float, float]]], what: str) -> Plot:
    figure, axes = new_axes(0.42 * len(lines) + 1.5)
    scale, unit = _unit(max(start + seconds for spans in lines.values() for _, start, seconds in spans[-1:]))
    seen: dict[str, float] = {}
    for place, spans in enumerate(lines.values()):
        for part, colour in COLOURS.items():
            stretches = [(start / scale, seconds / scale) for own, start, seconds in spans if own == part]
            axes.broken_barh(stretches, (place - 0.3, 0.6), facecolors=colour)
            seen[part] = seen.get(part, 0.0) + sum(seconds for _, seconds in stretches)
    axes.set_yticks(range(len(lines)), [verbatim(row) for row in lines])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    _legend(figure, {part: colour for part, colour in COLOURS.items() if seen[part]})
    listed = "; ".join(
        f"{row}: " + ", ".join(
            f"{part} {format_duration(sum(seconds for own, _, seconds in spans if own == part))}"
            for part in COLOURS if any(own == part for own, _, _ in spans)
        )
        for row, spans in lines.items()
    )  # fmt: skip
    return Plot(name, title, figure, f"{what} {listed}.")


def _legend(figure: matplotlib.figure.Figure, colours: dict[str, str]) -> None:
    patches = [Patch(color=colour, label=part) for part, colour in colours.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8)


def _unit(seconds: float) -> tuple[float, str]:
    """Seconds of a unit in which a time is a readable number, and its name."""
    if seconds < 1:
        return 1e-3, "milliseconds"
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 4 * 3600 else (3600.0, "hours")
