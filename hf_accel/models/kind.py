"""Which task a model is for, as its configuration or its class says; weights are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from hf_accel.config.domains import IMAGE, MULTI_LABEL, TEXT
from hf_accel.models.given import base_of
from hf_accel.models.load_errors import load_errors
from hf_accel.models.thresholds import PROBLEM_TYPE

IMAGES, TEXTS = IMAGE, TEXT


def task_of_model(place: str, revision: str | None = None) -> str:
    """The task of a model's folder or an id on the Hub; image classification where nothing can be read.

    What is wrong with such a model is said by `require_model`, or by the function that loads it.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(place, revision=revision)
    except Exception:  # a folder without a configuration, or a damaged one; a Hub that does not answer
        return IMAGES
    return task_of_config(config) if isinstance(config, dict) else IMAGES


def require_model(place: str) -> None:
    """Raises UserError: it is not a folder, and the Hub does not give its configuration, so that its task is not known."""
    if not Path(place).is_dir():
        with load_errors("model.name", place, kind="classifier"):
            PreTrainedConfig.get_config_dict(place)


def task_of_network(network: Any) -> str:
    """The task of a model in memory: image classification of every network that is not a text classifier of transformers."""
    base = base_of(network)
    problem = getattr(getattr(base, "config", None), "problem_type", None)
    return task_of_config({"architectures": [type(base).__name__], "problem_type": problem})


def task_of_config(config: dict[str, Any]) -> str:
    """
    >>> task_of_config({"architectures": ["XLNetForSequenceClassification"], "model_type": "xlnet"})
    'text-classification'
    >>> task_of_config({"architecture": "resnet50"})  # of timm
    'image-classification'
    >>> task_of_config({"architectures": ["ViTForImageClassification"], "problem_type": "multi_label_classification"})
    'multi-label-image-classification'
    """
    images = MULTI_LABEL if config.get("problem_type") == PROBLEM_TYPE else IMAGES
    names = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if any(name.endswith("ForSequenceClassification") for name in names):
        return TEXTS
    if any("ForImageClassification" in name for name in names):
        return images
    kind = config.get("model_type")
    is_text = kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return TEXTS if is_text and kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES else images
