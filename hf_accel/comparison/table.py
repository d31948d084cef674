"""Runs -> a comparison: figures of each entry, its ratio to the baseline with an interval, and the verdicts of the table.

Speed is images or texts per second of optimisation, so entries that take fewer or larger steps are compared by the work they do.
Timing pairs and accuracy seeds are counted apart: every finished run says something about accuracy, but only two runs
of the same round, near each other in time, say something about speed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_accel.comparison.classes import classes_of
from hf_accel.comparison.fronts import pareto_fronts
from hf_accel.comparison.schema import AS_PUBLISHED, Comparison, Entry, Ratio, Row, RunOutcome
from hf_accel.formatting import format_accuracy, format_count, format_duration
from hf_accel.measure.paired import (
    PairedRatio,
    difference_verdicts,
    paired_difference,
    paired_noise,
    paired_ratio,
    smallest_effect,
    verdicts,
)

if TYPE_CHECKING:
    from hf_accel.config.recipe import Recipe
    from hf_accel.report.run_report import RunReport

DEFAULT_LEARNING_RATE = 5e-5  # TrainingArguments' default
DATA_FACTS = ("name", "train_rows", "validation_rows", "test_rows")
SHORT_SECONDS = 10.0  # in a shorter measured training, a stall of the machine decides the ratio


def build_comparison(entries: Sequence[Entry], runs: dict[str, list[RunOutcome]], baseline: str) -> Comparison:
    """Compute the table.

    Args:
        entries: the entries, in the order of the rows.
        runs: entry name -> its runs, failed ones included.
        baseline: the name of the entry that the others are divided by.
    """
    finished = {entry.name: {run.round: run for run in runs.get(entry.name, []) if run.report} for entry in entries}
    reports = [run.measured for outcomes in finished.values() for run in outcomes.values()]
    on_device = any(report.train.peak_memory_gib is not None for report in reports)
    memory_kind = "peak_memory_gib" if on_device else "peak_anonymous_gib"
    rows = [_row(entry, runs.get(entry.name, []), finished[entry.name]) for entry in entries]
    by_name = {entry.name: entry for entry in entries}
    base_runs, base_row = finished[baseline], rows[[entry.name for entry in entries].index(baseline)]
    others = [row for row in rows if row.name != baseline]
    pairs = {row.name: timing_pairs(finished, row.name, baseline) for row in others}
    speeds = {name: _figures(pairs[name], "images_per_second") for name in pairs}
    memories = {name: _figures(pairs[name], memory_kind) for name in pairs}
    for kind, tables, words in (("speed", speeds, ("faster", "slower")), ("memory", memories, ("more", "less"))):
        ratios = [paired_ratio(*tables[row.name]) if tables[row.name][0] else None for row in others]
        for row, ratio, (verdict, p_holm) in zip(others, ratios, verdicts(ratios, *words), strict=True):
            setattr(row, kind, _ratio(ratio, p_holm, verdict))
    _compare_accuracy(others, finished, base_runs)
    for row in others:
        row.technique = recipe_differences(by_name[baseline].recipe, by_name[row.name].recipe)
        row.num_pairs = len(pairs[row.name])
        row.differs = work_differences(by_name[baseline].recipe, by_name[row.name].recipe, base_row, row)
    repeated = [table for table in speeds.values() if len(table[0]) > 1]
    noise = paired_noise(repeated) if repeated else None
    fewest = min((len(table[0]) for table in repeated), default=0)
    first = reports[0] if reports else None
    several = len({entry.recipe.name for entry in entries}) > 1
    classes, without_classes = classes_of(finished) if several else (None, None)
    notes = [*fold_notes(entries, finished), *_notes(entries, others, finished, baseline)]
    return Comparison(
        baseline=baseline,
        rounds=max((len(outcomes) for outcomes in finished.values()), default=0),
        memory_kind=memory_kind,
        noise=noise,
        smallest_effect=smallest_effect(noise, fewest, len(repeated)) if noise is not None else None,
        environment=first.environment if first else {},
        data=dataclasses.asdict(first.data) if first else {},
        rows=rows,
        notes=[*notes, without_classes] if without_classes else notes,
        fronts=pareto_fronts(rows) if several and without_classes is None else {},
        classes=classes,
        task=by_name[baseline].recipe.model.task,
    )


def fold_notes(entries: Sequence[Entry], finished: dict[str, dict[int, RunOutcome]]) -> list[str]:
    """The validation accuracy over the folds of cross-validation, with Student's interval of its mean."""
    notes = []
    for entry in entries:
        scores = [run.measured.validation for run in finished[entry.name].values()]
        values = [score.accuracy for score in scores if score is not None and score.accuracy is not None]
        if entry.folds is None or not values:
            continue
        mean, low, high = paired_difference(values, [0.0] * len(values))
        interval = "" if low is None or high is None else f" ({100 * low:.2f} to {100 * min(high, 1.0):.2f})"
        notes.append(
            f"`{entry.name}`: validation accuracy {format_accuracy(mean)}{interval}, the mean over {len(values)} runs of "
            f"{entry.folds} folds with its 95 % interval, which takes folds for independent although they share training rows."
        )
    return notes


def _notes(
    entries: Sequence[Entry], others: Sequence[Row], finished: dict[str, dict[int, RunOutcome]], baseline: str
) -> list[str]:
    """Sentences below the table, about figures that are weaker than they look."""
    notes = []
    base_runs = finished[baseline]
    if not base_runs:
        notes.append(f"The baseline `{baseline}` has no finished run, so there are no ratios.")
    for row in others:
        apart = len(finished[row.name].keys() & base_runs.keys()) - row.num_pairs
        if apart:
            notes.append(
                f"`{row.name}`: {apart} of its rounds ran too far in time from `{baseline}` to be timing pairs; they count "
                "for accuracy only. --overwrite measures all rows together again."
            )
    published = [f"`{row.name}`" for row in others if row.variant in AS_PUBLISHED]
    if published:
        notes.append(
            "Published settings, which change several things at once and so do not judge a single technique: "
            f"{', '.join(published)}."
        )
    seconds = [run.measured.train.seconds for outcomes in finished.values() for run in outcomes.values()]
    shortest = min((value for value in seconds if value is not None), default=None)
    if shortest is not None and shortest < SHORT_SECONDS:
        notes.append(
            f"The shortest run trained for only {format_duration(shortest)}: longer runs give steadier ratios."
        )
    augmented = [entry.name for entry in entries if entry.recipe.data.test_time_augmentation != "none"]
    if augmented:
        which = "all rows" if len(augmented) == len(entries) else ", ".join(f"`{name}`" for name in augmented)
        notes.append(f"Accuracy of {which}: by the mean of the logits over several views of each image.")
    return notes


def timing_pairs(
    finished: dict[str, dict[int, RunOutcome]], name: str, baseline: str
) -> list[tuple[RunReport, RunReport]]:
    """(this entry, baseline) of each round in which both ran near each other in time.

    Near is: within twice the time that the whole round took. A comparison that is resumed soon keeps its pairs; an
    entry that is added another day has none, because the machine's other load has changed since.
    """
    pairs = []
    for number, run in sorted(finished[name].items()):
        base = finished[baseline].get(number)
        if base is None:
            continue
        round_seconds = sum(outcomes[number].wall_seconds for outcomes in finished.values() if number in outcomes)
        if abs(run.started - base.started) <= 2 * round_seconds + 60:
            pairs.append((run.measured, base.measured))
    return pairs


def run_figures(report: RunReport) -> dict[str, float | int | None]:
    """The figures of one run that a comparison averages, by name."""
    train, test = report.train, report.test
    return {
        "accuracy": test.accuracy if test else None,
        "f1_macro": test.f1_macro if test else None,
        "f1_micro": test.f1_micro if test else None,
        "train_accuracy": train.accuracy,
        "accuracy_gap": _gap(report),
        "seconds": train.seconds,
        "epoch_seconds": train.seconds / train.epochs if train.seconds and train.epochs else None,
        "images_per_second": train.images_per_second,
        "step_seconds_median": train.step_seconds_median,
        "data_wait_fraction": train.data_wait_fraction,
        "compile_seconds": train.compile_seconds,
        "peak_memory_gib": train.peak_memory_gib,
        "peak_rss_gib": train.peak_rss_gib,
        "peak_anonymous_gib": train.peak_anonymous_gib,
        "read_bytes": train.read_bytes,
        "energy_joules": train.energy_joules,
        "steps": train.steps,
        "effective_batch_size": train.effective_batch_size,
        "cpu_latency_seconds": report.model.cpu_latency_seconds,
        "cpu_latency_runs": report.model.cpu_latency_runs,
    }


def _gap(report: RunReport) -> float | None:
    """Train accuracy minus test accuracy."""
    train, test = report.train.accuracy, report.test.accuracy if report.test else None
    return None if train is None or test is None else train - test


def recipe_differences(baseline: Recipe, other: Recipe) -> dict[str, list[Any]]:
    """Dotted setting -> [the baseline's value, the other's], None where one does not set it."""
    before, after = (flat_settings(recipe.to_dict()) for recipe in (baseline, other))
    ignored = ("name", "variant", "training.seed", "training.output_dir")
    names = [name for name in {**before, **after} if name not in ignored and before.get(name) != after.get(name)]
    return {name: [before.get(name), after.get(name)] for name in names}


def work_differences(baseline: Recipe, other: Recipe, base_row: Row, row: Row) -> list[str]:
    """How the work of a row differs from the baseline's, whatever the technique: phrases for the table."""
    if not base_row.num_runs or not row.num_runs:
        return []
    rates = [recipe.training.get("learning_rate", DEFAULT_LEARNING_RATE) for recipe in (baseline, other)]
    compared = (
        ("effective batch", base_row.mean("effective_batch_size"), row.mean("effective_batch_size"), format_count),
        ("optimizer steps", base_row.mean("steps"), row.mean("steps"), format_count),
        ("learning rate", *rates, "{:g}".format),
    )
    return [
        f"{what} {write(after)} instead of {write(before)}"
        for what, before, after, write in compared
        if before is not None and after is not None and before != after
    ]


def _row(entry: Entry, runs: Sequence[RunOutcome], finished: dict[int, RunOutcome]) -> Row:
    failed = [run for run in runs if run.error]
    failure = entry.refused
    if failed:
        failure = failed[0].error if not finished else f"{len(failed)} of {len(runs)} runs failed: {failed[0].error}"
    reports = [finished[number].measured for number in sorted(finished)]
    row = Row(
        name=entry.name,
        recipe=entry.recipe.name,
        variant=entry.recipe.variant,
        model=entry.recipe.model.name,
        parameters=reports[0].model.parameters if reports else None,
        failure=failure,
        num_runs=len(reports),
        trial=entry.trial,
        image_size=entry.recipe.data.image_size,
        flops_per_image=reports[0].model.flops_per_image if reports else None,
        leaves_out=entry.leaves_out,
        data={name: getattr(reports[0].data, name) for name in DATA_FACTS} if reports else None,
    )
    columns = [run_figures(report) for report in reports]
    if entry.folds is not None:
        for column, report in zip(columns, reports, strict=True):
            column["validation_accuracy"] = report.validation.accuracy if report.validation else None
    for name in columns[0] if columns else ():
        values = [value for column in columns if (value := column[name]) is not None]
        if values:
            std = statistics.stdev(values) if len(values) > 1 else None
            row.figures[name] = {"mean": statistics.fmean(values), "std": std, "n": len(values)}
    return row


def _figures(pairs: Sequence[tuple[RunReport, RunReport]], name: str) -> tuple[list[float], list[float]]:
    figures = [(run_figures(own)[name], run_figures(base)[name]) for own, base in pairs]
    both = [(own, base) for own, base in figures if own and base]
    return [own for own, _ in both], [base for _, base in both]


def _ratio(ratio: PairedRatio | None, p_holm: float | None, verdict: str) -> Ratio | None:
    if ratio is None:
        return None
    return Ratio(ratio=ratio.ratio, low=ratio.low, high=ratio.high, p_holm=p_holm, verdict=verdict)


def _compare_accuracy(
    rows: Sequence[Row], finished: dict[str, dict[int, RunOutcome]], base_runs: dict[int, RunOutcome]
) -> None:
    """Set the differences of accuracy to the baseline's, seed by seed, with the verdicts of the table."""
    pairs = []
    for row in rows:
        own = finished[row.name]
        tests = [(own[n].measured.test, base_runs[n].measured.test) for n in sorted(own.keys() & base_runs.keys())]
        both = [(a.accuracy, b.accuracy) for a, b in tests
                if a and b and a.accuracy is not None and b.accuracy is not None]  # fmt: skip
        pairs.append(([a for a, _ in both], [b for _, b in both]))
    found = difference_verdicts(pairs, "higher", "lower")
    for row, pair, (verdict, p_holm) in zip(rows, pairs, found, strict=True):
        row.accuracy_difference = paired_difference(*pair) if pair[0] else None
        row.accuracy_verdict, row.accuracy_p_holm = verdict, p_holm


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
