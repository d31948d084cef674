"""What the tasks have in common, whatever their rows hold."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.tasks.gallery import GalleryItem, confident_mistakes, data_sample, mistakes_by_pair
from hf_accel.tasks.predictions import Predictions, PredictionShape, RowPredictions


class ClassificationTask:
    """The base of a task: its name, the form of its predictions, and rows for the page of a run."""

    name: ClassVar[str]  # `model.task` of a recipe
    prediction_shape: ClassVar[type[PredictionShape]] = PredictionShape
    predictions: ClassVar[type[RowPredictions]] = Predictions

    def mistakes(self, predictions: Any, split: Any) -> list[GalleryItem]:
        """The rows that the model got wrong and was surest about, surest first."""
        return confident_mistakes(predictions, split)

    def mistakes_by_pair(self, predictions: Any, split: Any) -> list[tuple[str, str, int, list[GalleryItem]]]:
        """(true class, predicted class, mistakes, some of them) of the most frequent pairs."""
        return mistakes_by_pair(predictions, split)

    def sample(self, split: LabelledRows) -> list[GalleryItem]:
        """Some rows of as many classes as fit on a page."""
        return data_sample(split)

    def as_trained(self, recipe: Any, splits: Any, processor: Any) -> list[GalleryItem]:
        """Some training rows as the first epoch sees them; none where nothing changes them."""
        return []
