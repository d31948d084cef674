"""The threshold of a label is the one with the highest F1; a model's config keeps those of all."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from transformers import ViTConfig

from hf_accel.models import thresholds
from hf_accel.models.thresholds import best_thresholds


@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_has_a_higher_f1(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 3)) < 0.3).astype(int)
    scores = np.round(np.clip(0.3 * labels + rng.random((60, 3)) * 0.7, 0, 1), 1 + seed % 2)  # many are equal
    found = best_thresholds(scores, labels)
    for label in range(3):
        tried = [f1_score(labels[:, label], scores[:, label] >= at) for at in [0, *np.unique(scores), 1.1]]
        assert f1_score(labels[:, label], scores[:, label] >= found[label]) == pytest.approx(max(tried))
        assert found[label] not in scores[:, label]


def test_a_label_of_all_or_of_no_rows_has_no_threshold_of_its_own():
    labels = np.array([[1, 0, 1], [1, 0, 0]])
    assert best_thresholds(np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.2]]), labels).tolist() == [0.5, 0.5, 0.5]


def test_a_config_keeps_them_in_a_folder_and_forgets_them_when_it_is_trained_again(tmp_path):
    config = ViTConfig(num_labels=2)
    assert not thresholds.is_multi_label(config)
    thresholds.set_multi_label(config, is_multi_label=True)
    thresholds.remember(config, np.array([0.25, 0.75]))
    config.save_pretrained(tmp_path)
    kept = ViTConfig.from_pretrained(tmp_path)
    assert thresholds.is_multi_label(kept)
    assert thresholds.of_config(kept, 2).tolist() == [0.25, 0.75]
    assert thresholds.of_config(kept, 3).tolist() == [0.5, 0.5, 0.5]  # of other labels
    thresholds.set_multi_label(kept, is_multi_label=False)
    assert (kept.problem_type, thresholds.are_learned(kept)) == (None, False)
