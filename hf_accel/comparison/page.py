"""`report.html` of a comparison, made from its `compare.json` alone."""

from __future__ import annotations

from pathlib import Path

from hf_accel.comparison.model_text import model_remarks, model_tables, turned
from hf_accel.comparison.paper import PAPER_HEADINGS, paper_cells, paper_remarks
from hf_accel.comparison.plots import comparison_plots, plot_legends
from hf_accel.comparison.schema import AS_PUBLISHED, Comparison, Row
from hf_accel.comparison.text import (
    figure_cells,
    footnotes,
    format_interval,
    format_ratio,
    measured_on,
    name_heading,
    signed,
    verdict_word,
    with_std,
)
from hf_accel.formatting import format_accuracy
from hf_accel.report.page import render, save_plots

TONES = {"faster": "good", "less": "good", "slower": "bad", "more": "bad", "failed": "bad"}

MOST_LISTED = 20  # rows in one sentence
MOST_IN_TITLE = 4  # recipes


def write_comparison_page(folder: Path) -> Path:
    """Write the page of a finished comparison, and its plots as files.

    Args:
        folder: the folder of a comparison, with its `compare.json`.
    Returns:
        The path of `report.html`; the plots are `plots/*.svg` and `plots/*.png` next to it.
    Raises:
        UserError: there is no `compare.json`.
    """
    comparison = Comparison.load(folder)
    plots = comparison_plots(comparison)
    save_plots(plots, folder)
    headings, figures = figure_cells(comparison)
    return render(
        "comparison.html",
        folder / "report.html",
        comparison=comparison,
        words=comparison.words,
        plots=plots,
        legends=plot_legends(comparison),
        name_heading=name_heading(comparison),
        summary=summary(comparison),
        measured=measured_on(comparison),
        title=page_title(comparison),
        tones=TONES,
        verdict_word=verdict_word,
        interval=format_interval,
        with_std=with_std,
        signed=signed,
        headings=headings,
        figures=figures,
        footnotes=[*footnotes(comparison), *model_remarks(comparison)],
        model_tables=model_tables(comparison),
        paper_headings=PAPER_HEADINGS,
        paper_rows=paper_cells(comparison.paper) if comparison.paper else [],
        paper_remarks=paper_remarks(comparison.paper) if comparison.paper else [],
    )


def page_title(comparison: Comparison) -> str:
    """The recipes, or the first ones of many."""
    recipes = list(dict.fromkeys(row.recipe for row in comparison.rows))
    if len(recipes) <= MOST_IN_TITLE:
        return ", ".join(recipes)
    return f"{', '.join(recipes[: MOST_IN_TITLE - 1])} and {len(recipes) - MOST_IN_TITLE + 1} more"


def summary(comparison: Comparison) -> list[str]:
    """What the comparison found, in sentences that can be quoted."""
    if comparison.leaves_out:
        return _summary_of_techniques(comparison)
    return [*_best_models(comparison), *_summary_of_speed(comparison)]


def _best_models(comparison: Comparison) -> list[str]:
    """The most accurate of several recipes, where they were scored on the same rows."""
    known = [(row, accuracy) for row in comparison.rows if (accuracy := row.mean("accuracy")) is not None]
    if not comparison.fronts or not known:
        return []
    best, accuracy = max(known, key=lambda pair: pair[1])
    return [
        f"`{best.name}` is the most accurate: {format_accuracy(accuracy)} on the test {comparison.words.unit}s, mean of "
        f"{best.num_runs}."
    ]


def _summary_of_techniques(comparison: Comparison) -> list[str]:
    """What each technique that was left out gives to the recipe."""
    sentences, rows = [], comparison.rows
    for what, found in (
        (
            comparison.words.rate,
            {row.leaves_out: turned(row.speed.verdict) for row in rows if row.leaves_out and row.speed},
        ),
        ("test accuracy", {row.leaves_out: turned(row.accuracy_verdict or "") for row in rows if row.leaves_out}),
    ):
        for verdicts, words in ((("faster", "higher"), "raise"), (("slower", "lower"), "lower")):
            names = [f"`{name}`" for name, verdict in found.items() if verdict in verdicts]
            if names:
                sentences.append(f"Techniques that measurably {words} {what}: {', '.join(names)}.")
    return sentences or ["No technique has a measurable effect."]


def _summary_of_speed(comparison: Comparison) -> list[str]:
    others = [(row, row.speed) for row in comparison.rows if row.speed and row.variant not in AS_PUBLISHED]
    if not others:
        return ["No row could be compared with the baseline."]
    if all(speed.verdict == "not repeated" for _, speed in others):
        return ["Every row ran once: ratios without an interval, and no verdicts."]
    faster = [(row, speed) for row, speed in others if speed.verdict == "faster"]
    sentences = []
    if faster:
        best, speed = max(faster, key=lambda pair: pair[1].ratio)
        sentences.append(
            f"`{best.name}` is fastest: {format_ratio(speed)} times the {comparison.words.rate} of `{comparison.baseline}`"
            f"{_accuracy_clause(best)}."
        )
    else:
        sentences.append(f"No row is measurably faster than `{comparison.baseline}`.")
    for verdict, words in (
        ("faster", "Measurably faster"),
        ("slower", "Measurably slower"),
        ("no measurable difference", "No measurable difference in speed"),
    ):
        names = [f"`{row.name}`" for row, speed in others if speed.verdict == verdict]
        if names:
            more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
            sentences.append(f"{words}: {', '.join(names[:MOST_LISTED])}{more}.")
    less = [f"`{row.name}`" for row, _ in others if row.memory is not None and row.memory.verdict == "less"]
    if less:
        sentences.append(f"Less memory: {', '.join(less)}.")
    return sentences


def _accuracy_clause(row: Row) -> str:
    """Whether the speed costs accuracy, as far as the seeds tell."""
    if row.accuracy_difference is None:
        return ""
    mean, low, high = row.accuracy_difference
    if low is None or high is None:
        return ""
    interval = f"{signed(mean)} points, 95 %: {signed(low)} to {signed(high)}"
    if low <= 0 <= high:
        return f", with no measurable change of test accuracy ({interval})"
    return f", and test accuracy changes by {interval}"
