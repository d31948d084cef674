"""The layer that a heat map shows, and that the map is bright where the evidence is."""

import numpy as np
import pytest
import torch
from transformers import (
    ConvNextConfig,
    ResNetConfig,
    SwinConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

pytest.importorskip("captum", reason='needs captum: pip install "hf_accel[trust]"')

from hf_accel.errors import UserError
from hf_accel.models.heat_maps import Grid, explained_layer, grid_of, heat_map

TRANSFORMERS = {
    "vit": (ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32,
                      patch_size=8), "layernorm_before", Grid(4, 4, 1)),
    "swin": (SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4, image_size=32, patch_size=4),
             "layernorm", Grid(4, 4, 0)),
    "convnext": (ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, patch_size=4), "", Grid(4, 4)),
    "resnet": (ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"), "", Grid(4, 4)),
}  # fmt: skip
TIMM = {
    "vit_tiny_patch16_224": ({"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}, "norm1"),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 28, "patch_size": 7, "depth": 2, "embed_dim": 24, "num_heads": 2}, "norm1"),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "window_size": 7, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 1)},
                                     "norm"),
    "efficientnet_lite0": ({}, "bn2"),
    "mobilenetv2_100": ({}, "bn2"),
    "cifar_resnet20": ({"depth": 8, "width": 4}, ""),
}  # fmt: skip


def noise(side=32):
    return {"pixel_values": torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_last_layer_with_places_is_found_in_models_of_transformers(kind):
    config, name, grid = TRANSFORMERS[kind]
    torch.manual_seed(0)
    model = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)](config).eval()
    layer = explained_layer(model, noise())
    assert layer.name.endswith(name)
    assert layer.grid == grid
    heat = heat_map(model, layer, noise(), 0)
    assert heat.shape == (32, 32)
    assert 0 <= heat.min() <= heat.max() <= 1


@pytest.mark.parametrize("architecture", TIMM)
def test_the_last_layer_with_places_is_found_in_models_of_timm(architecture):
    import hf_accel.models.cifar_resnet  # noqa: F401  registers the network

    arguments, name = TIMM[architecture]
    side = arguments.get("img_size", 64)
    model = TimmWrapperForImageClassification(
        TimmWrapperConfig(architecture=architecture, model_args=arguments, num_labels=3)
    ).eval()
    layer = explained_layer(model, noise(side))
    assert layer.name.endswith(name)
    assert layer.grid.height == layer.grid.width > 1
    assert heat_map(model, layer, noise(side), 1).shape == (side, side)


class Spots(torch.nn.Module):
    """Class 0 is red light, class 1 blue light, anywhere."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 2, 4, stride=4, bias=False)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.weight[0, 0] = self.features.weight[1, 2] = 1.0

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.features(pixel_values).mean((2, 3)))


@pytest.mark.parametrize(("label", "place"), [(0, (4, 4)), (1, (26, 18))])
def test_the_map_is_bright_where_the_class_is_and_dark_elsewhere(label, place):
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 0:8, 0:8] = 1.0
    image[:, 2, 24:32, 16:24] = 1.0
    model = Spots().eval()
    heat = heat_map(model, explained_layer(model, {"pixel_values": image}), {"pixel_values": image}, label).numpy()
    assert np.hypot(*(np.array(np.unravel_index(heat.argmax(), heat.shape)) - place)) < 6
    assert heat[:, 28:].max() == 0
    assert heat.max() == 1


def test_a_frozen_network_is_explained_and_left_as_it_was():
    model = Spots().eval().requires_grad_(False)
    image = {"pixel_values": torch.rand(1, 3, 32, 32)}
    heat_map(model, explained_layer(model, image), image, 0)
    assert model.features.weight.grad is None
    assert not model.features._forward_hooks
    assert not image["pixel_values"].requires_grad


def test_a_network_without_places_is_refused():
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def forward(self, pixel_values):
            return ImageClassifierOutput(logits=self.head(pixel_values.mean((2, 3))))

    with pytest.raises(UserError, match="no layer has places"):
        explained_layer(Flat().eval(), noise())


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 8, 7, 7), (224, 224), Grid(7, 7)),
        ((1, 7, 7, 96), (224, 224), Grid(7, 7, channels_last=True)),
        ((1, 49, 96), (224, 224), Grid(7, 7, 0)),
        ((1, 201, 96), (224, 224), Grid(14, 14, 5)),
        ((1, 8, 7, 10), (224, 320), Grid(7, 10)),
        ((1, 141, 96), (224, 320), Grid(10, 14, 1)),
        ((1, 8, 1, 1), (224, 224), None),
        ((1, 4, 50, 16), (224, 224), None),
        ((4, 49, 32), (224, 224), None),
        ((1, 96), (224, 224), None),
    ],
)
def test_the_grid_of_an_output(shape, size, expected):
    assert grid_of(torch.zeros(shape), *size) == expected
