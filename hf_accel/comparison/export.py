"""A comparison as text: JSON, CSV, Markdown, LaTeX and the terminal, the same rows written differently."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

from hf_accel.comparison.model_text import class_columns, model_remarks, model_tables
from hf_accel.comparison.paper import PAPER_ALIGN, PAPER_HEADINGS, paper_cells, paper_remarks, paper_table
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.text import FIGURES, figure_cells, footnotes, verdict_cells, worded
from hf_accel.files import write_whole
from hf_accel.tables import format_table, printable, write_csv

# Columns of the tables of models and techniques that a terminal has no room for; the files have them.
NOT_IN_TERMINAL = ("FLOPs per {unit}", "F1 (macro)", "train accuracy", "peak device memory", "peak anonymous memory",
                   "switched off by", "training time without it")  # fmt: skip


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
    by_class = class_columns(comparison)
    headings = ("name", "recipe", "variant", "model", "parameters", "flops_per_image", "failure", "seeds", "timing_pairs",
                *FIGURES, "speed_ratio", "speed_low", "speed_high", "speed_p_holm", "speed_verdict",
                "memory_ratio", "memory_low", "memory_high", "memory_p_holm", "memory_verdict",
                "accuracy_difference", "accuracy_low", "accuracy_high", "accuracy_p_holm", "accuracy_verdict", "differs",
                "leaves_out", "fronts", *(heading for heading, _ in by_class))  # fmt: skip
    lines = []
    for place, row in enumerate(comparison.rows):
        ratios: list[float | str | None] = []
        for ratio in (row.speed, row.memory):
            ratios += [None] * 5 if ratio is None else [ratio.ratio, ratio.low, ratio.high, ratio.p_holm, ratio.verdict]
        names = [row.name, row.recipe, row.variant, row.model]
        state = [row.parameters, row.flops_per_image, row.failure, row.num_runs, row.num_pairs]
        figures = [row.mean(name) for name in FIGURES]
        difference = row.accuracy_difference or (None, None, None)
        accuracy = [*difference, row.accuracy_p_holm, row.accuracy_verdict]
        fronts = "; ".join(cost for cost, on_front in comparison.fronts.items() if row.name in on_front)
        words = ["; ".join(row.differs), row.leaves_out, fronts]
        lines.append([*names, *state, *figures, *ratios, *accuracy, *words, *(values[place] for _, values in by_class)])
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


def text_table(comparison: Comparison) -> str:
    """For the terminal: the figures of models or techniques, the verdicts, and the footnotes."""
    parts, left_out = [], worded(comparison, NOT_IN_TERMINAL)
    for title, (headings, rows), align in model_tables(comparison)[:1]:
        keep = [place for place, heading in enumerate(headings) if heading not in left_out]
        lines = [[line[place] for place in keep] for line in (headings, *rows)]
        parts.append(f"{title}\n" + format_table(lines[0], lines[1:], align="".join(align[place] for place in keep)))
    if not comparison.leaves_out:
        headings, rows = verdict_cells(comparison)
        lines = [[line[place] for place in (0, 1, 2, 3, 4, 7)] for line in (headings, *rows)]
        parts.append(format_table(lines[0], lines[1:], align="lrllrl"))
    if comparison.paper:
        parts.append(format_table(PAPER_HEADINGS, paper_cells(comparison.paper), align=PAPER_ALIGN))
    return "\n\n".join([*parts, "\n".join(map(printable, all_remarks(comparison)))])


def all_remarks(comparison: Comparison) -> list[str]:
    """The footnotes, those of the tables of models, and those of the published figures where they were asked for."""
    published = paper_remarks(comparison.paper) if comparison.paper else []
    return [*footnotes(comparison), *model_remarks(comparison), *published]


def _tables(comparison: Comparison, style: Literal["markdown", "latex"]) -> list[str]:
    """Models or techniques, the verdicts, all figures, and the published figures where they were asked for."""
    tables = [format_table(*cells, style, align) for _, cells, align in model_tables(comparison)]
    tables += [format_table(*cells, style) for cells in (verdict_cells(comparison), figure_cells(comparison))]
    if comparison.paper:
        tables.append(format_table(PAPER_HEADINGS, paper_cells(comparison.paper), style, PAPER_ALIGN))
    return tables
