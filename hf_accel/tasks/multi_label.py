"""Multi-label image classification: images have any number of labels, which do not exclude each other."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from hf_accel.config.domains import MULTI_LABEL
from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes
from hf_accel.data.given_label_sets import given_multi_label_split, given_multi_label_splits
from hf_accel.data.multi_label import load_multi_label_split, load_multi_label_splits
from hf_accel.data.multi_label_images import MultiLabelImages, in_words
from hf_accel.data.scored_rows import ScoredRows
from hf_accel.data.splits import Splits
from hf_accel.tasks.gallery import GalleryItem, place_of_row
from hf_accel.tasks.image_classification import ImageClassification
from hf_accel.tasks.image_inputs import ImageInputs
from hf_accel.tasks.label_set_predictions import LabelSetPredictions, LabelSetShape

MOST_MISTAKES = 24


class MultiLabelInputs(ImageInputs):
    """The path of images with any number of labels."""

    def given_split(self, given: Any) -> MultiLabelImages:
        return given_multi_label_split(given, self.recipe.data, self.label_names)


class MultiLabelClassification(ImageClassification):
    """As `ImageClassification`, where an image has any number of labels."""

    name: ClassVar[str] = MULTI_LABEL
    is_multi_label: ClassVar[bool] = True
    prediction_shape: ClassVar[type[LabelSetShape]] = LabelSetShape
    predictions: ClassVar[type[LabelSetPredictions]] = LabelSetPredictions
    inputs: ClassVar[type[ImageInputs]] = MultiLabelInputs

    def open_splits(self, settings: DataSettings, seed: int, selection: bool = True) -> Splits[MultiLabelImages]:
        """The rows that train, select and score; see `load_multi_label_splits`."""
        return load_multi_label_splits(settings, seed, selection)

    def open_split(self, settings: DataSettings, role: str) -> ScoredRows:
        """All rows of one split of data that is scored and not trained on; see `load_multi_label_split`."""
        return load_multi_label_split(settings, role)

    def given_splits(self, given: Any, settings: DataSettings, seed: int, classes: Classes) -> Splits[MultiLabelImages]:
        """The same of rows that a Python caller brings; see `given_multi_label_splits`."""
        return given_multi_label_splits(given, settings, seed, classes)

    def mistakes(self, predictions: LabelSetPredictions, split: MultiLabelImages) -> list[GalleryItem]:
        """The rows with a wrong label that the model was surest about, surest first.

        The confidence of a row is that of its surest mistake: the score of a label that it has not, or 1 less the score of one
        that it has.
        """
        has = predictions.labels > 0
        wrong = has != predictions.predicted
        surest = np.where(wrong, np.where(has, 1 - predictions.probabilities, predictions.probabilities), 0).max(axis=1)
        rows = np.flatnonzero(wrong.any(axis=1))
        rows = rows[np.argsort(-surest[rows], kind="stable")][:MOST_MISTAKES]
        return [
            GalleryItem(
                content=split.shown(row),
                label=split.label_text(row),
                predicted=in_words(predictions.predicted[row], split.label_names),
                confidence=float(surest[row]),
                where=place_of_row(split, row),
            )
            for row in rows.tolist()
        ]

    def mistakes_by_pair(self, predictions: Any, split: Any) -> list[tuple[str, str, int, list[GalleryItem]]]:
        """None: no label is taken for another one."""
        return []
