"""The tables about models rather than speed: one row per recipe, accuracy by class, confusions, and left-out techniques."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hf_accel.comparison.leave_out import as_flag
from hf_accel.comparison.schema import Classes, Comparison, Ratio, Row
from hf_accel.comparison.text import FIGURES, SIZE_HEADINGS, format_ratio, name_heading, points, verdict_word, worded
from hf_accel.formatting import (
    MISSING,
    device_text,
    format_count,
    format_duration,
    format_flops,
    format_million,
    format_percent,
)

Cells = tuple[list[str], list[list[str]]]

MODEL_FIGURES = ("accuracy", "f1_macro", "train_accuracy", "accuracy_gap")
COST_FIGURES = ("images_per_second", "seconds")
MOST_CLASSES = 20  # columns of a table
TECHNIQUE_HEADINGS = (
    "technique",
    "switched off by",
    "{rate} with it / without (95 %)",
    "speed",
    "accuracy it gives (95 %)",
    "accuracy",
    "training time without it",
    "seeds",
)
OPPOSITE = {"faster": "slower", "slower": "faster", "higher": "lower", "lower": "higher"}
CONFUSION_HEADINGS = ("true class", "taken for", "mean share of its {unit}s", "models that confuse them")


def model_cells(comparison: Comparison) -> Cells:
    """One row per recipe, the most accurate first: headings, then a list of texts per row."""
    figures = [*MODEL_FIGURES, *COST_FIGURES, comparison.memory_kind, "cpu_latency_seconds"]
    shown = {name: FIGURES[name] for name in figures}
    headings = worded(comparison, [*SIZE_HEADINGS, *(heading for heading, _ in shown.values())])
    headings = [name_heading(comparison), *headings, "front", "n"]
    rows = []
    for row in sorted(comparison.rows, key=lambda row: -(row.mean("accuracy") or 0)):
        cells = [row.name, format_million(row.parameters), format_flops(row.flops_per_image)]
        cells += [write(row.mean(name)) for name, (_, write) in shown.items()]
        rows.append([*cells, fronts_of(comparison, row), str(row.num_runs)])
    return headings, rows


def fronts_of(comparison: Comparison, row: Row) -> str:
    """The costs on whose Pareto front a row is."""
    words = {"parameters": "size", "seconds": "time"}
    return ", ".join(words[cost] for cost, names in comparison.fronts.items() if row.name in names)


def front_remarks(comparison: Comparison) -> list[str]:
    words = {"parameters": "parameters", "seconds": "training time"}
    return [
        f"Pareto front of test accuracy and {words[cost]}, the cheapest first: "
        f"{', '.join(f'`{name}`' for name in names)}. No other row has a higher accuracy for the same or less."
        for cost, names in comparison.fronts.items()
    ]


def shown_classes(classes: Classes, most: int = MOST_CLASSES) -> list[int]:
    """The classes that a table or a plot has room for: all, or the hardest, by their mean accuracy; the hardest first."""
    means = []
    for place in range(len(classes.labels)):
        known = [value for values in classes.accuracy.values() if (value := values[place]) is not None]
        means.append(sum(known) / len(known) if known else 2.0)
    return sorted(range(len(means)), key=means.__getitem__)[:most]


def class_cells(classes: Classes, heading: str) -> Cells:
    """Test accuracy by class: a row per recipe, a column per class, the hardest class first."""
    places = shown_classes(classes)
    rows = [[name, *(format_percent(values[place]) for place in places)] for name, values in classes.accuracy.items()]
    return [heading, *(classes.labels[place] for place in places)], rows


def class_remark(classes: Classes) -> str | None:
    if len(classes.labels) <= MOST_CLASSES:
        return None
    return (
        f"The table of accuracy by class has the {MOST_CLASSES} hardest of {len(classes.labels)} classes; compare.json and "
        "compare.csv have all."
    )


def confusion_cells(comparison: Comparison, classes: Classes) -> Cells:
    """The pairs of classes that are confused most, averaged over the recipes."""
    rows = [
        [pair["true"], pair["predicted"], format_percent(pair["share"]), f"{pair['models']} of {len(classes.accuracy)}"]
        for pair in classes.confusions
    ]
    return worded(comparison, CONFUSION_HEADINGS), rows


def technique_cells(comparison: Comparison) -> Cells:
    """What each technique gives to the whole recipe: the ratios and differences of its row, turned around."""
    rows = []
    for row in comparison.rows:
        if row.leaves_out is None:
            continue
        difference = row.accuracy_difference
        given = None if difference is None else (-difference[0], _minus(difference[2]), _minus(difference[1]))
        rows.append(
            [
                row.leaves_out,
                switched_off_by(row),
                format_ratio(_inverse(row.speed)),
                turned(verdict_word(row.speed, row.failure)),
                points(given),
                "failed" if row.failure and not row.num_runs else turned(row.accuracy_verdict or "not measured"),
                format_duration(row.mean("seconds")),
                str(row.num_runs),
            ]
        )
    return worded(comparison, TECHNIQUE_HEADINGS), rows


def switched_off_by(row: Row) -> str:
    """The settings of a row that leaves a technique out: 'training.bf16: false'."""
    if not row.technique:
        return MISSING
    return ", ".join(f"{name}: {as_flag(after)}" for name, (_, after) in row.technique.items())


def turned(verdict: str) -> str:
    """The verdict on a technique, from that on the recipe without it."""
    return OPPOSITE.get(verdict, verdict)


def model_tables(comparison: Comparison) -> list[tuple[str, Cells, str]]:
    """(title, cells, alignment) of the tables that this comparison has."""
    tables: list[tuple[str, Cells, str]] = []

    def add(title: str, cells: Cells, left: Sequence[int]) -> None:
        align = "".join("l" if place in left else "r" for place in range(len(cells[0])))
        tables.append((title, cells, align))

    if comparison.has_several_recipes:
        cells = model_cells(comparison)
        add("Models", cells, (0, len(cells[0]) - 2))
    if comparison.leaves_out:
        add("What each technique gives", technique_cells(comparison), (0, 1, 3, 5))
    if comparison.classes:
        add("Accuracy by class", class_cells(comparison.classes, name_heading(comparison)), (0,))
        add("Pairs of classes that are confused", confusion_cells(comparison, comparison.classes), (0, 1))
    return tables


def model_remarks(comparison: Comparison) -> list[str]:
    """The facts without which these tables cannot be read, one sentence each."""
    lines, unit = front_remarks(comparison), comparison.words.unit
    passes = [runs for row in comparison.rows if (runs := row.mean("cpu_latency_runs")) is not None]
    if passes:
        least, most = format_count(min(passes)), format_count(max(passes))
        number = most if least == most else f"{least} to {most}"
        cpu = device_text({**comparison.environment, "device": "cpu"})
        lines.append(
            f"CPU latency: one {unit} in the saved model on the {cpu}, float32 and eager, the median of {number} forward "
            "passes after a warm-up in each run; the mean over the runs."
        )
    if any("accuracy_gap" in row.figures for row in comparison.rows):
        lines.append(comparison.words.train_accuracy)
    if comparison.leaves_out:
        lines.append(
            f"Each technique is left out of `{comparison.baseline}` alone, all others stay. Above 1, or above 0, the technique "
            "helps; techniques that overlap give less together than the sum of these figures. Verdicts on accuracy are "
            "corrected for the number of rows (Holm), as those on speed are."
        )
    if comparison.classes:
        remark = class_remark(comparison.classes)
        lines += [remark] if remark else []
        lines.append(
            f"Pairs of classes: the share of the test {unit}s of one class that is taken for the other, averaged over the "
            "rows. A row confuses a pair when this share is at least what it would be if its mistakes in that class were "
            "spread evenly over all other classes."
        )
    return lines


def class_columns(comparison: Comparison) -> list[tuple[str, list[float | None]]]:
    """The figures by class as columns of the CSV: (heading, a value per row); None for a row without them."""
    classes = comparison.classes
    if classes is None:
        return []
    names = [row.name for row in comparison.rows]
    unknown: list[float | None] = [None] * len(classes.labels)
    by_row = [classes.accuracy.get(name, unknown) for name in names]
    columns = [(f"accuracy of {label}", [values[place] for values in by_row])
               for place, label in enumerate(classes.labels)]  # fmt: skip
    return columns + [
        (f"{pair['true']} taken for {pair['predicted']}", [pair["shares"].get(name) for name in names])
        for pair in classes.confusions
    ]


def _inverse(ratio: Ratio | None) -> Ratio | None:
    """The ratio turned around, with its interval."""
    if ratio is None:
        return None
    low, high = (None if bound is None else 1 / bound if bound else math.inf for bound in (ratio.high, ratio.low))
    return dataclasses.replace(ratio, ratio=1 / ratio.ratio, low=low, high=high, verdict=turned(ratio.verdict))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
