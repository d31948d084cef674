"""Rows of images that have any number of labels are drawn by their rarest label."""

import dataclasses

import numpy as np
import pytest

from hf_accel.data.holding_out import fold_rows, hold_out, subset
from hf_accel.data.multi_label_images import MultiLabelImages
from hf_accel.data.splits import balance_notes, coverage_notes
from hf_accel.training.evaluated_rows import absent_classes, in_classes_of_model
from tests.support.image_splits import make_split, noise


def rows_with(labels, names=("a", "b", "c")):
    """A split with these rows of 0 and 1."""
    split = make_split(noise(*[(4, 4)] * len(labels)))
    values = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    return MultiLabelImages(**(values | {"labels": np.array(labels), "label_names": list(names)}))


def drawn(count, seed=0):
    """Rows that often have a, sometimes b and rarely c."""
    rng = np.random.default_rng(seed)
    return rows_with((rng.random((count, 3)) < [0.7, 0.3, 0.05]).astype(int))


def test_the_stratum_of_a_row_is_the_label_that_the_fewest_rows_have():
    split = rows_with([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]])
    assert split.class_counts().tolist() == [4, 3, 2]
    assert split.strata().tolist() == [0, 1, 2, 3, 2, 1]
    assert split.rows_of_class(2).tolist() == [2, 4]
    assert [split.label_text(row) for row in (2, 3, 5)] == ["a + b + c", "no label", "b"]


def test_held_out_rows_have_their_share_of_each_label_and_of_rows_without_one():
    split = drawn(200)
    train, held = hold_out(split, 0.25, 7, "validation")
    assert len(train) + len(held) == len(split)
    rarest = int(split.class_counts().argmin())
    assert held.class_counts()[rarest] == pytest.approx(split.class_counts()[rarest] / 4, abs=1)
    assert np.abs(held.class_counts() - split.class_counts() / 4).max() <= 6
    without = [int((part.labels.sum(axis=1) == 0).sum()) for part in (split, held)]
    assert without[1] == pytest.approx(without[0] / 4, abs=1)
    again = hold_out(split, 0.25, 7, "validation")[1]
    assert held.rows.tolist() == again.rows.tolist()
    assert held.rows.tolist() != hold_out(split, 0.25, 8, "validation")[1].rows.tolist()


def test_folds_and_parts_of_a_split_are_drawn_alike():
    split = drawn(200)
    folds = [fold_rows(split, 4, fold, seed=0)[1] for fold in range(4)]
    assert sorted(row for fold in folds for row in fold.rows.tolist()) == list(range(len(split)))
    rarest = int(split.class_counts().argmin())
    counts = [fold.class_counts()[rarest] for fold in folds]
    assert max(counts) - min(counts) <= 1
    assert len(subset(split, 50, seed=0)) == 50


def test_notes_name_labels_without_rows_and_rare_ones():
    split = rows_with([[1, 0, 0]] * 9 + [[1, 1, 0]])
    assert coverage_notes({"train": split}) == ["train has no image of 1 of the 3 classes: 'c'"]
    assert "the largest class, 'a' (10), has 10.0 times" in balance_notes(split, settings=_settings())[0]


def _settings():
    from hf_accel.config.sections import DataSettings

    return DataSettings(name="made")


def test_labels_take_the_places_that_they_have_in_a_model():
    split = in_classes_of_model(rows_with([[1, 0, 1], [0, 1, 0]]), ["c", "x", "a", "b"])
    assert split.labels.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    assert absent_classes(split) == ["no image of 1 of the model's 4 classes: 'x'"]
