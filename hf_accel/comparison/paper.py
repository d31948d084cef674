"""The published figures beside those measured here, for `compare --paper`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from hf_accel.comparison.schema import AS_PUBLISHED, Comparison
from hf_accel.formatting import MISSING, format_duration
from hf_accel.report.page import format_accuracy

PAPER_HEADINGS = ("model", "data", "source", "arm", "accuracy", "F1", "training time", "remark")
# The paper's untuned and tuned runs, and our variants that repeat their settings.
ARMS = dict(zip(("untuned", "tuned"), AS_PUBLISHED, strict=True))


def paper_table(comparison: Comparison) -> dict[str, Any]:
    """Published rows, each followed by ours.

    Returns:
        {source, remarks, rows[{model, data, source, arm, accuracy, f1, seconds, remark}]}. A recipe that the paper does
        not have gives no rows, and an arm that was not measured is a row of None.
    """
    published = json.loads((files("hf_accel.comparison") / "published.json").read_text(encoding="utf-8"))
    recipes = {arm.recipe for arm in comparison.arms}
    rows: list[dict[str, Any]] = []
    for recipe in sorted(recipes):
        theirs = [row for row in published["rows"] if recipe in row["recipes"]]
        if not theirs:
            continue
        place = {"model": theirs[0]["model"], "data": theirs[0]["data"]}
        for name, variant in ARMS.items():
            found = [row for row in theirs if row["arm"] == name]
            unknown = {"accuracy": None, "f1": None, "seconds": None, "remark": "not published"}
            figures = {key: found[0][key] for key in unknown} if found else unknown
            rows.append({**place, "source": "paper", "arm": name, **figures})
            rows.append({**place, **_ours(comparison, recipe, variant, f"{name}, as published")})
        for arm in comparison.arms:
            if arm.recipe == recipe and arm.variant not in AS_PUBLISHED:
                rows.append({**place, **_ours(comparison, recipe, arm.variant, arm.variant)})
    return {"source": published["source"], "remarks": published["remarks"], "rows": rows}


def paper_cells(paper: dict[str, Any]) -> list[list[str]]:
    """The rows as texts, in the order of PAPER_HEADINGS."""
    return [
        [row["model"], row["data"], row["source"], row["arm"], format_accuracy(row["accuracy"]),
         format_accuracy(row["f1"]), format_duration(row["seconds"]), row["remark"] or MISSING]
        for row in paper["rows"]
    ]  # fmt: skip


def _ours(comparison: Comparison, recipe: str, variant: str, name: str) -> dict[str, Any]:
    arm = next((arm for arm in comparison.arms if (arm.recipe, arm.variant) == (recipe, variant)), None)
    if arm is None or not arm.num_runs:
        remark = "not measured" if arm is None else f"failed: {arm.failure}"
        return {"source": "here", "arm": name, "accuracy": None, "f1": None, "seconds": None, "remark": remark}
    runs = "1 run" if arm.num_runs == 1 else f"mean of {arm.num_runs} runs"
    return {"source": "here", "arm": name, "accuracy": arm.mean("accuracy"), "f1": arm.mean("f1_macro"),
            "seconds": arm.mean("seconds"), "remark": runs}  # fmt: skip
