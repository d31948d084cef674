"""Texts that a Python caller brings, in every form, become the splits that a data set of the same rows becomes."""

import datasets
import numpy as np
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes
from hf_accel.data.given_texts import given_text_split, given_text_splits
from hf_accel.errors import UserError
from tests.support.texts import LABELS, rows

ROWS = rows(20)
TEXTS, NAMES = ([row[name] for row in ROWS] for name in ("text", "label"))
NUMBERS = [LABELS.index(name) for name in NAMES]


def opened(given, *, names=None, of_model=None, **settings):
    return given_text_splits(given, DataSettings(name="", validation=0.2, **settings), 0, Classes(names, of_model))


def frame():
    return pytest.importorskip("pandas").DataFrame(ROWS, index=range(100, 120))


FORMS = {
    "list of dictionaries": lambda: ROWS,
    "list of pairs": lambda: list(zip(TEXTS, NAMES, strict=True)),
    "pair of lists": lambda: (TEXTS, NAMES),
    "columns": lambda: {"text": TEXTS, "label": NAMES},
    "table": lambda: datasets.Dataset.from_list(ROWS),
    "table in a format": lambda: datasets.Dataset.from_list(ROWS).with_format("numpy"),
    "table with a transform": lambda: datasets.Dataset.from_list(ROWS).with_transform(lambda batch: batch),
    "frame": frame,
    "columns of a frame": lambda: (frame()["text"], frame()["label"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_splits(form):
    splits, expected = opened(FORMS[form]()), opened(ROWS)
    for role in ("train", "validation", "test"):
        part, other = getattr(splits, role), getattr(expected, role)
        assert part.texts() == other.texts()
        assert part.labels.tolist() == other.labels.tolist()
    assert splits.label_names == LABELS


def test_given_splits_are_what_they_are_called_and_a_dataset_dict_is_one():
    parts = {"train": ROWS[:12], "validation": ROWS[12:16], "test": ROWS[16:]}
    for given in (
        parts,
        datasets.DatasetDict({role: datasets.Dataset.from_list(part) for role, part in parts.items()}),
    ):
        splits = opened(given)
        assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 4]
        assert splits.test.texts() == TEXTS[16:]


def test_numbers_have_the_names_of_the_caller_or_of_the_model():
    assert opened((TEXTS, np.array(NUMBERS))).label_names == ["0", "1"]
    assert opened((TEXTS, NUMBERS), names=["bad", "good"]).label_names == ["bad", "good"]
    assert opened((TEXTS, NUMBERS), of_model=["bad", "good"]).label_names == ["bad", "good"]
    splits = opened((TEXTS, NAMES), of_model=LABELS[::-1])
    assert splits.label_names == LABELS[::-1]
    named = [splits.label_names[number] for number in splits.train.labels]
    assert dict(zip(splits.train.texts(), named, strict=True)).items() <= dict(zip(TEXTS, NAMES, strict=True)).items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((TEXTS, NAMES[:3]), "the given train rows: 20 texts and 3 labels"),
        ("a text", "are of the type str, expected a datasets.Dataset, a DataFrame"),
        ([], "the given train rows: are empty"),
        ([1, 2, 3], r"are not a table \(TypeError"),
        ([{"words": 1, "label": "a"}, {"words": 2, "label": "b"}], "no text column can be chosen"),
        ([{"text": "a", "label": "x"}, {"text": " ", "label": "y"}], "row 1 of .*: has no text in text"),
        ({"train": ROWS, "other": ROWS}, "has the key 'other'"),
    ],
)
def test_rows_that_cannot_be_understood_are_refused_in_one_message(given, message):
    with pytest.raises(UserError, match=message):
        opened(given)


def test_texts_for_a_prediction_need_no_labels_and_unknown_ones_are_refused():
    settings = DataSettings(name="", on_bad_text="skip")
    for given in (TEXTS, {"text": TEXTS}, [{"text": text, "label": None} for text in TEXTS]):
        split = given_text_split(given, settings, LABELS)
        assert split.texts() == TEXTS
        assert not split.is_labelled
    assert given_text_split((TEXTS, NAMES), settings, LABELS).labels.tolist() == NUMBERS
    assert given_text_split((TEXTS, NUMBERS), settings, LABELS).labels.tolist() == NUMBERS
    with pytest.raises(UserError, match=r"row 1 of the given rows: .*'green'"):
        given_text_split((["a", "b"], ["negative", "green"]), settings, LABELS)
    with pytest.raises(UserError, match="row 1 of the given rows: has no text"):
        given_text_split(["a", " "], settings, LABELS)
