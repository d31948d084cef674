"""Predictions on standard output, as they come: a table for people, JSON, JSON lines, or CSV."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from collections.abc import Iterator

from hf_accel.models.confidence import WORDS
from hf_accel.tables import format_table, printable
from hf_accel.tasks.predictions import PredictedRow, PredictionShape, write_predictions

LONGEST_TEXT = 60  # characters in a table


def render(rows: Iterator[PredictedRow], form: str, shape: PredictionShape, rows_at_once: int = 32) -> None:
    """Print rows as they come: a table for people, JSON, JSON lines, or CSV."""
    if form == "table":
        widths: list[int] = []
        while lines := [_table_line(row, shape) for row in itertools.islice(rows, rows_at_once)]:
            cells = [max(map(len, column)) for column in zip(*lines, strict=True)]
            widths = [max(pair) for pair in itertools.zip_longest(widths, cells, fillvalue=0)]
            print(format_table((), lines, align="l" * len(lines[0]), min_widths=widths), flush=True)
    elif form == "json":
        separator = "["
        for row in rows:
            print(separator + "\n" + textwrap.indent(json.dumps(shape.record(row), indent=2), "  "), end="", flush=True)
            separator = ","
        print("[]" if separator == "[" else "\n]")
    else:
        write_predictions(sys.stdout, shape, rows, form)


def _table_line(row: PredictedRow, shape: PredictionShape) -> list[str]:
    what = row.file or ""
    if row.text is not None:
        place = "" if row.file is None else f"{row.file}, row {row.row}: "
        what = place + textwrap.shorten(row.text, LONGEST_TEXT, placeholder=" …")
    verdict = [] if row.verdict is None else [WORDS[row.verdict]]
    return [printable(cell) for cell in (what, *verdict, *shape.words(row))]
