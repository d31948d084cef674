"""The rows of predictions: in memory, as CSV and as JSON lines, and read back."""

import csv
import io
import json

import numpy as np
import pytest

from hf_accel.tasks.predictions import Predictions, PredictionShape, write_predictions
from tests.support.image_splits import make_split, noise

NAMES = ["cat", "=1+1", "dog"]


def predictions(**more) -> Predictions:
    arrays = (np.array([2, 0]), np.array([2, 1]), np.array([0.25, 0.123456]), np.array([7, 9]))
    return Predictions(NAMES, *arrays, **more)


def test_predictions_survive_their_file_with_the_names_of_their_classes(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(predictions(files=["test/a.png", "@b.png"]).to_text(), encoding="utf-8", newline="")
    assert path.read_text().splitlines() == [
        "row,file,label,predicted,confidence",
        "7,test/a.png,dog,dog,0.250000",
        "9,'@b.png,cat,'=1+1,0.123456",
    ]
    again = Predictions.load(path, NAMES)
    assert list(zip(again.rows, again.labels, again.predicted, again.confidence, strict=True)) == [
        (7, 2, 2, 0.25),
        (9, 0, 1, 0.123456),
    ]


def test_a_file_of_an_earlier_version_has_numbers_and_is_read_and_written_in_the_new_shape(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("row,label,predicted,confidence\r\n0,2,2,0.250000\r\n1,0,1,0.5\r\n")
    again = Predictions.load(path, NAMES)
    assert (again.labels.tolist(), again.predicted.tolist()) == ([2, 0], [2, 1])
    split = make_split(noise(*[(8, 8)] * 6)).select(np.array([5, 3]))
    assert again.of(split).to_text().splitlines()[1:] == ["5,,dog,dog,0.250000", "3,,cat,'=1+1,0.500000"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "."),
        ("row,label\n1,2\n", "the columns are row, label, expected row, file, label"),
        ("row,label,predicted,confidence\n1,2\n3,0,1,6\n", "."),
        ("row,label,predicted,confidence\n1,a,2,0.5\n", "'a' is not one of the run's 3 classes"),
        ("row,file,label,predicted,confidence\n1,,cat,bird,0.5\n", "'bird' is not one of the run's 3 classes"),
        ("row,file,label,predicted,confidence\n1,,cat,dog,high\n", "."),
    ],
)
def test_damaged_predictions_are_a_value_error(tmp_path, text, problem):
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        Predictions.load(tmp_path / "predictions.csv", NAMES)


def written(shape: PredictionShape, form: str, **of_image) -> str:
    file = io.StringIO()
    write_predictions(file, shape, [shape.row(np.array([0.2, 0.7, 0.1]), **of_image)], form)
    return file.getvalue()


def test_more_classes_and_all_probabilities_are_further_columns():
    shape = PredictionShape(NAMES, top_k=2, probabilities=True)
    (row,) = csv.DictReader(io.StringIO(written(shape, "csv", file="a.png")))
    assert row == {
        "row": "",
        "file": "a.png",
        "label": "",
        "predicted": "'=1+1",
        "confidence": "0.700000",
        "predicted_2": "cat",
        "confidence_2": "0.200000",
        "p(cat)": "0.200000",
        "p(=1+1)": "0.700000",
        "p(dog)": "0.100000",
    }


def test_json_lines_have_names_as_they_are_and_leave_out_what_is_not_known():
    record = json.loads(written(PredictionShape(NAMES, top_k=9), "jsonl", file="@a.png", label="dog"))
    assert (record["file"], record["label"], record["predicted"]) == ("@a.png", "dog", "=1+1")
    assert [label["label"] for label in record["labels"]] == ["=1+1", "cat", "dog"]
    assert record["labels"][0]["score"] == pytest.approx(0.7)
    assert "row" not in record
    assert "probabilities" not in record
