import torch
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from hf_accel.models.probe import unused_parameters


def image(side):
    return {"pixel_values": torch.zeros(1, 3, side, side)}


def tiny_dinov2():
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return Dinov2ForImageClassification(config)


def test_a_parameter_that_no_image_reaches_is_named():
    assert unused_parameters(tiny_dinov2(), image(28)) == ["dinov2.embeddings.mask_token"]


def test_the_names_are_those_that_get_no_gradient():
    model = tiny_dinov2()
    model(pixel_values=torch.rand(2, 3, 28, 28)).logits.sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == unused_parameters(model, image(28))


def test_a_frozen_parameter_is_not_missed_and_nothing_is_left_behind():
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="resnet18", num_classes=2)).train()
    next(model.parameters()).requires_grad_(False)
    assert unused_parameters(model, image(32)) == []
    assert model.training
    assert all(value.grad is None for value in model.parameters())
    statistics = [value for name, value in model.named_buffers() if name.endswith("running_mean")]
    assert not any(value.any() for value in statistics)
