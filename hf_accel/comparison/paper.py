"""The published figures next to those measured here, for `compare --paper`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from hf_accel.comparison.schema import AS_PUBLISHED, Comparison, Row
from hf_accel.formatting import MISSING, format_accuracy, format_duration

PAPER_HEADINGS = ("model", "data", "source", "variant", "accuracy", "F1 (micro)", "training time", "remark")
PAPER_ALIGN = "llllrrrl"
# The paper's untuned and tuned runs -> our variants that repeat their settings.
VARIANTS = dict(zip(("untuned", "tuned"), AS_PUBLISHED, strict=True))


def paper_table(comparison: Comparison) -> dict[str, Any]:
    """Published rows, each followed by ours.

    Returns:
        `{source, url, command, remarks, rows[{model, data, source, arm, accuracy, f1, f1_micro, seconds, remark}]}`.
        `arm` is the name of the variant. `f1` is micro-averaged in the paper's rows and macro-averaged in ours;
        `f1_micro` is the same in both. A recipe that the paper does not have gives no rows, and a variant that was not
        measured is a row of None.
    """
    published = json.loads((files("hf_accel.comparison") / "published.json").read_text(encoding="utf-8"))
    recipes = {row.recipe for row in comparison.rows}
    rows: list[dict[str, Any]] = []
    for recipe in sorted(recipes):
        theirs = [row for row in published["rows"] if recipe in row["recipes"]]
        if not theirs:
            continue
        place = {"model": theirs[0]["model"], "data": theirs[0]["data"]}
        for name, variant in VARIANTS.items():
            found = [row for row in theirs if row["arm"] == name]
            unknown = {"accuracy": None, "f1": None, "seconds": None, "remark": "not published"}
            figures = {key: found[0][key] for key in unknown} if found else unknown
            rows.append({**place, "source": "paper", "arm": name, **figures, "f1_micro": figures["f1"]})
            rows.append({**place, **_ours(comparison, recipe, variant, f"{name}, as published")})
        for row in comparison.rows:
            if row.recipe == recipe and row.variant not in AS_PUBLISHED:
                rows.append({**place, **_ours(comparison, recipe, row.variant, row.variant)})
    return {**{key: published[key] for key in ("source", "url", "command", "remarks")}, "rows": rows}


def paper_cells(paper: dict[str, Any]) -> list[list[str]]:
    """The rows as texts, in the order of PAPER_HEADINGS."""
    return [
        [row["model"], row["data"], row["source"], row["arm"], format_accuracy(row["accuracy"]),
         format_accuracy(row["f1_micro"]), format_duration(row["seconds"]), row["remark"] or MISSING]
        for row in paper["rows"]
    ]  # fmt: skip


def paper_remarks(paper: dict[str, Any]) -> list[str]:
    """The facts without which the published figures cannot be read, one sentence each."""
    source = f"Published figures: {paper['source']}, {paper['url']}"
    return [source, *paper["remarks"], f"One command measures all rows that were published: `{paper['command']}`"]


def _ours(comparison: Comparison, recipe: str, variant: str, name: str) -> dict[str, Any]:
    row = next((row for row in comparison.rows if (row.recipe, row.variant) == (recipe, variant)), None)
    measured = row if row is not None and row.num_runs else None
    figures = {
        "accuracy": "accuracy",
        "f1": "f1_macro",
        "f1_micro": "f1_micro",
        "seconds": "seconds",
    }
    means = {key: measured.mean(figure) if measured else None for key, figure in figures.items()}
    return {"source": "here", "arm": name, **means, "remark": _remark(row)}


def _remark(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if not row.num_runs:
        return f"failed: {row.failure}"
    runs = "1 run" if row.num_runs == 1 else f"mean of {row.num_runs} runs"
    return runs if row.trial is None else f"a trial that does not count: {row.trial}; {runs}"
