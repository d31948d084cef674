"""Tiny models with random weights, saved as the Hub's folders are."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForImageClassification,
    PreTrainedConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTImageProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

import hf_accel.models.cifar_resnet  # noqa: F401  registers the network
from hf_accel.models.head import set_labels

CFG = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0}


def save_timm(folder: Path, architecture: str, labels: list[str], **model_args: object) -> Path:
    """A timm model that differs from zero in every tensor, the classifier included."""
    config = TimmWrapperConfig(architecture=architecture, model_args=model_args, pretrained_cfg=dict(CFG))
    set_labels(config, labels)
    return _save(TimmWrapperForImageClassification(config), folder)


def save_hub(folder: Path, config: PreTrainedConfig, labels: list[str]) -> Path:
    """A model of transformers, without a preprocessor_config.json."""
    set_labels(config, labels)
    model_type = AutoModelForImageClassification._model_mapping[type(config)]
    model = (model_type[0] if isinstance(model_type, tuple) else model_type)(config)
    return _save(model, folder)


def save_encoder(folder: Path, config: PreTrainedConfig, size: int = 32) -> Path:
    """An encoder of transformers without a classifier, with an image processor."""
    kinds = MODEL_MAPPING if type(config) in MODEL_MAPPING else MODEL_FOR_BACKBONE_MAPPING
    found = kinds[type(config)]
    ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return _save((found[0] if isinstance(found, tuple) else found)(config), folder)


def _save(model: torch.nn.Module, folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.save_pretrained(folder)
    return folder
