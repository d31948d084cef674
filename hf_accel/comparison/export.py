"""A comparison as files: JSON, CSV, Markdown and LaTeX, the same rows written differently."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

from hf_accel.comparison.paper import PAPER_ALIGN, PAPER_HEADINGS, paper_cells, paper_table
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.text import FIGURES, all_remarks, figure_cells, verdict_cells
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
    remarks = "\n".join(f"- {printable(line)}" for line in all_remarks(comparison))
    return "\n\n".join([*_tables(comparison, "markdown"), remarks]) + "\n"


def latex(comparison: Comparison) -> str:
    """Tables for `\\input`, with booktabs; the footnotes are comments below."""
    remarks = [f"% {printable(line)}" for line in all_remarks(comparison)]
    return "\n\n".join([*_tables(comparison, "latex"), *remarks]) + "\n"


def _tables(comparison: Comparison, style: Literal["markdown", "latex"]) -> list[str]:
    """The verdicts, all figures, and the published figures where they were asked for."""
    tables = [format_table(*cells, style) for cells in (verdict_cells(comparison), figure_cells(comparison))]
    if comparison.paper:
        tables.append(format_table(PAPER_HEADINGS, paper_cells(comparison.paper), style, PAPER_ALIGN))
    return tables
