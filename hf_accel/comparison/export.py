"""A comparison as files: JSON, CSV, Markdown and LaTeX, the same rows written differently."""

from __future__ import annotations

import io
import json
from pathlib import Path

from hf_accel.comparison.paper import PAPER_ALIGN, PAPER_HEADINGS, paper_cells, paper_remarks, paper_table
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.text import FIGURES, figure_cells, footnotes, verdict_cells
from hf_accel.files import write_whole
from hf_accel.tables import format_table, printable, write_csv


def write_comparison(comparison: Comparison, folder: Path, with_paper: bool) -> None:
    """Write compare.json, .csv, .md and .tex.

    Args:
        with_paper: add the published figures of these recipes next to those measured.
    """
    if with_paper:
        table = paper_table(comparison)
        comparison.paper = table if table["rows"] else None
        if not table["rows"]:
            comparison.notes.append("No figures of these recipes are published.")
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "json": json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "csv": csv_table(comparison),
        "md": markdown(comparison),
        "tex": latex(comparison),
    }
    for ending, text in contents.items():
        write_whole(folder / f"compare.{ending}", text)


def csv_table(comparison: Comparison) -> str:
    """One line per row, plain numbers: for spreadsheets."""
    headings = ("name", "recipe", "variant", "model", "parameters", "failure", "seeds", "timing_pairs", *FIGURES,
                "speed_ratio", "speed_low", "speed_high", "speed_p_holm", "speed_verdict",
                "memory_ratio", "memory_low", "memory_high", "memory_p_holm", "memory_verdict",
                "accuracy_difference", "accuracy_low", "accuracy_high", "differs")  # fmt: skip
    lines = []
    for row in comparison.rows:
        ratios: list[float | str | None] = []
        for ratio in (row.speed, row.memory):
            ratios += [None] * 5 if ratio is None else [ratio.ratio, ratio.low, ratio.high, ratio.p_holm, ratio.verdict]
        names = [row.name, row.recipe, row.variant, row.model]
        state = [row.parameters, row.failure, row.num_runs, row.num_pairs]
        figures = [row.mean(name) for name in FIGURES]
        difference = row.accuracy_difference or (None, None, None)
        lines.append([*names, *state, *figures, *ratios, *difference, "; ".join(row.differs)])
    text = io.StringIO()
    write_csv(text, headings, lines)
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    """The tables, then the footnotes as a list."""
    parts = [format_table(*verdict_cells(comparison), "markdown"), format_table(*figure_cells(comparison), "markdown")]
    remarks = footnotes(comparison)
    if comparison.paper:
        parts.append(format_table(PAPER_HEADINGS, paper_cells(comparison.paper), "markdown", PAPER_ALIGN))
        remarks += paper_remarks(comparison.paper)
    return "\n\n".join([*parts, "\n".join(f"- {printable(line)}" for line in remarks)]) + "\n"


def latex(comparison: Comparison) -> str:
    """Tables for `\\input`, with booktabs; the footnotes are comments below."""
    parts = [format_table(*verdict_cells(comparison), "latex"), format_table(*figure_cells(comparison), "latex")]
    remarks = footnotes(comparison)
    if comparison.paper:
        parts.append(format_table(PAPER_HEADINGS, paper_cells(comparison.paper), "latex", PAPER_ALIGN))
        remarks += paper_remarks(comparison.paper)
    return "\n\n".join([*parts, *(f"% {printable(line)}" for line in remarks)]) + "\n"
