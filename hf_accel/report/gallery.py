"""Images for the page: the most confident mistakes of a run, and a sample of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_accel.report.predictions import Predictions

if TYPE_CHECKING:
    from hf_accel.data.splits import ImageSplit


@dataclass(frozen=True)
class GalleryItem:
    image: np.ndarray  # (H, W, 3) uint8 RGB
    label: str
    predicted: str | None = None
    confidence: float | None = None  # the model's, of its prediction, in [0, 1]
    where: str = ""  # file or row, so that a reader can find the image again


def confident_mistakes(predictions: Predictions, split: ImageSplit, count: int = 24) -> list[GalleryItem]:
    """The images that the model got wrong and was surest about, surest first.

    Args:
        predictions: of the rows of `split`.
        split: the rows that were predicted.
        count: at most so many.
    """
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:count]
    return [
        GalleryItem(
            image=split.read(row),
            label=split.label_names[label],
            predicted=split.label_names[predicted],
            confidence=confidence,
            where=_place(split, row),
        )
        for row, label, predicted, confidence in zip(
            *(
                column[surest].tolist()
                for column in (predictions.rows, predictions.labels, predictions.predicted, predictions.confidence)
            ),
            strict=True,
        )
    ]


def data_sample(split: ImageSplit, count: int = 24, seed: int = 0) -> list[GalleryItem]:
    """Images of as many classes as fit, in the order of the classes; the same for the same seed.

    Args:
        count: images in all; with fewer classes, each is shown several times.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    by_class: dict[int, list[int]] = {}
    for row in order:
        by_class.setdefault(int(split.labels[row]), []).append(int(row))
    chosen: list[int] = []
    for depth in range(max(map(len, by_class.values()))):
        chosen += [rows[depth] for rows in by_class.values() if depth < len(rows)]
        if len(chosen) >= count:
            break
    chosen = sorted(chosen[:count], key=lambda row: int(split.labels[row]))
    return [
        GalleryItem(split.read(row), split.label_names[int(split.labels[row])], where=_place(split, row))
        for row in chosen
    ]


def _place(split: ImageSplit, row: int) -> str:
    """The file's own name, or the row: a page is shared, and the folders of this machine are nobody's business."""
    where = split.where(row)
    return where.split(" of ")[0] if where.startswith("row ") else Path(where).name
