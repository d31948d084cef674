"""What training for int8 leaves: the ranges next to the weights, and the accuracy with rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hf_accel.methods.quantization_aware import QuantizationAware, save_ranges
from hf_accel.report.run_report import QuantizationSummary
from hf_accel.training.metrics import classification_metrics
from hf_accel.training.trainer import ImageTrainer


def save_learned_ranges(trainer: ImageTrainer, folder: Path) -> None:
    """Write the ranges of the activations next to the saved weights; nothing for a run that did not round."""
    method = _method(trainer)
    if method is not None and method.known and trainer.args.should_save:
        save_ranges(folder, method.learned_ranges())


def quantization_summary(trainer: ImageTrainer) -> QuantizationSummary | None:
    """The field `quantization` of the report; call it on all ranks, because it scores the test rows once more."""
    method = _method(trainer)
    if method is None:
        return None
    accuracy = None
    if method.known:  # a run of one step ends before a range was seen
        with method.scored():
            output = trainer.score(trainer.test_dataset)
        labels, classes = np.asarray(output.label_ids), len(trainer.splits.label_names)
        accuracy = classification_metrics(np.asarray(output.predictions[0]), labels, classes)["accuracy"]
    return QuantizationSummary(
        layers=len(method.layers), begin=method.settings.begin, freeze=method.settings.freeze, test_accuracy=accuracy
    )


def _method(trainer: ImageTrainer) -> QuantizationAware | None:
    return next((method for method in trainer.methods if isinstance(method, QuantizationAware)), None)
