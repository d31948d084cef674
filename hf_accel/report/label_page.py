"""`labels.html` and `labels.csv`: the images of a data set whose labels are probably wrong, with what they may be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_accel.files import write_whole
from hf_accel.measure.label_issues import LabelIssues
from hf_accel.report.gallery import shown
from hf_accel.report.page import render
from hf_accel.tables import write_csv

if TYPE_CHECKING:
    from hf_accel.tasks.gallery import GalleryItem

COLUMNS = ("rank", "row", "file", "label", "suggested", "p(label)", "p(suggested)", "found")
MOST_PAIRS = 10


@dataclass(frozen=True)
class AuditedLabels:
    """The labels of a data set, and what was found about them.

    Attributes:
        name: of the data.
        how: what judged them, in words.
        labels: (N,) int64.
        rows: (N,) int64, numbers in the data set.
        files: relative to the data set; None where a row has none.
    """

    name: str
    how: str
    label_names: Sequence[str]
    labels: np.ndarray
    rows: np.ndarray
    files: Sequence[str | None]
    issues: LabelIssues

    @property
    def count(self) -> int:
        """The labels that are probably wrong."""
        return int(self.issues.found.sum())

    @property
    def agreement(self) -> float:
        """Share of the rows whose label is the likeliest one."""
        return float((self.issues.suggested == self.labels).mean())

    def place(self, row: int) -> str:
        """The file, or the number of the row."""
        return self.files[row] or f"row {self.rows[row]}"

    def pairs(self) -> list[tuple[str, str, int]]:
        """(label, suggested label, rows) of the labels that were found, the most frequent pairs first."""
        found = self.issues.found
        both = np.stack([self.labels[found], self.issues.suggested[found]], axis=1)
        pairs, counts = np.unique(both, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MOST_PAIRS]
        return [(self.label_names[pairs[n][0]], self.label_names[pairs[n][1]], int(counts[n])) for n in order]

    def csv(self) -> str:
        text, issues = io.StringIO(), self.issues
        cells = [
            (
                rank,
                int(self.rows[row]),
                self.files[row],
                self.label_names[self.labels[row]],
                self.label_names[issues.suggested[row]],
                f"{issues.quality[row]:.6f}",
                f"{issues.suggested_probability[row]:.6f}",
                "yes" if issues.found[row] else "",
            )
            for rank, row in enumerate(issues.order.tolist(), start=1)
        ]
        write_csv(text, COLUMNS, cells)
        return text.getvalue()


def write_label_page(folder: Path, audited: AuditedLabels, gallery: Sequence[GalleryItem]) -> tuple[Path, Path]:
    """Write both files; returns their paths, the table's first.

    Args:
        gallery: images whose labels are probably wrong, the most doubtful first.
    """
    table = write_whole(folder / "labels.csv", audited.csv())
    items = [shown(item, is_large=True) for item in gallery]
    page = render("labels.html", folder / "labels.html", audited=audited, pairs=audited.pairs(), gallery=items)
    return table, page
