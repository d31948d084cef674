"""Which images the page shows: the surest mistakes, and a sample over the classes."""

import csv
from pathlib import Path

import numpy as np

from hf_accel.report.gallery import confident_mistakes, data_sample
from tests.support.image_splits import make_split, noise


def write_predictions(path: Path, rows: list[tuple[int, int, int, float]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "predicted", "confidence"])
        writer.writerows(rows)
    return path


def test_the_gallery_is_the_mistakes_surest_first_with_their_own_images(tmp_path):
    images = noise(*[(8, 8)] * 6)
    rows = [(0, 0, 0, 0.99), (1, 1, 2, 0.6), (2, 2, 0, 0.9), (3, 0, 1, 0.7), (4, 1, 1, 0.5), (5, 2, 1, 0.4)]
    found = confident_mistakes(write_predictions(tmp_path / "predictions.csv", rows), make_split(images), count=3)
    assert [(item.label, item.predicted, item.confidence) for item in found] == [
        ("c", "a", 0.9),
        ("a", "b", 0.7),
        ("b", "c", 0.6),
    ]
    assert all(np.array_equal(item.image, images[row]) for item, row in zip(found, (2, 3, 1), strict=True))


def test_without_mistakes_the_gallery_is_empty(tmp_path):
    predictions = write_predictions(tmp_path / "predictions.csv", [(0, 0, 0, 0.9)])
    assert confident_mistakes(predictions, make_split(noise((8, 8)))) == []


def test_no_folder_of_this_machine_is_shown(tmp_path):
    predictions = write_predictions(tmp_path / "predictions.csv", [(0, 0, 1, 0.9)])
    split = make_split(noise((8, 8)))
    object.__setattr__(split, "source", "/home/jane/secret, test split")
    assert confident_mistakes(predictions, split)[0].where == "row 0"


def test_the_sample_has_as_many_classes_as_fit_and_is_the_same_again():
    split = make_split(noise(*[(8, 8)] * 30))
    six = data_sample(split, count=6)
    assert [item.label for item in six] == ["a", "a", "b", "b", "c", "c"]
    assert all(item.predicted is None for item in six)
    again = data_sample(split, count=6)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(six, again, strict=True))
    assert [item.label for item in data_sample(split, count=2)] != ["a", "a"]
    assert len(data_sample(split, count=100)) == 30
