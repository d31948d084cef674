"""The figures of a comparison as text: the cells of its tables and the footnotes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hf_accel.comparison.schema import Comparison, Ratio
from hf_accel.formatting import (
    MISSING,
    device_text,
    format_accuracy,
    format_bytes,
    format_count,
    format_duration,
    format_energy,
    format_flops,
    format_gib,
    format_million,
    format_percent,
    format_quantity,
)

# name in compare.json -> (heading, how it is written); `worded` fills in the words of the task
FIGURES = {
    "accuracy": ("test accuracy", format_accuracy),
    "validation_accuracy": ("validation accuracy", format_accuracy),
    "f1_macro": ("F1 (macro)", format_accuracy),
    "train_accuracy": ("train accuracy", format_accuracy),
    "accuracy_gap": ("train - test", lambda gap: MISSING if gap is None else f"{signed(gap)} points"),
    "seconds": ("training time", format_duration),
    "epoch_seconds": ("per epoch", format_duration),
    "images_per_second": ("{rate}", format_quantity),
    "step_seconds_median": ("step (median)", format_duration),
    "data_wait_fraction": ("data wait", format_percent),
    "compile_seconds": ("compilation", format_duration),
    "peak_memory_gib": ("peak device memory", format_gib),
    "peak_rss_gib": ("peak resident memory", format_gib),
    "peak_anonymous_gib": ("peak anonymous memory", format_gib),
    "read_bytes": ("read from storage", format_bytes),
    "energy_joules": ("energy", format_energy),
    "steps": ("optimizer steps", format_count),
    "effective_batch_size": ("effective batch", format_count),
    "cpu_latency_seconds": ("CPU latency, 1 {unit}", format_duration),
}
SIZE_HEADINGS = ("parameters", "FLOPs per {unit}")
VERDICT_HEADINGS = (
    "{rate}",
    "speed ratio (95 %)",
    "speed",
    "test accuracy",
    "accuracy difference (95 %)",
    "memory ratio (95 %)",
    "memory",
    "timing pairs",
    "seeds",
)


def name_heading(comparison: Comparison) -> str:
    """The heading of the rows' names: they are variants of one recipe, or recipes."""
    return "recipe" if comparison.has_several_recipes else "variant"


def worded(comparison: Comparison, headings: Iterable[str]) -> list[str]:
    """Headings in the words of the task: '{rate}' is 'images/s' or 'samples/s', '{unit}' is 'image' or 'text'."""
    words = comparison.words
    return [heading.format(rate=words.rate, unit=words.unit) for heading in headings]


def verdict_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The first table: headings, then a list of texts per row."""
    rows = []
    for row in comparison.rows:
        is_baseline = row.name == comparison.baseline
        cells = [row.name, format_quantity(row.mean("images_per_second"))]
        cells += ["1", "baseline"] if is_baseline else [format_ratio(row.speed), verdict_word(row.speed, row.failure)]
        cells += [with_std(row.figures.get("accuracy")), MISSING if is_baseline else points(row.accuracy_difference)]
        cells += ["1", "baseline"] if is_baseline else [format_ratio(row.memory), verdict_word(row.memory, row.failure)]
        cells += [MISSING if is_baseline else str(row.num_pairs), str(row.num_runs)]
        rows.append(cells)
    return [name_heading(comparison), *worded(comparison, VERDICT_HEADINGS)], rows


def figure_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The second table: headings, then a list of texts per row; a figure that no row has is left out."""
    names = [name for name in FIGURES if any(name in row.figures for row in comparison.rows)]
    rows = [
        [row.name, format_million(row.parameters), format_flops(row.flops_per_image),
         *(FIGURES[name][1](row.mean(name)) for name in names), str(row.num_runs)]
        for row in comparison.rows
    ]  # fmt: skip
    headings = worded(comparison, [*SIZE_HEADINGS, *(FIGURES[name][0] for name in names)])
    return [name_heading(comparison), *headings, "n"], rows


def footnotes(comparison: Comparison) -> list[str]:
    """The facts without which the table cannot be read, one sentence each."""
    differing, unit = _differing(comparison), comparison.words.unit
    lines = []
    if differing:
        lines.append(f"Rows that differ from `{comparison.baseline}` in more than the technique: {' '.join(differing)}")
    elif any(row.speed is not None for row in comparison.rows):
        lines.append(
            f"All rows do the same work as `{comparison.baseline}`: effective batch, optimizer steps and learning rate."
        )
    lines += [f"`{row.name}` failed: {row.failure}" for row in comparison.rows if row.failure]
    lines += comparison.notes
    lines.append(measured_on(comparison))
    lines.append(
        f"Speed is {unit}s per second of optimisation; evaluation, saving, compilation and warm-up steps are left out. "
        "Ratios are geometric means over runs of the same round, with Student's 95 % interval of the log ratio; "
        "verdicts are corrected for the number of rows (Holm) and need at least 1 %. Memory is "
        f"{'the peak of the device' if comparison.memory_kind == 'peak_memory_gib' else 'the anonymous peak of the process'}."
    )
    if comparison.noise is not None:
        found = (
            f"{100 * (comparison.smallest_effect - 1):.0f} %"
            if comparison.smallest_effect
            else "no difference up to 4x"
        )
        lines.append(
            f"Noise of one pair: {100 * comparison.noise:.1f} %. With these repeats {found} would be found four times in five."
        )
    return lines


def _differing(comparison: Comparison) -> list[str]:
    """How the work of rows differs from the baseline's, in one sentence per difference."""
    by_difference: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.differs:
            by_difference.setdefault("; ".join(row.differs), []).append(f"`{row.name}`")
    return [f"{', '.join(names)}: {what}." for what, names in by_difference.items()]


def measured_on(comparison: Comparison) -> str:
    environment = comparison.environment
    if not environment:
        return "No run finished."
    versions = ", ".join(f"{name} {environment.get(name)}" for name in ("torch", "transformers", "timm", "hf_accel"))
    sets = [data_text(row.data) for row in comparison.rows if row.data] or [data_text(comparison.data)]
    return f"Measured on {device_text(environment)}; {versions}. Data: {'; '.join(dict.fromkeys(sets))}."


def data_text(data: dict[str, Any]) -> str:
    """A data set and its numbers of rows: 'digits, train / validation / test: 1,257 / 180 / 360'."""
    rows = " / ".join(format_count(data.get(f"{part}_rows")) for part in ("train", "validation", "test"))
    return f"{data.get('name')}, train / validation / test: {rows}"


def format_ratio(ratio: Ratio | None) -> str:
    """A ratio with its interval: '1.42 (1.38 to 1.46)'."""
    if ratio is None:
        return MISSING
    interval = format_interval(ratio)
    return f"{ratio.ratio:.2f} ({interval})" if interval else f"{ratio.ratio:.2f}"


def format_interval(ratio: Ratio) -> str:
    """'1.38 to 1.46'; empty without repeats. Two noisy pairs can give bounds in the millions: they say only "unknown"."""
    if ratio.low is None or ratio.high is None:
        return ""
    low = f"{ratio.low:.2f}" if ratio.low >= 0.01 else "< 0.01"
    high = f"{ratio.high:.2f}" if ratio.high <= 100 else "> 100"
    return f"{low} to {high}"


def verdict_word(ratio: Ratio | None, failure: str | None) -> str:
    if ratio is None:
        return "failed" if failure else "not measured"
    return ratio.verdict


def points(difference: tuple[float, float | None, float | None] | None) -> str:
    """A difference of accuracy in percentage points: '+0.12 (-0.30 to +0.54)'."""
    if difference is None:
        return MISSING
    mean, low, high = difference
    return signed(mean) if low is None or high is None else f"{signed(mean)} ({signed(low)} to {signed(high)})"


def signed(fraction: float) -> str:
    """A fraction in percentage points with its sign; a fraction that rounds to zero is '+0.00'."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"


def with_std(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return MISSING
    spread = "" if figure["std"] is None else f" ± {100 * figure['std']:.2f}"
    return f"{100 * figure['mean']:.2f}{spread} %"
