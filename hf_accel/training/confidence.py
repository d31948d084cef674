"""After training: what the validation rows tell about the model's confidence, and whether it holds on the test rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from transformers.trainer_utils import PredictionOutput

from hf_accel.measure.calibration import (
    calibration_error,
    fit_temperature,
    reliability,
    threshold_of_precision,
)
from hf_accel.models.confidence import SURE, UNLIKE, Confidence, remember, softmax, spread
from hf_accel.models.head import known_labels
from hf_accel.report.calibration import CalibrationSummary
from hf_accel.training.answers import OneClass
from hf_accel.training.scoring import ScoringTrainer
from hf_accel.training.trainer import ImageTrainer

FEWEST_ROWS = 30  # of validation: with fewer, the figures are noise
MOST_FIGURES = 1 << 26  # logits that are kept at once
FAMILIAR = 0.95  # share of the validation rows that count as like the training rows


def learn_confidence(trainer: ImageTrainer) -> CalibrationSummary | None:
    """Fit temperature and thresholds on the validation rows; the model's config gets them, and is saved with it.

    The validation rows are scored once more, as the saved model is used: one view of each image.

    Returns:
        None, and nothing is in the config: it is switched off, or a row has no single class, or there are too few rows, or too
        many to keep their logits.
    """
    precision, rows = trainer.recipe.model.sure_precision, trainer.splits.validation
    remember(trainer.model.config, None)
    is_one_class = isinstance(trainer.answers, OneClass)
    if (
        precision is None
        or rows is None
        or not is_one_class
        or len(rows) < FEWEST_ROWS
        or not keeps_logits(trainer, len(rows))
    ):
        return None
    with one_view(trainer):
        validation: Any = trainer.eval_dataset
        logits, labels = logits_of(trainer.score(validation, "validation", logits=True))
    temperature = fit_temperature(logits, labels)
    is_right = logits.argmax(1) == labels
    before, after = softmax(logits).max(1), softmax(logits / temperature).max(1)
    threshold = threshold_of_precision(after, is_right, precision)
    confidence = Confidence(temperature, threshold, float(np.quantile(spread(logits), 1 - FAMILIAR)))
    remember(trainer.model.config, confidence)
    return CalibrationSummary(
        temperature=confidence.temperature,
        unsure_below=confidence.unsure_below,
        unlike_below=confidence.unlike_below,
        sure_precision=precision,
        validation_rows=len(labels),
        validation_ece_before=calibration_error(before, is_right),
        validation_ece_after=calibration_error(after, is_right),
    )


def score_test(
    trainer: ImageTrainer, calibration: CalibrationSummary | None
) -> tuple[PredictionOutput, CalibrationSummary | None]:
    """Score the test rows, once; and what became of the confidence on them, unless several views of an image are scored."""
    is_tested = calibration is not None and trainer.scoring_model is None
    is_tested = is_tested and keeps_logits(trainer, len(trainer.splits.test))
    output = trainer.score(trainer.test_dataset, logits=is_tested)
    if calibration is None or not is_tested:
        return output, calibration
    *kept, _, rows = output.predictions  # type: ignore[misc]  # upstream says a tuple of one
    plain = PredictionOutput((*kept, rows), output.label_ids, output.metrics)
    return plain, on_test_rows(calibration, output)


def keeps_logits(trainer: ScoringTrainer, rows: int) -> bool:
    """Whether the logits of so many rows fit into memory."""
    return rows * len(known_labels(trainer.model.config)) <= MOST_FIGURES


def on_test_rows(calibration: CalibrationSummary, output: PredictionOutput) -> CalibrationSummary:
    """The same with what became of it on the test rows, which had no part in it.

    Args:
        output: of `score` with `logits=True`.
    """
    logits, labels = logits_of(output)
    confidence = Confidence(calibration.temperature or 1.0, calibration.unsure_below, calibration.unlike_below)
    is_right = logits.argmax(1) == labels
    before, after = softmax(logits).max(1), confidence.probabilities(logits).max(1)
    verdicts = np.array([confidence.answer(row).verdict for row in logits])
    is_sure = verdicts == SURE
    return replace(
        calibration,
        ece_before=calibration_error(before, is_right),
        ece_after=calibration_error(after, is_right),
        adaptive_ece_before=calibration_error(before, is_right, equal_rows=True),
        adaptive_ece_after=calibration_error(after, is_right, equal_rows=True),
        reliability_before=reliability(before, is_right),
        reliability_after=reliability(after, is_right),
        test_sure=float(is_sure.mean()),
        test_sure_accuracy=float(is_right[is_sure].mean()) if is_sure.any() else None,
        test_unlike=float((verdicts == UNLIKE).mean()),
    )


def logits_of(output: PredictionOutput) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) logits and (N,) labels of `score` with `logits=True`, in whatever order the ranks gave them."""
    *_, logits, _ = output.predictions  # type: ignore[misc]  # upstream says a tuple of one
    return np.asarray(logits), np.asarray(output.label_ids)


@contextmanager
def one_view(trainer: ScoringTrainer) -> Iterator[None]:
    """Score without test-time augmentation within."""
    several, trainer.scoring_model = trainer.scoring_model, None
    try:
        yield
    finally:
        trainer.scoring_model = several
