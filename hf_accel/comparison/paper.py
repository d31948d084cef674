"""The published figures next to those measured here, for `compare --paper`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from hf_accel.comparison.schema import AS_PUBLISHED, Comparison, Row
from hf_accel.config.recipe import Recipe, RecipeFile
from hf_accel.formatting import MISSING, format_accuracy, format_duration, format_quantity

PAPER_HEADINGS = ("model", "data", "source", "variant", "accuracy", "F1 (micro)", "training time", "remark")
PAPER_ALIGN = "llllrrrl"
# The paper's untuned and tuned runs -> our variants that repeat their settings.
VARIANTS = dict(zip(("untuned", "tuned"), AS_PUBLISHED, strict=True))


def paper_table(comparison: Comparison) -> dict[str, Any]:
    """Published rows, each followed by ours.

    Returns:
        `{source, url, command, expected, remarks, rows[{model, data, source, arm, accuracy, f1, f1_micro, seconds,
        remark}]}`. `command` measures all published rows, `expected` says how long that takes here. `arm` is the name
        of the variant. `f1` is micro-averaged in the paper's rows and macro-averaged in ours; `f1_micro` is the same in
        both. A recipe that the paper does not have gives no rows, and a variant that was not measured is a row of None.
    """
    published = published_figures()
    recipes = {row.recipe for row in comparison.rows}
    rows: list[dict[str, Any]] = []
    for recipe in sorted(recipes):
        theirs = [row for row in published["rows"] if recipe in row["recipes"]]
        if not theirs:
            continue
        place = {"model": theirs[0]["model"], "data": theirs[0]["data"]}
        their_data = published["data"][place["data"]]
        for name, variant in VARIANTS.items():
            found = [row for row in theirs if row["arm"] == name]
            unknown = {"accuracy": None, "f1": None, "seconds": None, "remark": "not published"}
            figures = {key: found[0][key] for key in unknown} if found else unknown
            rows.append({**place, "source": "paper", "arm": name, **figures, "f1_micro": figures["f1"]})
            rows.append({**place, **_ours(_row_of(comparison, recipe, variant), f"{name}, as published", their_data)})
        rows += [
            {**place, **_ours(row, row.variant, their_data)}
            for row in comparison.rows
            if row.recipe == recipe and row.variant not in AS_PUBLISHED
        ]
    facts = {key: published[key] for key in ("source", "url", "remarks")}
    return {**facts, "command": command(published), "expected": expected_time(comparison, published), "rows": rows}


def published_figures() -> dict[str, Any]:
    return json.loads((files("hf_accel.comparison") / "published.json").read_text(encoding="utf-8"))


def command(published: dict[str, Any]) -> str:
    """The command that measures all rows that were published."""
    return (
        f"hf-accel compare --paper --recipe {' '.join(published['recipes'])} --variants {' '.join(published['variants'])} "
        f"--repeats {published['repeats']}"
    )


def expected_time(comparison: Comparison, published: dict[str, Any]) -> str:
    """How long that command trains on this machine, from the images/s of the rows that were measured."""
    total, known, unknown = 0.0, [], []
    for name in published["recipes"]:
        file = RecipeFile.read(name)
        recipes = [file.recipe(None if variant == "default" else variant) for variant in published["variants"]]
        sources = [row for recipe in recipes if (row := _speed_source(comparison, recipe)) is not None]
        if len(sources) < len(recipes):
            unknown.append(f"`{name}`")
            continue
        speeds = [row.figures["images_per_second"]["mean"] for row in sources]
        images = [
            recipe.training["num_train_epochs"] * published["train_rows"] * (1 - recipe.data.validation)
            for recipe in recipes
        ]
        seconds = published["repeats"] * sum(count / speed for count, speed in zip(images, speeds, strict=True))
        total += seconds
        known.append(f"`{name}` {format_duration(seconds)} (at {', '.join(map(format_quantity, speeds))} images/s)")
    sentences = []
    if known:
        whole = f", {format_duration(total)} in all" if len(known) > 1 else ""
        sentences.append(
            f"Training time to expect from it on this machine: {'; '.join(known)}{whole}. The images/s of its variants were "
            "measured here, for the variant itself or the nearest row with the same network."
        )
    if unknown:
        sentences.append(
            f"The speed of {', '.join(unknown)} was not measured here: the command with --dry_run measures a few steps of "
            "each recipe and prints the expected time."
        )
    return " ".join(sentences)


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
    return [source, *paper["remarks"], *command_remarks(paper)]


def command_remarks(paper: dict[str, Any]) -> list[str]:
    """The command that measures everything that was published, and its time; earlier versions did not record the time."""
    remarks = [f"One command measures all rows that were published: `{paper['command']}`"]
    return [*remarks, paper["expected"]] if paper.get("expected") else remarks


def _row_of(comparison: Comparison, recipe: str, variant: str) -> Row | None:
    return next((row for row in comparison.rows if (row.recipe, row.variant) == (recipe, variant)), None)


def _speed_source(comparison: Comparison, recipe: Recipe) -> Row | None:
    """The measured row whose images/s a run of this recipe would have: its own, else the nearest with the same network."""
    able = [
        row
        for row in comparison.rows
        if row.mean("images_per_second") and (row.model, row.image_size) == (recipe.model.name, recipe.data.image_size)
    ]
    return max(able, key=lambda row: (row.recipe == recipe.name, row.variant == recipe.variant), default=None)


def _ours(row: Row | None, name: str, their_data: str) -> dict[str, Any]:
    """One measured row, for the table next to the published ones.

    Args:
        row: None when it was not measured.
        their_data: the name of the paper's data set on the Hub.
    """
    measured = row if row is not None and row.num_runs else None
    figures = {"accuracy": "accuracy", "f1": "f1_macro", "f1_micro": "f1_micro", "seconds": "seconds"}
    means = {key: measured.mean(figure) if measured else None for key, figure in figures.items()}
    return {"source": "here", "arm": name, **means, "remark": _remark(row, their_data)}


def _remark(row: Row | None, their_data: str) -> str:
    if row is None:
        return "not measured"
    if not row.num_runs:
        return f"failed: {row.failure}"
    remarks = [] if row.trial is None else [f"a trial that does not count: {row.trial}"]
    remarks.append("1 run" if row.num_runs == 1 else f"mean of {row.num_runs} runs")
    if row.data is not None and row.data["name"] != their_data:
        remarks.append(f"data: {row.data['name']}")
    return "; ".join(remarks)
