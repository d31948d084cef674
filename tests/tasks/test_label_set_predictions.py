"""Rows with any number of labels as CSV and JSON, and back."""

import csv
import io
import json

import numpy as np
import pytest

from hf_accel.tasks.label_set_predictions import LabelSetPredictions, LabelSetShape
from hf_accel.tasks.predictions import write_predictions

NAMES = ["cat", "=1+1", "dog"]
SCORES = np.array([[0.2, 0.9, 0.6], [0.1, 0.2, 0.3]])


def predictions(names=NAMES):
    labels = np.array([[1, 1, 0], [0, 0, 0]])
    return LabelSetPredictions(names, labels, SCORES >= 0.5, SCORES, np.array([4, 7]), ["a.png", None])


def written(shape, form, **known):
    text = io.StringIO()
    row = shape.row(SCORES[0], chosen=SCORES[0] >= 0.5, **known)
    write_predictions(text, shape, [row], form)
    return text.getvalue()


def test_a_row_of_a_csv_has_all_its_labels_and_their_scores():
    text = predictions().to_text()
    first, second = csv.DictReader(io.StringIO(text))
    assert first["label"] == "cat|=1+1"
    assert first["predicted"] == "'=1+1|dog"  # no spreadsheet runs it
    assert first["confidence"] == "0.900000|0.600000"
    assert first["p(cat)"] == "0.200000"
    assert (second["label"], second["predicted"], second["confidence"], second["file"]) == ("", "", "", "")


def test_predictions_that_were_written_are_read_back(tmp_path):
    (tmp_path / "predictions.csv").write_text(predictions().to_text(), "utf-8")
    read = LabelSetPredictions.load(tmp_path / "predictions.csv", NAMES)
    for name in ("labels", "predicted", "probabilities", "rows", "files"):
        np.testing.assert_array_equal(getattr(read, name), getattr(predictions(), name))
    with pytest.raises(ValueError, match="the columns are row"):
        LabelSetPredictions.load(tmp_path / "predictions.csv", ["cat", "dog"])
    damaged = predictions().to_text().replace("|dog", "|bird")
    (tmp_path / "predictions.csv").write_text(damaged, "utf-8")
    with pytest.raises(ValueError, match="'bird' is not one of the run's 3 labels"):
        LabelSetPredictions.load(tmp_path / "predictions.csv", NAMES)


def test_json_has_lists_and_people_a_line():
    shape = LabelSetShape(NAMES, probabilities=True)
    record = json.loads(written(shape, "jsonl", file="a.png", label=["cat"]))
    assert record["predicted"] == ["=1+1", "dog"]
    assert record["labels"] == [{"label": "=1+1", "score": 0.9}, {"label": "dog", "score": 0.6}]
    assert record["label"] == ["cat"]
    assert record["probabilities"] == dict(zip(NAMES, SCORES[0].tolist(), strict=True))
    assert shape.words(shape.row(SCORES[0], chosen=SCORES[0] >= 0.5)) == ["=1+1 0.900, dog 0.600"]
    assert shape.words(shape.row(SCORES[1], chosen=SCORES[1] >= 0.5)) == ["no label"]
