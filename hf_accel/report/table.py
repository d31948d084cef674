"""The table a run prints at its end: the main figures, the machine they were measured on, and what they leave out.

It is made from the report alone, so that the same table can be printed again on any machine.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel.formatting import (
    MISSING,
    device_text,
    format_count,
    format_duration,
    format_epochs,
    format_gib,
    format_percent,
    format_quantity,
    format_score,
)
from hf_accel.report.next_commands import place_below
from hf_accel.runs.folder import RunFolder
from hf_accel.tables import format_table, printable
from hf_accel.tasks.texts import TEXTS

if TYPE_CHECKING:
    from hf_accel.report.run_report import ReferenceScores, RunReport

WIDTH = 100
COLUMNS = (11, 12)  # label and figure, as wide in both tables, so that reports can be read below each other


def render_table(report: "RunReport", folder: Path | None = None, width: int = WIDTH) -> str:
    """Render a report as plain text; only a path may be longer than the width, so that it can be copied.

    Args:
        folder: the folder of the run; when given, those of its files that exist are listed below the table.
        width: columns of the text around the figures.
    """
    train, words = report.train, TEXTS[report.task]
    scores = [
        (
            measure.short,
            *(format_score(getattr(split, measure.key, None)) for split in (report.validation, report.test)),
        )
        for measure in words.scores.headlines
    ]
    epochs = MISSING if train.epochs is None else format_epochs(float(f"{train.epochs:.3g}"))
    features = "" if train.feature_seconds is None else f", {format_duration(train.feature_seconds)} for the features"
    speed = [
        ("train time", format_duration(train.seconds), f"{format_count(train.steps)} steps, {epochs}{features}"),
        (
            words.rate,
            format_quantity(train.images_per_second),
            f"effective batch {format_count(train.effective_batch_size)}",
        ),
        ("step", format_duration(train.step_seconds_median), "median"),
        ("data wait", format_percent(train.data_wait_fraction), "of the train time"),
        *_memory_lines(train.memory_figures),
        *_sparsity_line(report),
        *_quantization_line(report),
    ]
    title = (
        f"{report.recipe}, {report.variant}: {report.model.name or MISSING} on {report.data.name or MISSING}, "
        f"{format_count(len(report.data.labels) or None)} classes"
    )
    lines = [
        *_wrapped(title, width),
        "",
        format_table(("", "validation", "test"), scores, min_widths=(*COLUMNS, COLUMNS[-1]), indent=2),
        "",
        format_table((), speed, align="lrl", min_widths=(*COLUMNS, 0), indent=2),
        "",
        *_wrapped(_reference(report.reference), width),
        *_wrapped(_measured_on(report.environment), width),
        *_wrapped(_counts(report), width),
        *_wrapped(_left_out(train.compile_seconds, words.rate), width),
        *_wrapped(_confidence(report), width),
        *(line for note in report.score_notes for line in _wrapped(note, width)),
    ]
    if folder is not None:
        lines += ["", *_files(folder)]
    return "\n".join(lines)


def _memory_lines(figures: list[tuple[float, str]]) -> list[tuple[str, str, str]]:
    lines = [(name, format_gib(gib), where) for name, (gib, where) in zip(("peak memory", ""), figures, strict=False)]
    return lines or [("peak memory", MISSING, "")]


def _sparsity_line(report: "RunReport") -> list[tuple[str, str, str]]:
    pruning = report.pruning
    if pruning is None:
        return []
    return [("sparsity", format_percent(pruning.share), f"zeros of {format_count(pruning.weights)} prunable weights")]


def _quantization_line(report: "RunReport") -> list[tuple[str, str, str]]:
    quantization = report.quantization
    if quantization is None:
        return []
    return [("as int8", format_score(quantization.test_accuracy), "test accuracy with int8 weights and activations")]


def _confidence(report: "RunReport") -> str:
    return "" if report.calibration is None else " ".join(report.calibration.sentences(TEXTS[report.task].unit))


def _measured_on(environment: dict[str, Any]) -> str:
    def known(name: str) -> str:
        value = environment.get(name)
        return MISSING if value is None else str(value)

    commit = known("commit")
    changed = " with changes" if commit.endswith("-dirty") else ""
    versions = ", ".join(f"{name} {known(name)}" for name in ("torch", "transformers", "timm", "hf_accel"))
    return (
        f"Measured on {device_text(environment)}; Python {known('python')}, {versions}, commit {commit[:10]}{changed}."
    )


def _counts(report: "RunReport") -> str:
    data, train = report.data, report.train
    rows = " / ".join(format_count(n) for n in (data.train_rows, data.validation_rows, data.test_rows))
    resumes = f", resumes: {format_count(train.resumes)}" if train.resumes else ""
    unit = TEXTS[report.task].unit
    skipped = f", skipped {unit}s: {format_count(len(data.skipped))}" if data.skipped else ""
    return (
        f"n = 1 run, processes: {format_count(train.world_size)}{resumes}; "
        f"rows of train / validation / test: {rows}{skipped}."
    )


def _reference(reference: "ReferenceScores | None") -> str:
    if reference is None:
        return ""
    return (
        f"{reference.name}: test accuracy {format_score(reference.accuracy)}, F1 (macro) {format_score(reference.f1_macro)}; "
        f"{format_count(reference.train_rows)} training rows, {format_duration(reference.seconds)}."
    )


def _left_out(compile_seconds: float | None, rate: str) -> str:
    compilation = "compilation" if compile_seconds is None else f"compilation ({format_duration(compile_seconds)})"
    return f"Train time, {rate} and step leave out evaluation, saving, {compilation} and warm-up steps."


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(printable(" ".join(text.split())), width, break_on_hyphens=False)


def _files(folder: Path) -> list[str]:
    return [str(path) for path in RunFolder(place_below(folder) or folder).left()]
