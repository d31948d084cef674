"""The figures of a profile as text: the cells of its tables, its verdicts and its footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_accel.formatting import (
    MISSING,
    device_text,
    format_bytes,
    format_count,
    format_duration,
    format_energy,
    format_gib,
    format_percent,
    format_quantity,
)
from hf_accel.profiling.advice import Advice, advice
from hf_accel.profiling.phases import PHASES, UNACCOUNTED, of_step, title
from hf_accel.profiling.schema import PhaseFigures, Profile, ProfiledRun
from hf_accel.profiling.verdict import CAUSES, Verdict, verdict
from hf_accel.tasks.texts import TEXTS

Table = tuple[list[str], list[list[str]]]
MOST_OPERATORS = 10
MOST_ADVICE = 4  # lines below a verdict
MOST_UNACCOUNTED = 0.03  # share of a run that may be without a phase
MOST_OVERHEAD = 1.02
STEP = "whole step"


def verdicts(profile: Profile) -> list[tuple[str, Verdict, list[Advice]]]:
    """(row, what bounds it, recipe lines that may help) of each row that was measured."""
    found = []
    for row, run in profile.measured:
        bound = verdict(run.facts)
        found.append((row.name, bound, advice_for(bound, run)))
    return found


def advice_for(bound: Verdict, run: ProfiledRun) -> list[Advice]:
    """Lines against what bounds a run, or against the two largest causes where none stands out."""
    causes = list(bound.shares)[:2] if bound.bound == "none stands out" else [bound.bound]
    lines = [line for cause in causes for line in advice(cause, run.setup)[:MOST_ADVICE]]
    return list({line.line: line for line in lines}.values())[:MOST_ADVICE]


def phase_cells(run: ProfiledRun) -> Table:
    """All figures of the phases of a run; columns that are empty are left out."""
    rate = TEXTS[run.task].rate
    columns: list[tuple[str, Any]] = [
        ("calls", lambda p: format_count(p.calls) if p.calls else MISSING),
        ("wall", lambda p: format_duration(p.seconds)),
        ("share", lambda p: format_percent(p.seconds / run.seconds)),
        ("CPU time", lambda p: format_duration(p.cpu_seconds)),
        ("CPU / wall", lambda p: format_quantity(p.cpu_seconds / p.seconds) if p.seconds else MISSING),
        (rate, lambda p: format_quantity(p.rows_per_second)),
        ("peak resident", lambda p: format_gib(p.peak_rss_gib)),
        ("peak anonymous", lambda p: format_gib(p.peak_anonymous_gib)),
        ("peak device", lambda p: format_gib(p.peak_memory_gib)),
        ("read from storage", lambda p: format_bytes(p.read_bytes)),
        ("read, page cache included", lambda p: format_bytes(p.requested_bytes)),
        ("written", lambda p: format_bytes(p.written_bytes)),
        ("energy", lambda p: format_energy(p.energy_joules)),
    ]
    return _cells("phase", columns, run.phases)


def _cells(heading: str, columns: Sequence[tuple[str, Any]], phases: Sequence[PhaseFigures]) -> Table:
    lines = [[cell(phase) for _, cell in columns] for phase in phases]
    kept = [place for place in range(len(columns)) if any(line[place] != MISSING for line in lines)]
    rows = [[title(phase.name), *(line[place] for place in kept)] for phase, line in zip(phases, lines, strict=True)]
    return [heading, *(columns[place][0] for place in kept)], rows


def comparison_cells(profile: Profile) -> Table:
    """Phases by row: milliseconds of a mean step, and seconds of what is not of a step; with the ratio to the first row."""
    measured = profile.measured
    names = [name for name in (*of_step(), STEP, *PHASES) if name in PHASES or name in (UNACCOUNTED, STEP)]
    names = list(dict.fromkeys(name for name in names if any(_figure(run, name) is not None for _, run in measured)))
    lines = []
    for name in names:
        figures = [_figure(run, name) for _, run in measured]
        cells = [format_duration(figures[0])]
        for figure in figures[1:]:
            cells += [format_duration(figure), _times_less(figures[0], figure)]
        lines.append([_line_title(name), *cells])
    headings = ["", measured[0][0].name] if measured else [""]
    for row, _ in measured[1:]:
        headings += [row.name, f"speed-up over {measured[0][0].name}"]
    return headings, lines


def _line_title(name: str) -> str:
    if name == STEP:
        return "step"
    return f"step: {name}" if name in of_step() else title(name)


def _figure(run: ProfiledRun, name: str) -> float | None:
    if name == STEP:
        return run.step_seconds or None
    if name in of_step():
        return run.step.get(name)
    phase = run.phase(name)
    if phase is None:
        return None
    is_repeated = PHASES[name].when in ("between", "inference")
    return phase.seconds / max(1, phase.calls) if is_repeated else phase.seconds


def _times_less(first: float | None, other: float | None) -> str:
    return f"{first / other:.2f}x" if first and other else MISSING


def first_run_cells(profile: Profile) -> Table:
    """The first run with empty caches against the one that finds them: seconds and bytes of what happens once."""
    headings = ["row", "phase", "first run", "next run", "read, first", "read, next", "written, first", "written, next"]
    lines = []
    for row, run in profile.measured:
        assert row.first is not None  # a row has both runs or none
        for name in ("start", "prepare", "decode"):
            before, after = row.first.phase(name), run.phase(name)
            if before is None and after is None:
                continue
            cells = [format_duration(None if phase is None else phase.seconds) for phase in (before, after)]
            for what in ("requested_bytes", "written_bytes"):
                cells += [format_bytes(None if phase is None else getattr(phase, what)) for phase in (before, after)]
            lines.append([row.name, name, *cells])
    return headings, lines


def operator_cells(run: ProfiledRun) -> Table:
    """The most expensive operators of a step, and the recipe lines that may help with each."""
    has_trace = any(operator["traced_seconds"] is not None for operator in run.operators)
    headings = ["operator", "kind", "type", "calls", "time", "share of the operators", "GFLOP/s", "GB/s"]
    headings += [*(["torch.profiler"] if has_trace else []), "recipe lines that may help"]
    whole = sum(operator["seconds"] for operator in run.operators)
    lines = []
    for operator in run.operators[:MOST_OPERATORS]:
        seconds = operator["seconds"]
        rates = [
            operator[name] / seconds / 1e9 if seconds and operator[name] else None for name in ("flops", "moved_bytes")
        ]
        cells = [operator["name"], operator["group"], operator["dtype"], format_count(operator["calls"])]
        cells += [format_duration(seconds), format_percent(seconds / whole if whole else None)]
        cells += [format_quantity(rate) for rate in rates]
        cells += [format_duration(operator["traced_seconds"])] if has_trace else []
        lines.append([*cells, "; ".join(line.line for line in advice(operator["group"], run.setup)) or MISSING])
    return headings, lines


def cause_cells(profile: Profile) -> Table:
    """The shares of all causes by row."""
    found = verdicts(profile)
    lines = [
        [name, *(format_percent(bound.shares.get(cause)) for cause in CAUSES), bound.bound] for name, bound, _ in found
    ]
    return ["row", *CAUSES, "verdict"], lines


def whole_run_cells(profile: Profile) -> Table:
    """The run that the recipe asks for, computed from the profile."""
    parts = ("once", "input", "network", "optimizer", "loop", "evaluation", "saving")
    lines = []
    for row, run in profile.measured:
        counts = [format_count(getattr(run.whole, name)) for name in ("steps", "evaluations", "saves")]
        times = [format_duration(run.whole_seconds[part]) for part in parts]
        lines.append([row.name, *counts, *times, format_duration(sum(run.whole_seconds.values()))])
    return ["row", "steps", "evaluations", "checkpoints", *parts, "in all"], lines


def footnotes(profile: Profile) -> list[str]:
    """The facts without which the tables cannot be read, one sentence each."""
    lines = [f"`{row.name}` failed: {row.failure}" for row in profile.rows if row.failure]
    for row, run in profile.measured:
        lines += [f"`{row.name}`: {text}" for text in (_accounting(run), _overhead(run))]
    if not profile.measured:
        return [*lines, "No run finished."]
    _, run = profile.measured[0]
    environment = run.environment
    versions = ", ".join(f"{name} {environment.get(name)}" for name in ("torch", "transformers", "timm", "hf_accel"))
    lines.append(f"Measured on {device_text(environment)}; {versions}. Data: {run.data}. Model: {run.model}.")
    if run.peaks is not None:
        lines.append(peaks_text(run.peaks))
    return [*lines, *_method(run)]


def peaks_text(peaks: dict[str, Any]) -> str:
    rates = ", ".join(
        f"{name} {format_quantity(value / 1e9)} GFLOP/s" for name, value in peaks["matrix_flops_per_second"].items()
    )
    copied = format_quantity(peaks["copy_bytes_per_second"] / 1e9)
    return f"This machine: matrix products {rates}; a copy in memory reads and writes {copied} GB/s."


def _accounting(run: ProfiledRun) -> str:
    left_out = format_duration(run.measuring_seconds)
    text = f"the phases account for {format_percent(1 - run.unaccounted)} of {format_duration(run.seconds)}"
    more = "" if run.unaccounted <= MOST_UNACCOUNTED else "; the rest is the Trainer's loop, callbacks and logging"
    workers = (
        f" Loader workers took {format_duration(run.worker_cpu_seconds)} of CPU time." if run.setup.workers else ""
    )
    return (
        f"{text}{more}. {left_out} of measuring (steps without timers, single operators, peaks) are left out.{workers}"
    )


def _overhead(run: ProfiledRun) -> str:
    found = run.overhead
    if found is None:
        return "the slow-down by the timers was not measured."
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    is_large = found.ratio > MOST_OVERHEAD and (found.low is None or found.low > 1)
    loud = " The steps are short, and the timers are a visible part of them." if is_large else ""
    return (
        f"a step with timers takes {found.ratio:.3f}{interval} times a step without, over {found.num_pairs} pairs of "
        f"neighbouring steps.{loud}"
    )


def _method(run: ProfiledRun) -> list[str]:
    return [
        f"Steps: means over {run.num_steps} timed steps after a warm-up of 3, of {format_count(run.batch_sizes['step'])} "
        f"{TEXTS[run.task].unit}s each. There is one run of each row; for ratios with intervals use `hf-accel compare`.",
        "Shares and verdicts are of the whole run that the recipe asks for: the time of its steps, evaluations and checkpoints "
        "is computed from those that were timed. Evaluation, and starting and preparing, have no share in a verdict.",
        "Operators are timed one by one where PyTorch dispatches them, eagerly and on the last batch; bytes are those of "
        "their tensors, each counted once per call. A compiled network runs other kernels than these.",
        "The first run finds empty caches of tables and decoded rows, and the next run those that it left. The files of a data "
        "set that is on the machine already are not downloaded again.",
    ]
