"""What a model has learned about its answers, and that its config keeps it."""

import json

import numpy as np
import pytest
from transformers import AutoConfig, AutoModelForImageClassification, ViTConfig

from hf_accel.models.confidence import CONFIG_KEY, Confidence, remember
from hf_accel.models.load import load_trained
from tests.support.saved_models import save_hub, save_timm

LEARNED = Confidence(temperature=2.0, unsure_below=0.6, unlike_below=1.0)


@pytest.mark.parametrize(
    ("logits", "verdict"),
    [
        ([6.0, 0.0, 0.0], "sure"),
        ([3.0, 3.0, -3.0], "unsure"),
        ([0.4, -0.4, 0.0], "unlike"),
        ([9.4, 8.6, 9.0], "unlike"),  # a number that is added to all of them means nothing
    ],
)
def test_an_answer_is_sure_unsure_or_unlike_the_training_images(logits, verdict):
    answer = LEARNED.answer(np.array(logits, np.float32))
    assert answer.verdict == verdict
    halved = np.exp(np.array(logits) / 2)
    np.testing.assert_allclose(answer.probabilities, halved / halved.sum(), rtol=1e-5)


def test_a_model_that_has_learned_nothing_says_nothing():
    answer = Confidence().answer(np.array([1.0, 0.0]))
    assert answer.verdict is None
    assert answer.probabilities[0] == pytest.approx(0.7311, abs=1e-4)
    assert not Confidence.of_values({"temperature": "warm"}).is_learned
    assert not Confidence.of_values(None).is_learned
    assert Confidence.of_values(LEARNED.to_dict()) == LEARNED


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_transformers_keeps_what_was_learned_in_a_config_and_forgets_it_on_request(kind, tmp_path):
    if kind == "timm":
        save_timm(tmp_path, "cifar_resnet20", ["a", "b"], depth=8, width=4)
    else:
        save_hub(tmp_path, ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                                     image_size=16, patch_size=8), ["a", "b"])  # fmt: skip
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    remember(model.config, LEARNED)
    model.save_pretrained(tmp_path)
    assert Confidence.of_config(AutoConfig.from_pretrained(tmp_path)) == LEARNED
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    if kind == "timm":
        assert load_trained(tmp_path).confidence == LEARNED
    remember(again.config, None)
    again.save_pretrained(tmp_path)
    assert CONFIG_KEY not in json.loads((tmp_path / "config.json").read_text())
