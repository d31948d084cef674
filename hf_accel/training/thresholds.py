"""After training: the thresholds of a multi-label model, from the validation rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_accel.models.thresholds import best_thresholds, remember, sigmoid
from hf_accel.report.run_report import Scores
from hf_accel.training.answers import AnyLabels
from hf_accel.training.confidence import one_view
from hf_accel.training.trainer import ImageTrainer


def learn_thresholds(trainer: ImageTrainer) -> Scores | None:
    """Choose of each label the threshold with the highest F1 on the validation rows.

    The trainer scores with them from then on, and the model's config gets them, and is saved with them. The rows are scored
    once more, as the saved model is used: one view of each image.

    Returns:
        The figures of the validation rows at these thresholds, which were chosen on them; None, and the thresholds stay at 0.5:
        a row has one class, or there are no validation rows.
    """
    answers, rows = trainer.answers, trainer.splits.validation
    if not isinstance(answers, AnyLabels) or rows is None:
        return None
    with one_view(trainer):
        validation: Any = trainer.eval_dataset
        output = trainer.score(validation, "validation")
    labels = np.asarray(output.label_ids)
    answers.thresholds = best_thresholds(sigmoid(output.predictions[0]), labels)
    remember(trainer.model.config, answers.thresholds)
    scores = vars(answers.scores_of(output, trainer.splits.label_names, "validation"))
    return Scores(**{name: scores[name] for name in Scores.__dataclass_fields__})
