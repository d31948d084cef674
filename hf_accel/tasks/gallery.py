"""Rows that show what a model does: its most confident mistakes, a sample of the data, examples with its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_accel.tasks.predictions import Predictions

if TYPE_CHECKING:
    from hf_accel.data.labelled_rows import LabelledRows


@dataclass(frozen=True)
class GalleryItem:
    """A row for the page of a run."""

    content: np.ndarray | str  # an image, (H, W, 3) uint8 RGB, or a text
    label: str
    predicted: str | None = None
    confidence: float | None = None  # the model's confidence in its prediction, in [0, 1]
    where: str = ""  # file or row, so that a reader can find the image again
    explanation: np.ndarray | None = (
        None  # (H, W, 3) uint8 RGB: the image, with what speaks for the prediction in bright
    )


@dataclass(frozen=True)
class Example:
    """A row for the model card and the demo."""

    content: np.ndarray | str  # an image, (H, W, 3) uint8 RGB, or a text
    label: str
    answers: list[tuple[str, float]]  # label and probability of the likeliest classes, best first


def confident_mistakes(predictions: Predictions, split: LabelledRows, count: int = 24) -> list[GalleryItem]:
    """The rows that the model got wrong and was surest about, surest first.

    Args:
        predictions: the predictions for the rows of `split`.
        split: the rows that were predicted.
        count: the most rows to return.
    """
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:count]
    return gallery_of(split, surest, predictions.predicted, predictions.confidence)


def mistakes_by_pair(
    predictions: Predictions, split: LabelledRows, pairs: int = 6, count: int = 4
) -> list[tuple[str, str, int, list[GalleryItem]]]:
    """(true class, predicted class, mistakes, the surest of them) of the most frequent pairs, at least two mistakes each.

    Args:
        predictions, split: as in `confident_mistakes`.
        pairs: the most pairs to return.
        count: the most rows of a pair.
    """
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    both = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], axis=1)
    kinds, places, counts = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    found = []
    for kind in np.argsort(-counts, kind="stable")[:pairs].tolist():
        if counts[kind] < 2:
            break
        rows = wrong[places.reshape(-1) == kind]
        surest = rows[np.argsort(-predictions.confidence[rows], kind="stable")][:count]
        true, predicted = (split.label_names[label] for label in kinds[kind])
        items = gallery_of(split, surest, predictions.predicted, predictions.confidence)
        found.append((true, predicted, int(counts[kind]), items))
    return found


def gallery_of(
    split: LabelledRows, rows: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> list[GalleryItem]:
    """These rows with the classes that they were taken for.

    Args:
        rows: (K,) int64.
        predicted: (N,) int64, of all rows of the split.
        confidence: (N,) of the same.
    """
    return [
        GalleryItem(
            content=split.shown(row),
            label=split.label_text(row),
            predicted=split.label_names[predicted[row]],
            confidence=float(confidence[row]),
            where=place_of_row(split, row),
        )
        for row in rows.tolist()
    ]


def data_sample(split: LabelledRows, count: int = 24, seed: int = 0) -> list[GalleryItem]:
    """The rows that `sample_rows` chooses."""
    return [
        GalleryItem(split.shown(row), split.label_text(row), where=place_of_row(split, row))
        for row in sample_rows(split, count, seed)
    ]


def sample_rows(split: LabelledRows, count: int, seed: int) -> list[int]:
    """Rows of as many classes as fit, in the order of the classes; the same for the same seed.

    Args:
        split: the rows to choose from.
        count: the number of rows in all; with fewer classes, each is shown several times.
        seed: the seed of the choice.
    """
    order, strata = np.random.default_rng(seed).permutation(len(split)), split.strata()
    by_class: dict[int, list[int]] = {}
    for row in order:
        by_class.setdefault(int(strata[row]), []).append(int(row))
    chosen: list[int] = []
    for depth in range(max(map(len, by_class.values()))):
        chosen += [rows[depth] for rows in by_class.values() if depth < len(rows)]
        if len(chosen) >= count:
            break
    return sorted(chosen[:count], key=lambda row: int(strata[row]))


def answered_examples(
    split: LabelledRows, probabilities: Callable[[Any], np.ndarray], num_answers: int = 3
) -> Iterator[Example]:
    """Three rows, of the first, the middle and the last class, with the model's answers; nothing is read before.

    Args:
        probabilities: what a row holds -> (C,), those of the classes.
    """
    by_class = np.argsort(split.strata(), kind="stable")
    for row in (by_class[position] for position in (0, len(by_class) // 2, len(by_class) - 1)):
        scores = probabilities(split.read(row))
        best = np.argsort(-scores, kind="stable")[:num_answers]
        answers = [(split.label_names[label], float(scores[label])) for label in best.tolist()]
        yield Example(split.shown(row), split.label_text(row), answers)


def place_of_row(split: LabelledRows, row: int) -> str:
    """The file, or the number of the row, as `predictions.csv` has them: neither shows the folders of this machine."""
    one = split.select(np.array([row]))
    return one.file_names()[0] or f"row {one.row_numbers()[0]}"
