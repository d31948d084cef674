"""The figures of `training.metrics` as a metric of the library `evaluate`, which is what the Trainer's evaluations compute.

It is instantiated directly because `evaluate.load` needs the network even for "accuracy".
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from hf_accel.training.metrics import classification_metrics

_CLASS_ID = datasets.Value("int64")


class ClassificationMetric(evaluate.Metric):
    """Accuracy, top-5 accuracy and F1 of class ids, kept in memory: no network, no lock, no cache folder.

    `compute(predictions=..., references=..., num_labels=...)` takes the ids of the best classes of each row (N, k), best first,
    and the true class ids (N,); see `classification_metrics`. Batches may be given by `add_batch`.
    """

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        # evaluate creates its cache folder here even to keep everything in memory; that fails in a read-only home
        return self._data_dir_root

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, top-5 accuracy, and macro, micro and weighted F1 over all classes.",
            citation="",
            inputs_description="predictions: ids of the best classes by row, best first; references: the true id of each row.",
            features=datasets.Features({"predictions": datasets.List(_CLASS_ID), "references": _CLASS_ID}),
        )

    def _compute(
        self, predictions: Sequence[Sequence[int]], references: Sequence[int], num_labels: int
    ) -> dict[str, float | None]:
        return classification_metrics(np.asarray(predictions), np.asarray(references), num_labels)
