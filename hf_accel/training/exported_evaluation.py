"""An exported model scored on a split: the figures of a run, without PyTorch, transformers and `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hf_accel import terminal
from hf_accel.data.image_split import ImageSplit
from hf_accel.errors import RunError, UserError
from hf_accel.models.confidence import softmax
from hf_accel.models.exported import Exported
from hf_accel.report.run_report import DetailedScores
from hf_accel.tasks.image_scoring import ImageSource, score_images
from hf_accel.tasks.predictions import Predictions
from hf_accel.training.metrics import detailed_scores

TOP_K = 5
SMALLEST = np.finfo(np.float64).tiny  # the logarithm of 0 would make the mean loss infinite


def score_exported(
    exported: Exported, split: ImageSplit, probabilities: bool = False
) -> tuple[DetailedScores, Predictions]:
    """Score every row once.

    Args:
        split: its labels are numbers of the model's classes.
        probabilities: keep those of all classes, too.
    Raises:
        UserError: an image cannot be read.
        RunError: the model gives something that is not a probability.
    """
    labels = np.asarray(split.labels)
    top_ids, confidence, losses, kept = [], [], [], []
    with terminal.bar(len(split), "scored", "image") as bar:
        for answer in score_images(exported, _sources(split), max_pixels=split.max_pixels):
            if answer.error is not None:
                raise UserError(
                    f"{split.where(answer.position)}: cannot be read as an image: {answer.error.reason}. Fix or remove it, or "
                    "add --data.on_bad_image skip to leave out such images."
                )
            assert answer.logits is not None
            of_classes = softmax(answer.logits)
            likeliest = np.argsort(-of_classes, kind="stable")[:TOP_K]
            top_ids.append(likeliest)
            confidence.append(of_classes[likeliest[0]])
            losses.append(-np.log(max(of_classes[labels[answer.position]], SMALLEST)))
            if probabilities:
                kept.append(of_classes)
            bar.update()
    broken = int(np.isnan(confidence).sum())
    if broken:
        raise RunError(
            f"{exported.file}: {broken} of {len(split)} rows got logits that are not finite, so they cannot be scored. Use the "
            "float32 file of the exported folder, or export the model again."
        )
    scores = detailed_scores(np.stack(top_ids), labels, exported.label_names, float(np.mean(losses)))
    predictions = Predictions(
        label_names=exported.label_names,
        labels=labels,
        predicted=np.stack(top_ids)[:, 0],
        confidence=np.array(confidence),
        rows=split.row_numbers(),
        files=split.file_names(),
        probabilities=np.stack(kept) if kept else None,
    )
    return scores, predictions


def _sources(split: ImageSplit) -> Iterator[ImageSource]:
    for row in range(len(split)):
        cell = split.dataset[row][split.image_column] or {"bytes": None, "path": None}
        is_file = cell["bytes"] is None and cell["path"]
        yield Path(cell["path"]) if is_file else cell["bytes"] or b""  # an empty image is an unreadable one
