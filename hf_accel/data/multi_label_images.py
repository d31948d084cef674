"""The rows of one split whose images have any number of labels, none among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_accel.data.image_split import ImageSplit

NONE = "no label"  # in words
JOINT = " + "


@dataclass(frozen=True)
class MultiLabelImages(ImageSplit):
    """As `ImageSplit`, with labels (N, C) int64: 1 where an image has the label, else 0; all -1 where they are not known.

    Rows are drawn by the rarest label of each image: of the labels that it has, the one that the fewest images have. Rare
    labels keep their share to within one image; that of frequent ones, which are drawn together with others, varies more.
    It is the first step of iterative stratification (https://doi.org/10.1007/978-3-642-23808-6_10), and images without a
    label are drawn as one class.
    """

    stratified: ClassVar[str] = "stratified by the rarest label of each image"

    def class_counts(self) -> np.ndarray:
        return np.maximum(self.labels, 0).sum(axis=0)

    def rows_of_class(self, number: int) -> np.ndarray:
        return np.flatnonzero(self.labels[:, number] > 0)

    def strata(self) -> np.ndarray:
        rarest_first = np.argsort(self.class_counts(), kind="stable")
        has = self.labels[:, rarest_first] > 0
        return np.where(has.any(axis=1), rarest_first[has.argmax(axis=1)], len(self.label_names))

    def label_text(self, row: int) -> str:
        return in_words(self.labels[int(row)] > 0, self.label_names)

    def renumbered(self, numbers: np.ndarray, label_names: list[str]) -> MultiLabelImages:
        labels = np.zeros((len(self), len(label_names)), np.int64)
        labels[:, numbers] = self.labels
        return self.relabelled(labels, label_names)


def in_words(chosen: np.ndarray, label_names: list[str]) -> str:
    """The names of the labels that are chosen.

    >>> in_words(np.array([True, False, True]), ["cat", "dog", "sofa"])
    'cat + sofa'
    """
    return JOINT.join(label_names[number] for number in np.flatnonzero(chosen)) or NONE
