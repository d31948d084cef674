"""`report.html` of a search, made from its `tune.json` alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from hf_accel.comparison.table import flat_settings
from hf_accel.report.page import render, save_plots
from hf_accel.report.plots import GREEN, INK, MUTED, STYLE, VERMILION, Plot, new_axes, verbatim
from hf_accel.tuning.result import Tuning
from hf_accel.tuning.text import (
    EXPECTED_HEADINGS,
    HEADINGS,
    expected_rows,
    remarks,
    summary,
    technique_rows,
    title,
)

TONES = {"accepted": "good", "rejected": "bad"}


def write_tuning_page(folder: Path) -> Path:
    """Write the page of a finished search, and its plot as a file; returns the path of `report.html`."""
    tuning = Tuning.load(folder)
    with matplotlib.rc_context(STYLE):
        plot = gain_plot(tuning)
    plots = {} if plot is None else {plot.name: plot}
    save_plots(plots, folder)
    return render(
        "tuning.html",
        folder / "report.html",
        tuning=tuning,
        title=title(tuning),
        summary=summary(tuning),
        settings=flat_settings(tuning.patch),
        headings=HEADINGS,
        rows=technique_rows(tuning),
        expected_headings=EXPECTED_HEADINGS,
        expected=expected_rows(tuning),
        remarks=remarks(tuning),
        plots=plots,
        tones=TONES,
        has_confirmation=(folder / "confirmation" / "report.html").is_file(),
    )


def gain_plot(tuning: Tuning) -> Plot | None:
    """The gain of each technique that was measured, the largest first."""
    tried = sorted((one for one in tuning.techniques if one.gain), key=lambda one: -(one.gain or 0))
    if not tried:
        return None
    figure, axes = new_axes(0.34 * len(tried) + 1.0)
    for place, one in enumerate(tried):
        gain = one.gain or 1.0
        colour = GREEN if one.word == "accepted" else VERMILION if gain < 1 else MUTED
        fill = colour if one.word == "accepted" else "none"
        axes.plot([1, gain], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(gain, place, "o", color=colour, markerfacecolor=fill, markersize=6.5)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(tried)), [verbatim(one.name) for one in tried])
    axes.set_ylim(len(tried) - 0.4, -0.6)
    axes.set_xlabel("cost without / cost with the technique")
    axes.grid(axis="y", visible=False)
    listed = "; ".join(f"{one.name} {one.gain:.2f}, {one.word}" for one in tried)
    return Plot("gains", "Gain of each technique in trials", figure, f"Gain of each technique: {listed}.")
