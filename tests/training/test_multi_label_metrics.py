"""The figures of labels that do not exclude each other are scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from hf_accel.errors import UserError
from hf_accel.training.multi_label_metrics import detailed_multi_label_scores, multi_label_metrics

THRESHOLDS = np.array([0.5, 0.3, 0.7, 0.5])


def random_case(seed, rows=50):
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(int)
    return np.clip(0.4 * labels + 0.6 * rng.random((rows, 4)), 0, 1), labels


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_scikit_learn(seed):
    scores, labels = random_case(seed)
    predicted = scores >= THRESHOLDS
    found = multi_label_metrics(scores, labels, THRESHOLDS)
    present = labels.any(axis=0)
    assert not present.all()
    expected = metrics.average_precision_score(labels[:, present], scores[:, present], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["accuracy"] == metrics.accuracy_score(labels, predicted)
    for average in ("macro", "micro", "weighted"):
        assert found[f"f1_{average}"] == metrics.f1_score(labels, predicted, average=average, zero_division=0)


def test_the_figures_by_label_have_its_average_precision_and_its_threshold():
    scores, labels = random_case(0)
    detailed = detailed_multi_label_scores(scores, labels, THRESHOLDS, ["a", "b", "c", "d"], 0.25)
    assert detailed.confusion is None
    assert detailed.loss == 0.25
    assert [row["support"] for row in detailed.per_class] == labels.sum(axis=0).tolist()
    assert [row["threshold"] for row in detailed.per_class] == THRESHOLDS.tolist()
    assert detailed.per_class[3]["average_precision"] is None
    first = detailed.per_class[0]
    assert first["average_precision"] == metrics.average_precision_score(labels[:, 0], scores[:, 0])
    assert first["precision"] == metrics.precision_score(labels[:, 0], scores[:, 0] >= 0.5)


def test_no_rows_are_refused_and_rows_without_labels_have_no_average_precision():
    with pytest.raises(UserError, match="metrics: got no rows"):
        multi_label_metrics(np.zeros((0, 2)), np.zeros((0, 2), int), np.array([0.5, 0.5]))
    found = multi_label_metrics(np.zeros((3, 2)), np.zeros((3, 2), int), np.array([0.5, 0.5]))
    assert (found["mean_average_precision"], found["accuracy"]) == (None, 1.0)
