"""Before training the model is asked for the logits of one image of the shape that training gives it."""

import re

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.load import load_model
from hf_accel.models.trial import flops_per_image
from hf_accel.training.build import build_trainer

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def from_scratch(name, **args):
    return load_model(ModelSettings(f"timm/{name}", pretrained=False, args=args), ["a", "b"]).model


def test_a_model_of_one_size_says_which_size_it_takes():
    model = from_scratch("vit_tiny_patch16_224", **VIT)
    assert flops_per_image(model, 32) == flops_per_image(model, (32, 32)) > 0
    with pytest.raises(
        UserError, match=r"data.image_size: .*cannot take 40 x 40 pixels .*but it takes 32 x 32.*img_size"
    ):
        flops_per_image(model, 40)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_products_of_attention_are_counted_whatever_does_them(attention):
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    model = ViTForImageClassification._from_config(config, attn_implementation=attention).eval()
    tokens, width = 17, 16
    patches = 2 * 16 * (3 * 8 * 8) * width
    linear = 2 * tokens * width * (4 * width + 2 * 32)
    attention_products = 2 * 2 * tokens * tokens * width
    assert flops_per_image(model, 32) == patches + linear + attention_products + 2 * width * 2


def test_a_failure_for_another_reason_than_the_size_is_reported_with_that_reason():
    model = from_scratch("vit_tiny_patch16_224", **VIT)

    def broken(*_):
        raise KeyError("rope")

    model.timm_model.norm.register_forward_pre_hook(broken)
    with pytest.raises(UserError, match=r"cannot process a colour image of 32 x 32 pixels.*KeyError: 'rope'") as caught:
        flops_per_image(model, 32)
    assert "image_size" not in str(caught.value)


def test_a_model_for_grey_images_is_refused(tmp_path):
    model = from_scratch("resnet10t", channels=[8, 8, 16, 16], in_chans=1)
    with pytest.raises(UserError, match=r"cannot process a colour image.*1 channels|to have 1 channels") as caught:
        flops_per_image(model, 32)
    assert "image_size" not in str(caught.value)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "naflexvit_base_patch16_gap", "xcit_nano_12_p16_224"])
def test_models_with_unusual_inputs_are_measured_and_learn_afterwards(name):
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    args = {
        "cait_xxs24_224": {**small, "depth_token_only": 1},
        "naflexvit_base_patch16_gap": {k: v for k, v in small.items() if k != "img_size"},
        "xcit_nano_12_p16_224": {**small, "patch_size": 16},
    }[name]
    model = from_scratch(name, **args)
    assert flops_per_image(model, 32) > 0
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_non_square_model_is_tried_with_the_images_that_training_gives_it(tiny_recipe, tmp_path):
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=(32, 16),
        patch_size=8,
    )
    folder = tmp_path / "tall"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 16}).save_pretrained(folder)
    recipe = tiny_recipe({"model": {"name": str(folder), "pretrained": True, "args": {}}, "data": {"image_size": None}})
    trainer = build_trainer(recipe)
    trainer.train()
    assert trainer.state.global_step > 0


def test_a_classifier_with_another_number_of_logits_is_refused():
    model = from_scratch("resnet10t", channels=[8, 8, 16, 16])
    model.timm_model.fc = torch.nn.Linear(16, 5)
    with pytest.raises(UserError, match=re.escape("answers an image with [5] numbers, expected one for each of the 2")):
        flops_per_image(model, 32)
