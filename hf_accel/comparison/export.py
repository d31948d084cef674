"""A comparison as files: JSON, CSV, Markdown and LaTeX, the same rows written differently."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from hf_accel.comparison.paper import PAPER_HEADINGS, paper_cells, paper_table
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.text import FIGURES, VERDICT_HEADINGS, figure_cells, footnotes, verdict_cells
from hf_accel.files import write_whole


def write_comparison(comparison: Comparison, folder: Path, with_paper: bool) -> None:
    """Write compare.json, .csv, .md and .tex.

    Args:
        with_paper: add the published figures of these recipes beside those measured.
    """
    if with_paper:
        comparison.paper = paper_table(comparison)
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
    """One line an arm, plain numbers: for spreadsheets."""
    names = ("arm", "recipe", "variant", "model", "parameters", "failure", "seeds", "timing_pairs", *FIGURES,
             "speed_ratio", "speed_low", "speed_high", "speed_p_holm", "speed_verdict",
             "memory_ratio", "memory_low", "memory_high", "memory_p_holm", "memory_verdict",
             "accuracy_difference", "accuracy_low", "accuracy_high", "differs")  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for arm in comparison.arms:
        ratios = []
        for ratio in (arm.speed, arm.memory):
            ratios += [None] * 5 if ratio is None else [ratio.ratio, ratio.low, ratio.high, ratio.p_holm, ratio.verdict]
        writer.writerow(
            [arm.name, arm.recipe, arm.variant, arm.model, arm.parameters, arm.failure, arm.num_runs, arm.num_pairs]
            + [arm.mean(name) for name in FIGURES]
            + ratios
            + (arm.accuracy_difference or [None] * 3)
            + ["; ".join(arm.differs)]
        )
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    headings, figures = figure_cells(comparison)
    parts = [
        _markdown_table(VERDICT_HEADINGS, verdict_cells(comparison)),
        _markdown_table(headings, figures),
        "\n".join(f"- {line}" for line in footnotes(comparison)),
    ]
    if comparison.paper:
        parts.insert(2, _markdown_table(PAPER_HEADINGS, paper_cells(comparison.paper)))
        parts.append("\n".join(f"- {line}" for line in comparison.paper["remarks"]))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """Tables for `\\input`, with booktabs; the footnotes are comments below."""
    headings, figures = figure_cells(comparison)
    parts = [_latex_table(VERDICT_HEADINGS, verdict_cells(comparison)), _latex_table(headings, figures)]
    if comparison.paper:
        parts.append(_latex_table(PAPER_HEADINGS, paper_cells(comparison.paper)))
    return "\n\n".join([*parts, *(f"% {line}" for line in footnotes(comparison))]) + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = "|" + "|".join([" --- ", *[" ---: "] * (len(headings) - 1)]) + "|"
    return "\n".join([line(headings), ruler, *map(line, rows)])


def _latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(map(_latex_text, cells)) + r" \\"

    begin = rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}"
    return "\n".join(
        [begin, r"  \toprule", line(headings), r"  \midrule", *map(line, rows), r"  \bottomrule", r"\end{tabular}"]
    )


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
