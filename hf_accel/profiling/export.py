"""A profile as files: JSON, CSV, Markdown; and as text for the terminal."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, fields
from pathlib import Path

from hf_accel.files import write_whole
from hf_accel.profiling.schema import JSON, PhaseFigures, Profile
from hf_accel.profiling.text import (
    Table,
    cause_cells,
    comparison_cells,
    first_run_cells,
    footnotes,
    operator_cells,
    phase_cells,
    verdicts,
    whole_run_cells,
)
from hf_accel.tables import format_table, printable, write_csv

WORDS = ("kind", "type", "verdict", "phase", "recipe lines that may help")  # columns of words, which begin at the left


def write_profile(profile: Profile, folder: Path) -> None:
    """Write profile.json, profile.csv and profile.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "profile.csv", csv_table(profile))
    write_whole(folder / "profile.md", markdown(profile))
    write_whole(folder / JSON, json.dumps(profile.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def csv_table(profile: Profile) -> str:
    """One line per phase of each run, plain numbers: for spreadsheets."""
    names = [field.name for field in fields(PhaseFigures)]
    lines = [
        [row.name, which, *asdict(phase).values(), run.step.get(phase.name)]
        for row in profile.rows
        for which, run in (("first", row.first), ("next", row.run))
        if run is not None
        for phase in run.phases
    ]
    text = io.StringIO()
    write_csv(text, ["row", "run", *names, "seconds_of_step"], lines)
    return text.getvalue()


def markdown(profile: Profile) -> str:
    """The verdicts, every table, and the footnotes as a list."""
    parts = [f"# Profile of {printable(profile.recipe)}"]
    for name, bound, lines in verdicts(profile):
        sentences = [f"**{printable(name)}**: {bound.sentence}", *bound.remarks]
        advised = [f"- `{line.line}`: {line.why}" for line in lines]
        parts += [" ".join(sentences), "\n".join(advised)]
    for title, table in all_tables(profile):
        parts += [f"## {printable(title)}", format_table(*table, "markdown", _align(table))]
    remarks = [f"- {printable(line)}" for line in footnotes(profile)]
    return "\n\n".join(filter(None, [*parts, "## How this was measured", "\n".join(remarks)])) + "\n"


def all_tables(profile: Profile) -> list[tuple[str, Table]]:
    """(title, table): those of all rows, then those of each."""
    if not profile.measured:
        return []
    tables = [("What bounds the run", cause_cells(profile)), ("Steps and phases", comparison_cells(profile))]
    for row, run in profile.measured:
        tables.append((f"Phases of {row.name}", phase_cells(run)))
    for row, run in profile.measured:
        if run.operators:
            tables.append((f"Most expensive operators of {row.name}", operator_cells(run)))
    tables += [("First run and next run", first_run_cells(profile)), ("The whole run", whole_run_cells(profile))]
    return tables


def text_summary(profile: Profile) -> str:
    """For the terminal: the phases side by side, the verdicts, and the lines that may help."""
    parts = []
    if profile.measured:
        table = comparison_cells(profile)
        parts.append(format_table(*table))
    for name, bound, lines in verdicts(profile):
        text = [f"{name}: {bound.sentence}", *bound.remarks]
        parts.append("\n".join([*text, *(f"  {line.line}  # {line.why}" for line in lines)]))
    failed = [f"{row.name} failed: {row.failure}" for row in profile.rows if row.failure]
    return "\n\n".join(map(_printable_lines, [*parts, *failed]))


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def _align(table: Table) -> str:
    return "l" + "".join("l" if heading in WORDS else "r" for heading in table[0][1:])
