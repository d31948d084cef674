"""The metrics equal scikit-learn's on random and on degenerate input, offline and without touching a disk."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_accel.errors import UserError
from hf_accel.training.evaluate_metric import ClassificationMetric
from hf_accel.training.metrics import MAX_CONFUSION_LABELS, classification_metrics, confusion, per_class


def ranked(predicted: list[int], num_labels: int) -> np.ndarray:
    """(N, num_labels) ids whose first column is `predicted` and whose others are the remaining classes in order."""
    return np.array([[p, *(c for c in range(num_labels) if c != p)] for p in predicted])


def random_case(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(num_rows, num_labels))
    labels = rng.integers(0, num_labels, size=num_rows)
    return scores, np.argsort(-scores, axis=1), labels


CASES = {
    "random": (random_case(400, 10, seed=0)[1], random_case(400, 10, seed=0)[2], 10),
    "many classes, few rows": (random_case(50, 100, seed=1)[1], random_case(50, 100, seed=1)[2], 100),
    "two classes": (ranked([0, 1, 1, 0, 1], 2), np.array([0, 1, 0, 0, 0]), 2),
    "a class never predicted": (ranked([0, 1, 0, 1, 1, 0], 3), np.array([0, 1, 2, 2, 1, 0]), 3),
    "a class never present": (ranked([0, 1, 2, 1], 3), np.array([0, 1, 0, 1]), 3),
    "a class neither present nor predicted": (ranked([0, 1, 1, 1], 7), np.array([0, 1, 0, 1]), 7),
    "only one class in the data": (ranked([2, 2, 0], 4), np.array([2, 2, 2]), 4),
    "a single row, right": (ranked([3], 6), np.array([3]), 6),
    "a single row, wrong": (ranked([3], 6), np.array([5]), 6),
    "nothing right": (ranked([1, 2, 0], 3), np.array([0, 1, 2]), 3),
}
cases = pytest.mark.parametrize(("top_ids", "labels", "num_labels"), CASES.values(), ids=CASES.keys())


@cases
def test_accuracy_and_every_f1_equal_scikit_learn(top_ids, labels, num_labels):
    figures = classification_metrics(top_ids, labels, num_labels)
    predicted = top_ids[:, 0]
    assert set(figures) == {"accuracy", "top5_accuracy", "f1_macro", "f1_micro", "f1_weighted"}
    assert figures["accuracy"] == sk.accuracy_score(labels, predicted)
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(labels, predicted, labels=range(num_labels), average=average, zero_division=0)
        assert figures[f"f1_{average}"] == expected
    assert all(type(figure) in (float, type(None)) for figure in figures.values())


@cases
def test_per_class_figures_equal_scikit_learn(top_ids, labels, num_labels):
    names = [f"class {i}" for i in range(num_labels)]
    rows = per_class(top_ids[:, 0], labels, names)
    expected = sk.classification_report(
        labels, top_ids[:, 0], labels=range(num_labels), target_names=names, output_dict=True, zero_division=0
    )
    assert [row["label"] for row in rows] == names
    for row in rows:
        report = expected[row["label"]]
        assert (row["precision"], row["recall"], row["f1"]) == (
            report["precision"],
            report["recall"],
            report["f1-score"],
        )
        assert row["support"] == report["support"]
        assert type(row["support"]) is int


@cases
def test_confusion_equals_scikit_learn_and_has_the_true_class_first(top_ids, labels, num_labels):
    matrix = confusion(top_ids[:, 0], labels, num_labels)
    assert matrix == sk.confusion_matrix(labels, top_ids[:, 0], labels=range(num_labels)).tolist()
    assert [sum(row) for row in matrix] == np.bincount(labels, minlength=num_labels).tolist()


@pytest.mark.parametrize("num_labels", [6, 10, 100])
def test_top5_equals_scikit_learn_computed_from_scores(num_labels):
    scores, top_ids, labels = random_case(300, num_labels, seed=2)
    expected = sk.top_k_accuracy_score(labels, scores, k=5, labels=range(num_labels))
    assert classification_metrics(top_ids[:, :5], labels, num_labels)["top5_accuracy"] == expected
    # More than five columns do not make it top-6.
    assert classification_metrics(top_ids, labels, num_labels)["top5_accuracy"] == expected


@pytest.mark.parametrize("num_labels", [2, 5])
def test_top5_among_five_classes_or_fewer_is_not_a_figure(num_labels):
    top_ids = ranked([0, 1], num_labels)
    assert classification_metrics(top_ids, np.array([0, 0]), num_labels)["top5_accuracy"] is None


def test_too_few_columns_for_top5_are_refused_instead_of_scored_low():
    with pytest.raises(ValueError, match="k >= 5"):
        classification_metrics(np.zeros((4, 3), int), np.zeros(4, int), 10)


def test_a_class_that_never_occurs_lowers_macro_f1_and_not_the_others():
    labels = np.array([0, 1, 0, 1])
    without = classification_metrics(ranked([0, 1, 0, 1], 2), labels, 2)
    with_it = classification_metrics(ranked([0, 1, 0, 1], 4), labels, 4)
    assert (without["f1_macro"], with_it["f1_macro"]) == (1.0, 0.5)
    assert (with_it["f1_micro"], with_it["f1_weighted"], with_it["accuracy"]) == (1.0, 1.0, 1.0)


def test_no_rows_are_refused():
    empty = np.zeros((0, 5), int)
    for score in (
        lambda: classification_metrics(empty, np.zeros(0, int), 10),
        lambda: per_class(empty[:, 0], np.zeros(0, int), ["a", "b"]),
        lambda: confusion(empty[:, 0], np.zeros(0, int), 2),
    ):
        with pytest.raises(UserError, match="got no rows"):
            score()


@pytest.mark.parametrize(("label", "prediction", "named"), [(3, 0, "label id 3"), (-1, 0, "-1"), (0, 7, "prediction")])
def test_ids_outside_the_models_classes_are_refused(label, prediction, named):
    with pytest.raises(UserError, match=named):
        per_class(np.array([prediction]), np.array([label]), ["a", "b", "c"])


def test_a_confusion_matrix_nobody_could_look_at_is_left_out():
    many = MAX_CONFUSION_LABELS + 1
    assert confusion(np.array([0]), np.array([many - 1]), many) is None
    assert confusion(np.array([0]), np.array([1]), MAX_CONFUSION_LABELS)[1][0] == 1


def test_scoring_leaves_numpys_random_state_alone():
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    classification_metrics(*random_case(20, 8, seed=4)[1:], 8)
    assert np.random.rand() == expected


def test_the_metric_of_evaluate_gives_the_same_figures_whole_and_by_batches():
    top_ids, labels = random_case(20, 8, seed=4)[1:]
    expected = classification_metrics(top_ids, labels, 8)
    assert ClassificationMetric().compute(predictions=top_ids, references=labels, num_labels=8) == expected
    metric = ClassificationMetric()
    for rows in (slice(0, 7), slice(7, 20)):
        metric.add_batch(predictions=top_ids[rows], references=labels[rows])
    assert metric.compute(num_labels=8) == expected


@pytest.mark.slow
def test_scoring_needs_neither_the_network_nor_a_writable_home(tmp_path):
    not_a_folder = tmp_path / "home"
    not_a_folder.write_text("a file: nothing can be created below it")
    script = """
import socket
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from hf_accel.training.evaluate_metric import ClassificationMetric
given = {"predictions": np.array([[0, 1], [1, 0]]), "references": np.array([0, 1])}
assert ClassificationMetric().compute(**given, num_labels=2)["accuracy"] == 1.0
"""
    # Only HF_METRICS_CACHE is made unusable: importing datasets creates folders of its own below HF_HOME.
    env = {**os.environ, "HF_METRICS_CACHE": str(not_a_folder), "HF_EVALUATE_CACHE": str(not_a_folder)}
    done = subprocess.run([sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
