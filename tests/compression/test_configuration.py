"""`config.json` of an exported folder: a type that transformers.js knows, and the names of the classes."""

import json
from types import SimpleNamespace

import pytest
from transformers import AutoConfig, ResNetConfig, TimmWrapperConfig, ViTConfig

from hf_accel.compression.configuration import KNOWN_TYPES, write_model_configuration
from hf_accel.models.head import set_labels

LABELS = ["cat", "dog"]


def written(config, folder) -> dict:
    set_labels(config, LABELS)
    loaded = SimpleNamespace(model=SimpleNamespace(config=config), label_names=LABELS)
    write_model_configuration(loaded, folder)
    return json.loads((folder / "config.json").read_text())


def test_a_type_that_is_known_keeps_its_own_configuration(tmp_path):
    values = written(ViTConfig(hidden_size=24), tmp_path)
    assert (values["model_type"], values["hidden_size"]) == ("vit", 24)
    assert values["id2label"] == {"0": "cat", "1": "dog"}


@pytest.mark.parametrize("model_type", ["timm_wrapper", "regnet"])
def test_another_type_gets_a_stand_in_with_the_classes_and_the_name(tmp_path, model_type):
    config = TimmWrapperConfig(architecture="tf_efficientnet_lite0")
    if model_type != "timm_wrapper":
        config = AutoConfig.for_model(model_type)
    values = written(config, tmp_path)
    assert values["model_type"] in KNOWN_TYPES
    assert values["exported_from"] == ("tf_efficientnet_lite0" if model_type == "timm_wrapper" else model_type)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, ResNetConfig)
    assert loaded.id2label == dict(enumerate(LABELS))
