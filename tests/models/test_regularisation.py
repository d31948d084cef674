import pytest
from torch import nn
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.load import load_model

VIT = {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}


def built(name, args=None, **settings):
    return load_model(ModelSettings(name=name, pretrained=False, args=args or {}, **settings), ["cat", "dog"]).model


@pytest.mark.parametrize(
    ("name", "args"),
    [("timm/resnet18", {}), ("timm/mobilenetv2_035", {}), ("timm/vit_tiny_patch16_224", VIT)],
)
def test_the_three_settings_reach_the_network_and_the_saved_folder(name, args, tmp_path):
    model = built(name, args, dropout=0.25, drop_path=0.1, activation="leaky_relu")
    model.save_pretrained(tmp_path)
    for network in (model.timm_model, AutoModelForImageClassification.from_pretrained(tmp_path).timm_model):
        dropouts = {module.p for module in network.modules() if isinstance(module, nn.Dropout) and module.p}
        assert dropouts == {0.25} or network.drop_rate == 0.25
        assert any(getattr(module, "drop_prob", None) for module in network.modules())
        activations = {type(module) for module in network.modules() if "LU" in type(module).__name__}
        assert activations == {nn.LeakyReLU}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": "leaky_rello"}, "leaky_rello"),
        ({"dropout": 0.1, "args": {"drop_rate": 0.2}}, "set by model.dropout too"),
    ],
)
def test_a_setting_that_timm_does_not_take_is_refused(settings, words):
    with pytest.raises(UserError, match=words):
        built("timm/resnet18", **settings)


def test_an_architecture_without_a_choice_of_activation_is_named():
    with pytest.raises(UserError, match=r"swin_tiny_patch4_window7_224 does not take .*'act_layer'"):
        built("timm/swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1]}, activation="leaky_relu")


def test_a_setting_without_effect_is_refused():
    with pytest.raises(UserError, match=r"model.drop_path|does not take"):
        built("timm/vgg11", drop_path=0.1)


def test_models_that_are_not_of_timm_name_the_place_of_the_setting(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model.dropout: .* is not a timm model"):
        load_model(ModelSettings(name=str(tmp_path), dropout=0.1), ["cat", "dog"])
