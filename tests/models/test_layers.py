from collections import Counter

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.layers import freeze, layer_numbers
from hf_accel.models.load import load_model

SMALL = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 2, 1, 1]}
VIT = {"img_size": 16, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2}


def hub_vit():
    config = ViTConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, image_size=32)
    return ViTForImageClassification(config)


def timm_model(name, freeze="none", **args):
    settings = ModelSettings(name=name, pretrained=False, args=args, freeze=freeze)
    return load_model(settings, ["cat", "dog"]).model


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (hub_vit, 3),
        (lambda: ResNetForImageClassification(ResNetConfig(embedding_size=8, **SMALL)), 5),
        (lambda: ConvNextForImageClassification(ConvNextConfig(**SMALL)), 8),  # its downsampling layers are layers too
        (lambda: SwinForImageClassification(SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2],
                                                       num_heads=[1, 2])), 3),
        (lambda: timm_model("timm/vit_tiny_patch16_224", **VIT), 3),
        (lambda: timm_model("timm/resnet18"), 8),
        (lambda: timm_model("hf_accel/cifar_resnet20"), 9),
    ],
    ids=["vit", "resnet", "convnext", "swin", "timm vit", "timm resnet18", "cifar_resnet20"],
)  # fmt: skip
def test_layers_are_counted_from_the_stem_to_the_classifier(make, layers):
    model = make()
    numbers = layer_numbers(model)
    assert numbers.keys() == {name for name, _ in model.named_parameters()}
    assert set(numbers.values()) == set(range(layers + 2))  # stem and classifier
    assert [number for name, number in numbers.items() if name.endswith("bias")][-1] == layers + 1
    assert Counter(numbers.values())[layers + 1] == 2  # weight and bias of the classifier


def test_the_order_of_a_vision_transformer():
    numbers = layer_numbers(timm_model("timm/vit_tiny_patch16_224", **VIT))
    assert numbers["timm_model.pos_embed"] == numbers["timm_model.patch_embed.proj.weight"] == 0
    assert [numbers[f"timm_model.blocks.{i}.attn.qkv.weight"] for i in range(3)] == [1, 2, 3]
    assert numbers["timm_model.norm.weight"] == 3
    assert numbers["timm_model.head.weight"] == 4


def test_only_the_classifier_of_a_frozen_backbone_learns():
    model = timm_model("timm/resnet18", "backbone")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "timm_model.fc.weight",
        "timm_model.fc.bias",
    }


@pytest.mark.parametrize(
    ("config", "network"), [(CLIPConfig, CLIPForImageClassification), (SiglipConfig, SiglipForImageClassification)]
)
def test_only_the_classifier_of_an_image_tower_learns(config, network):
    vision = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = network(config(vision_config={**vision, "image_size": 32, "patch_size": 16}, text_config={}))
    freeze(model, "backbone")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"classifier.weight", "classifier.bias"}


def test_the_stem_and_the_first_layers_are_frozen():
    model = timm_model("timm/vit_tiny_patch16_224", freeze=2, **VIT)
    numbers = layer_numbers(model)
    assert {numbers[name] for name, p in model.named_parameters() if not p.requires_grad} == {0, 1, 2}
    assert {numbers[name] for name, p in model.named_parameters() if p.requires_grad} == {3, 4}


def test_frozen_layers_act_as_in_evaluation():
    model = timm_model("timm/resnet18", "backbone", drop_rate=0.5).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    images = torch.randn(4, 3, 32, 32)
    features = [model.timm_model.forward_features(images) for _ in range(1) if model(images).logits is not None]
    assert features
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not model.timm_model.bn1.training
    assert model.training
    first, second = model(images).logits, model(images).logits
    assert not torch.equal(first, second)  # dropout before the classifier still acts


def test_more_layers_than_there_are_is_one_message():
    with pytest.raises(UserError, match=r"model.freeze is 4, but .* has 3 layers"):
        timm_model("timm/vit_tiny_patch16_224", freeze=4, **VIT)
