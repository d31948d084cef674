"""Labels that were flipped on purpose are found, and come first."""

import numpy as np
import pytest

from hf_accel.errors import UserError
from hf_accel.measure import label_issues as module
from hf_accel.measure.label_issues import label_issues


def test_flipped_labels_come_first_with_the_class_they_were_flipped_from():
    rng = np.random.default_rng(0)
    true = np.arange(200) % 4
    probabilities = 0.9 * np.eye(4)[true] + 0.025
    flipped = rng.choice(200, 20, replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + 1) % 4
    issues = label_issues(labels, probabilities)
    assert set(issues.order[:20]) == set(flipped)
    assert set(np.flatnonzero(issues.found)) == set(flipped)
    assert (issues.suggested[flipped] == true[flipped]).all()
    np.testing.assert_allclose(issues.quality[flipped], 0.025)
    assert sorted(issues.order) == list(range(200))


def test_without_cleanlab_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'cleanlab is not installed. pip install "hf_accel\[trust\]"'):
        label_issues(np.zeros(2, np.int64), np.ones((2, 1)))
