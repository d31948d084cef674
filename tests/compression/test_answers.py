"""What the forms of a model answer, and on which images."""

from types import SimpleNamespace

import numpy as np
import pytest

from hf_accel.compression.answers import Agreement, ComparedImages, require_agreement, scores
from hf_accel.errors import RunError


def split(labels: list[int]) -> SimpleNamespace:
    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.labels)

        def read(self, row: int) -> tuple[int, int]:
            return int(self.labels[row]), row

    return Rows(labels=np.array(labels))


def splits(test: list[int], validation: list[int] | None = None, train: list[int] | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        test=split(test),
        validation=None if validation is None else split(validation),
        train=split(train or []),
        label_names=["a", "b", "c"],
    )


def test_of_a_large_test_split_images_of_every_class_are_taken():
    images = ComparedImages.of(splits([0] * 40 + [1] * 40 + [2] * 40), ["a", "b", "c"], 12)
    assert len(images) == 12
    assert np.bincount(images.labels).tolist() == [4, 4, 4]
    assert len({row for _, row in images}) == 12


def test_a_small_test_split_is_filled_up_with_images_that_do_not_score():
    images = ComparedImages.of(splits([0, 1], None, [2] * 100), ["a", "b", "c"], 5)
    assert images.labels.tolist() == [0, 1, -1, -1, -1]
    assert [label for label, _ in images] == [0, 1, 2, 2, 2]


def test_labels_are_matched_by_name_and_a_class_that_the_model_does_not_know_does_not_score():
    images = ComparedImages.of(splits([0, 1, 2]), ["c", "a"], 10)
    assert images.labels.tolist() == [1, -1, 0]


def test_scores_are_of_the_images_with_a_label():
    classes, labels = np.array([0, 1, 1, 0]), np.array([0, 1, 0, -1])
    accuracy, f1 = scores(classes, labels, num_labels=3)
    assert accuracy == pytest.approx(2 / 3)
    assert f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert scores(classes, np.full(4, -1), num_labels=3) == (None, None)


def test_other_answers_end_the_export():
    for images in (1000, 917, 20):
        require_agreement("x", Agreement(images, 1 - 1 / images, 0.1, 5.0))
        with pytest.raises(
            RunError, match=rf"gives 2 of {images:,} images another class than the model, expected at most 1"
        ):
            require_agreement("x", Agreement(images, 1 - 2 / images, 0.1, 5.0))
