"""Runs -> a comparison: figures of each arm, its ratio to the baseline with an interval, and the verdicts of the table.

Speed is images per second of optimisation, so arms that take fewer or larger steps are compared by the work they do.
Timing pairs and accuracy seeds are counted apart: every finished run says something about accuracy, but only two runs
of the same round, near each other in time, say something about speed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_accel.comparison.schema import AS_PUBLISHED, Arm, ArmRow, ArmRun, Comparison, Ratio
from hf_accel.formatting import format_count, format_duration
from hf_accel.measure.paired import (
    PairedRatio,
    paired_difference,
    paired_noise,
    paired_ratio,
    smallest_effect,
    verdicts,
)

if TYPE_CHECKING:
    from hf_accel.config.recipe import Recipe
    from hf_accel.report.run_report import RunReport

DEFAULT_LEARNING_RATE = 5e-5  # of TrainingArguments
SHORT_SECONDS = 10.0  # of measured training, below which a stall of the machine decides a ratio


def build_comparison(arms: Sequence[Arm], runs: dict[str, list[ArmRun]], baseline: str) -> Comparison:
    """Compute the table.

    Args:
        arms: in the order of the rows.
        runs: arm name -> its runs, failed ones included.
        baseline: name of the arm that the others are divided by.
    """
    finished = {arm.name: {run.round: run for run in runs.get(arm.name, []) if run.report} for arm in arms}
    reports = [run.report for of_arm in finished.values() for run in of_arm.values()]
    on_device = any(report.train.peak_memory_gib is not None for report in reports)
    memory_kind = "peak_memory_gib" if on_device else "peak_anonymous_gib"
    rows = [_row(arm, runs.get(arm.name, []), finished[arm.name]) for arm in arms]
    by_name = {arm.name: arm for arm in arms}
    base_runs, base_row = finished[baseline], rows[[arm.name for arm in arms].index(baseline)]
    others = [row for row in rows if row.name != baseline]
    pairs = {row.name: timing_pairs(finished, row.name, baseline) for row in others}
    speeds = {name: _figures(pairs[name], "images_per_second") for name in pairs}
    memories = {name: _figures(pairs[name], memory_kind) for name in pairs}
    for kind, tables, words in (("speed", speeds, ("faster", "slower")), ("memory", memories, ("more", "less"))):
        ratios = [paired_ratio(*tables[row.name]) if tables[row.name][0] else None for row in others]
        for row, ratio, (verdict, p_holm) in zip(others, ratios, verdicts(ratios, *words), strict=True):
            setattr(row, kind, _ratio(ratio, p_holm, verdict))
    for row in others:
        row.technique = recipe_differences(by_name[baseline].recipe, by_name[row.name].recipe)
        row.num_pairs = len(pairs[row.name])
        row.accuracy_difference = _accuracy_difference(finished[row.name], base_runs)
        row.differs = work_differences(by_name[baseline].recipe, by_name[row.name].recipe, base_row, row)
    tables = [table for table in speeds.values() if len(table[0]) > 1]
    noise = paired_noise(tables) if tables else None
    fewest = min((len(table[0]) for table in tables), default=0)
    first = reports[0] if reports else None
    return Comparison(
        baseline=baseline,
        rounds=max((len(of_arm) for of_arm in finished.values()), default=0),
        memory_kind=memory_kind,
        noise=noise,
        smallest_effect=smallest_effect(noise, fewest, len(tables)) if noise is not None else None,
        environment=first.environment if first else {},
        data=dataclasses.asdict(first.data) if first else {},
        arms=rows,
        notes=_notes(arms, others, finished, baseline),
    )


def _notes(
    arms: Sequence[Arm], others: Sequence[ArmRow], finished: dict[str, dict[int, ArmRun]], baseline: str
) -> list[str]:
    """Sentences below the table: in what its figures are weaker than they look."""
    notes = []
    base_runs = finished[baseline]
    if not base_runs:
        notes.append(f"The baseline `{baseline}` has no finished run, so there are no ratios.")
    for row in others:
        apart = len(finished[row.name].keys() & base_runs.keys()) - row.num_pairs
        if apart:
            notes.append(
                f"`{row.name}`: {apart} of its rounds ran too far in time from `{baseline}` to be timing pairs; they count "
                "for accuracy only. --overwrite measures all arms together again."
            )
        if row.variant in AS_PUBLISHED:
            notes.append(f"`{row.name}` repeats a published, confounded setting: it does not judge a single technique.")
    seconds = [run.report.train.seconds for of_arm in finished.values() for run in of_arm.values()]
    shortest = min((value for value in seconds if value is not None), default=None)
    if shortest is not None and shortest < SHORT_SECONDS:
        notes.append(
            f"The shortest run trained for only {format_duration(shortest)}: longer runs give steadier ratios."
        )
    augmented = [arm.name for arm in arms if arm.recipe.data.test_time_augmentation != "none"]
    if augmented:
        which = "all arms" if len(augmented) == len(arms) else ", ".join(f"`{name}`" for name in augmented)
        notes.append(f"Accuracy of {which}: by the mean of the logits over several views of each image.")
    return notes


def timing_pairs(finished: dict[str, dict[int, ArmRun]], name: str, baseline: str) -> list[tuple[RunReport, RunReport]]:
    """(arm, baseline) of each round in which both ran near each other in time.

    Near is: within twice the time that the whole round took. An interruption that is continued soon keeps its pairs; an
    arm that is added another day has none, because the machine's other load has changed since.
    """
    pairs = []
    for number, run in sorted(finished[name].items()):
        base = finished[baseline].get(number)
        if base is None:
            continue
        round_seconds = sum(of_arm[number].wall_seconds for of_arm in finished.values() if number in of_arm)
        if abs(run.started - base.started) <= 2 * round_seconds + 60:
            pairs.append((run.report, base.report))
    return pairs


def run_figures(report: RunReport) -> dict[str, float | int | None]:
    """The figures of one run that a comparison averages, by name."""
    train, test = report.train, report.test
    return {
        "accuracy": test.accuracy if test else None,
        "f1_macro": test.f1_macro if test else None,
        "train_accuracy": train.accuracy,
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
    }


def recipe_differences(baseline: Recipe, arm: Recipe) -> dict[str, list[Any]]:
    """Dotted setting -> [the baseline's value, the arm's], None where one does not set it."""
    before, after = (_flat(recipe.to_dict()) for recipe in (baseline, arm))
    ignored = ("name", "variant", "training.seed", "training.output_dir")
    names = [name for name in {**before, **after} if name not in ignored and before.get(name) != after.get(name)]
    return {name: [before.get(name), after.get(name)] for name in names}


def work_differences(baseline: Recipe, arm: Recipe, base_row: ArmRow, row: ArmRow) -> list[str]:
    """In what an arm does other work than the baseline, whatever the technique: sentences for the table."""
    if not base_row.num_runs or not row.num_runs:
        return []
    rates = [recipe.training.get("learning_rate", DEFAULT_LEARNING_RATE) for recipe in (baseline, arm)]
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


def _row(arm: Arm, runs: Sequence[ArmRun], finished: dict[int, ArmRun]) -> ArmRow:
    failed = [run for run in runs if run.error]
    failure = arm.refused
    if failed:
        failure = failed[0].error if not finished else f"{len(failed)} of {len(runs)} runs failed: {failed[0].error}"
    reports = [finished[number].report for number in sorted(finished)]
    row = ArmRow(
        name=arm.name,
        recipe=arm.recipe.name,
        variant=arm.recipe.variant,
        model=arm.recipe.model.name,
        parameters=reports[0].model.parameters if reports else None,
        failure=failure,
        num_runs=len(reports),
    )
    columns = [run_figures(report) for report in reports]
    for name in columns[0] if columns else ():
        values = [column[name] for column in columns if column[name] is not None]
        if values:
            std = statistics.stdev(values) if len(values) > 1 else None
            row.figures[name] = {"mean": statistics.fmean(values), "std": std, "n": len(values)}
    return row


def _figures(pairs: Sequence[tuple[RunReport, RunReport]], name: str) -> tuple[list[float], list[float]]:
    both = [(run_figures(arm)[name], run_figures(base)[name]) for arm, base in pairs]
    both = [(arm, base) for arm, base in both if arm and base]
    return [arm for arm, _ in both], [base for _, base in both]


def _ratio(ratio: PairedRatio | None, p_holm: float | None, verdict: str) -> Ratio | None:
    if ratio is None:
        return None
    return Ratio(ratio=ratio.ratio, low=ratio.low, high=ratio.high, p_holm=p_holm, verdict=verdict)


def _accuracy_difference(arm: dict[int, ArmRun], base: dict[int, ArmRun]) -> list[float | None] | None:
    both = [(arm[number].report.test, base[number].report.test) for number in sorted(arm.keys() & base.keys())]
    both = [(a.accuracy, b.accuracy) for a, b in both if a and b and a.accuracy is not None and b.accuracy is not None]
    return list(paired_difference(*zip(*both, strict=True))) if both else None


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
