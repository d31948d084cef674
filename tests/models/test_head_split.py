import copy

import pytest
import torch
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_accel.config.sections import ModelSettings
from hf_accel.models.head_split import NoSplitError, split_head
from hf_accel.models.layers import freeze
from hf_accel.models.load import load_model

VIT = {"img_size": 32, "patch_size": 16, "depth": 1, "embed_dim": 24, "num_heads": 2}
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 32}


def timm_model(name, dropout=None, **args):
    settings = ModelSettings(name=name, pretrained=False, args=args, dropout=dropout, freeze="backbone")
    return load_model(settings, ["cat", "dog", "owl"]).model


def frozen(model):
    freeze(model, "backbone")
    return model.train()


def images():
    return {"pixel_values": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


NETWORKS = {
    "vit": (lambda: frozen(ViTForImageClassification(ViTConfig(**SMALL))), (8,)),
    "efficientnet, dropout before its classifier": (
        lambda: frozen(EfficientNetForImageClassification(EfficientNetConfig(
            width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128, dropout_rate=0.5))), (128,)),
    "timm vit": (lambda: timm_model("timm/vit_tiny_patch16_224", 0.3, **VIT), (24,)),
    "timm resnet, functional dropout": (lambda: timm_model("timm/resnet18", 0.3), (512,)),
    "timm resnetv2, a convolution as classifier": (
        lambda: timm_model("timm/resnetv2_50", 0.3, layers=(1,) * 4, channels=(8,) * 4, stem_chs=8), (8, 1, 1)),
    "cifar_resnet20": (lambda: timm_model("hf_accel/cifar_resnet20", depth=8, width=4), (16,)),
}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_the_logits_of_the_features_are_those_of_the_network_dropout_included(network, training):
    make, shape = NETWORKS[network]
    model = make()
    split = split_head(model, images())
    assert split.shape == shape
    features = split.features(**images())
    assert features.shape == (3, *shape)
    model.train(training)
    torch.manual_seed(0)
    whole = model(**images()).logits
    torch.manual_seed(0)
    torch.testing.assert_close(split.logits(features), whole)
    split.install()
    torch.manual_seed(0)
    torch.testing.assert_close(model(features=features).logits, whole)
    torch.manual_seed(0)
    torch.testing.assert_close(model(**images()).logits, whole)


def test_the_network_is_left_as_it_was():
    model = timm_model("timm/resnet18", 0.3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    hooks = [len(module._forward_pre_hooks) for module in model.timm_model.modules()]
    split_head(model, images())
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [len(module._forward_pre_hooks) for module in model.timm_model.modules()] == hooks


def test_a_split_is_valid_until_more_of_the_network_learns():
    model = timm_model("timm/vit_tiny_patch16_224", **VIT)
    split = split_head(model, images())
    assert split.is_valid
    model.timm_model.norm.weight.requires_grad_(True)
    assert not split.is_valid


def with_scaled_logits():
    model = frozen(ViTForImageClassification(ViTConfig(**SMALL)))
    forward = model.forward

    def scaled(**inputs):
        output = forward(**inputs)
        output.logits = 2 * output.logits
        return output

    model.forward = scaled
    return model


def with_batch_statistics():
    model = frozen(ViTForImageClassification(ViTConfig(**SMALL)))
    model.classifier = nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: frozen(DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL))), "not one module"),
        (lambda: timm_model("timm/deit_tiny_distilled_patch16_224", **VIT), "not one module"),
        (lambda: timm_model("timm/vit_tiny_patch16_224", pos_drop_rate=0.2, **VIT), "dropout acts within the backbone"),
        (lambda: timm_model("timm/vit_tiny_patch16_224", patch_drop_rate=0.5, **VIT), "acts differently in training"),
        (with_batch_statistics, "acts differently in training"),
        (with_scaled_logits, "something follows its classifier"),
        (lambda: ViTForImageClassification(ViTConfig(**SMALL)).requires_grad_(False), "not one module"),
    ],
    ids=["two heads", "distilled", "dropout in the backbone", "patch dropout", "batch statistics", "scaled", "none"],
)
def test_a_network_that_cannot_be_cut_says_why(make, message):
    with pytest.raises(NoSplitError, match=message):
        split_head(make(), images())
