"""The labels that a Python caller gives to each image: names, numbers, or arrays of 0 and 1."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes
from hf_accel.data.given_label_sets import given_multi_label_split, given_multi_label_splits
from hf_accel.errors import UserError
from tests.support.label_sets import LABELS, label_sets, picture, write_pictures

SETS = label_sets(16)
IMAGES = [np.asarray(picture(labels, number)) for number, labels in enumerate(SETS)]
MATRIX = np.array([[int(name in labels) for name in LABELS] for labels in SETS])
NUMBERS = [np.flatnonzero(row).tolist() for row in MATRIX]
SETTINGS = DataSettings(name="given", validation=0.25)
Own = type("Own", (torch.utils.data.Dataset,), {
    "__len__": lambda self: len(SETS), "__getitem__": lambda self, row: (IMAGES[row], torch.tensor(MATRIX[row]))
})  # fmt: skip


def opened(given, names=None):
    return given_multi_label_splits(given, SETTINGS, 0, Classes(names))


def rows(splits):
    """Row -> its labels, of all splits."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        int(row): labels.tolist() for part in parts for row, labels in zip(part.row_numbers(), part.labels, strict=True)
    }


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((IMAGES, SETS), None),
        ((IMAGES, [np.array(labels, dtype=str) for labels in SETS]), None),
        ((IMAGES, NUMBERS), LABELS),
        ((IMAGES, MATRIX), LABELS),
        ((IMAGES, torch.tensor(MATRIX).float()), LABELS),
        ((IMAGES, MATRIX.tolist()), LABELS),
        (list(zip(IMAGES, SETS, strict=True)), None),
        ([{"image": image, "labels": labels} for image, labels in zip(IMAGES, SETS, strict=True)], None),
        (Own(), LABELS),
    ],
    ids=["names", "arrays of names", "numbers", "array", "tensor", "lists of 0 and 1", "pairs", "dictionaries", "torch data set"],
)  # fmt: skip
def test_labels_are_given_in_every_form(given, names):
    splits = opened(given, names)
    assert splits.label_names == LABELS
    assert {len(part) for part in (splits.train, splits.validation, splits.test)} >= {3}
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 16
    for split in (splits.train, splits.test):
        for row in range(len(split)):
            pixels = split.read(row)
            third = pixels.shape[1] // 3
            bright = [pixels[:, n * third : (n + 1) * third, 2 - n].mean() > 100 for n in range(3)]
            assert split.labels[row].tolist() == [int(flag) for flag in bright]


def test_a_table_and_a_data_frame_are_read_as_those_of_a_recipe(tmp_path):
    table = datasets.Dataset.from_dict({"image": [picture(labels, n) for n, labels in enumerate(SETS)], "labels": SETS})
    assert opened(table).label_names == LABELS
    names = write_pictures(tmp_path, SETS)
    frame = pd.DataFrame({"path": [str(tmp_path / name) for name in names], **dict(zip(LABELS, MATRIX.T, strict=True))})
    assert opened(frame).label_names == LABELS
    assert opened(frame.assign(labels=SETS)[["path", "labels"]]).label_names == LABELS


def test_labels_without_names_are_numbers():
    assert opened((IMAGES, MATRIX)).label_names == ["0", "1", "2"]
    assert opened((IMAGES, NUMBERS)).label_names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([*SETS[:3], {"a": 1}, *SETS[4:]], "row 3 has the labels {'a': 1}, expected a list of names"),
        ([*SETS[:3], ["red", 0.5], *SETS[4:]], "row 3 has the label 0.5, expected a list of names"),
        (MATRIX * 2, "arrays of labels are of one length and hold 0 and 1, got others"),
        (SETS[:5], "16 images and 5 labels"),
    ],
)
def test_what_is_not_labels_is_refused_by_row(labels, message):
    with pytest.raises(UserError, match=message.replace("{", r"\{").replace("}", r"\}")):
        opened((IMAGES, labels))


def test_rows_to_predict_need_no_labels_and_those_to_score_have_the_labels_of_the_model():
    unlabelled = given_multi_label_split(IMAGES, SETTINGS, LABELS)
    assert unlabelled.labels.shape == (16, 3)
    assert not unlabelled.is_labelled
    assert given_multi_label_split((IMAGES, SETS), SETTINGS, LABELS).labels.tolist() == MATRIX.tolist()
    table = datasets.Dataset.from_dict({"image": [picture(labels, n) for n, labels in enumerate(SETS)]})
    assert not given_multi_label_split(table, SETTINGS, LABELS).is_labelled
    for columns in ({"labels": SETS}, dict(zip(LABELS, MATRIX.T.tolist(), strict=True))):
        labelled = table
        for name, column in columns.items():
            labelled = labelled.add_column(name, column)
        assert given_multi_label_split(labelled, SETTINGS, LABELS).labels.tolist() == MATRIX.tolist()
    with pytest.raises(UserError, match="the given rows, row 3: has the label 'green', expected some of the 2 labels"):
        given_multi_label_split((IMAGES, [SETS[0], SETS[1], SETS[4], SETS[2]] * 4), SETTINGS, ["blue", "red"])
