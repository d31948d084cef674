"""`report.html` of a profile, made from its `profile.json` alone."""

from __future__ import annotations

from pathlib import Path

from hf_accel.profiling.export import all_tables
from hf_accel.profiling.plots import profile_plots
from hf_accel.profiling.schema import Profile
from hf_accel.profiling.text import footnotes, verdicts
from hf_accel.report.page import render, save_plots

CAPTIONS = {
    "whole_run": "What the recipe asks for, computed from the steps, the evaluation and the checkpoint that were timed.",
    "step_timeline": "Three timed steps, put next to each other.",
    "timeline": "A few steps, an evaluation and a checkpoint where the recipe has them, and inference.",
}


def write_profile_page(folder: Path) -> Path:
    """Write the page of a profile, and its plots as files.

    Args:
        folder: the folder of a profile, with its `profile.json`.
    Returns:
        The path of `report.html`; the plots are `plots/*.svg` and `plots/*.png` next to it.
    Raises:
        UserError: there is no `profile.json`, or it is damaged.
    """
    profile = Profile.load(folder)
    plots = profile_plots(profile)
    save_plots(plots, folder)
    environment = profile.measured[0][1].environment if profile.measured else {}
    return render(
        "profile.html",
        folder / "report.html",
        profile=profile,
        title=profile.recipe,
        verdicts=verdicts(profile),
        tables=all_tables(profile),
        plots=plots,
        captions=CAPTIONS,
        footnotes=footnotes(profile),
        environment=environment,
        traces=[run.trace for _, run in profile.measured if run.trace is not None],
    )
