"""Which images show what a model does: the surest mistakes, a sample over the classes, examples with answers."""

import numpy as np

from hf_accel.tasks.gallery import confident_mistakes, data_sample, mistakes_by_pair
from hf_accel.tasks.predictions import Predictions
from tests.support.image_splits import make_split, noise


def predictions(rows: list[tuple[int, int, float]]) -> Predictions:
    """Of (label, predicted, confidence) for each row."""
    labels, predicted, confidence = map(np.array, zip(*rows, strict=True))
    return Predictions(["a", "b", "c"], labels, predicted, confidence, np.arange(len(rows)))


def test_the_gallery_is_the_mistakes_surest_first_with_their_own_images():
    images = noise(*[(8, 8)] * 6)
    rows = [(0, 0, 0.99), (1, 2, 0.6), (2, 0, 0.9), (0, 1, 0.7), (1, 1, 0.5), (2, 1, 0.4)]
    found = confident_mistakes(predictions(rows), make_split(images), count=3)
    assert [(item.label, item.predicted, item.confidence) for item in found] == [
        ("c", "a", 0.9),
        ("a", "b", 0.7),
        ("b", "c", 0.6),
    ]
    assert all(np.array_equal(item.content, images[row]) for item, row in zip(found, (2, 3, 1), strict=True))


def test_without_mistakes_the_gallery_is_empty():
    assert confident_mistakes(predictions([(0, 0, 0.9)]), make_split(noise((8, 8)))) == []


def test_no_folder_of_this_machine_is_shown():
    split = make_split(noise((8, 8)))
    object.__setattr__(split, "source", "/home/jane/secret, test split")
    assert confident_mistakes(predictions([(0, 1, 0.9)]), split)[0].where == "row 0"


def test_the_sample_has_as_many_classes_as_fit_and_is_the_same_again():
    split = make_split(noise(*[(8, 8)] * 30))
    six = data_sample(split, count=6)
    assert [item.label for item in six] == ["a", "a", "b", "b", "c", "c"]
    assert all(item.predicted is None for item in six)
    again = data_sample(split, count=6)
    assert all(np.array_equal(a.content, b.content) for a, b in zip(six, again, strict=True))
    assert [item.label for item in data_sample(split, count=2)] != ["a", "a"]
    assert len(data_sample(split, count=100)) == 30


def test_mistakes_are_shown_by_pair_of_classes_the_most_frequent_first():
    split = make_split(noise(*[(8, 8)] * 12))  # labels 0, 1, 2 in turn
    predicted = split.labels.copy()
    predicted[[0, 3, 6]] = 1
    predicted[[1, 4]] = 2
    predicted[2] = 0  # once is no pattern
    confidence = np.linspace(0.5, 0.9, 12)
    predictions = Predictions(split.label_names, split.labels, predicted, confidence, np.arange(12))
    pairs = mistakes_by_pair(predictions, split, count=2)
    assert [(true, wrong, count) for true, wrong, count, _ in pairs] == [("a", "b", 3), ("b", "c", 2)]
    assert [item.where for item in pairs[0][3]] == ["row 6", "row 3"]
    assert mistakes_by_pair(predictions, split, pairs=1)[0][:2] == ("a", "b")
    nothing = Predictions(split.label_names, split.labels, split.labels, confidence, np.arange(12))
    assert mistakes_by_pair(nothing, split) == []
