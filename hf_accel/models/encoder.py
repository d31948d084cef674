"""A classifier on an image encoder for which transformers has none: DINOv3, a vision tower, the backbone of a detector.

The classifier is one linear layer on one vector per image: the encoder's own pooled output, where it has one whose weights
are in the file; else the mean of its last feature map, where it makes one; else its class token, where it has one; else the
mean of its tokens.

CLIP and SigLIP have a classifier in transformers, and their vision towers are loaded into it, as a masked autoencoder is into
a ViT. The class here is registered with the Auto classes by `import hf_accel.cifar_nets`, as this package's networks are.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    ViTConfig,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_OBJECT_DETECTION_MAPPING,
    MODEL_MAPPING,
)

from hf_accel.errors import UserError
from hf_accel.models.head import known_labels, renew_head

ENCODER_TYPE = "hf_accel_encoder"
# Vision towers -> the config whose classifier in transformers is made of the same tower.
TOWERS: dict[str, Any] = {"clip_vision_model": CLIPConfig, "siglip_vision_model": SiglipConfig}
POOLINGS = {
    "pooler": "its pooled output",
    "map": "the mean of its last feature map",
    "cls": "its class token",
    "mean": "the mean of its tokens",
}
CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}
USUAL_SIDE = 224


class EncoderConfig(PreTrainedConfig):
    """The config of an encoder, how its output becomes one vector per image, and the classes."""

    model_type = ENCODER_TYPE
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit", optional=True)
    }

    vision_config: Any = None  # PreTrainedConfig, of the encoder; upstream makes one of a dictionary
    pooling: str = "pooler"
    feature_size: int = 0


class EncoderForImageClassification(PreTrainedModel):
    """An encoder with a linear classifier."""

    config_class = EncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _supports_sdpa = True  # the encoder decides for itself

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.encoder = _class_of(config.vision_config)._from_config(copy.deepcopy(config.vision_config))
        self.classifier = nn.Linear(config.feature_size, len(known_labels(config)))
        self.supports_gradient_checkpointing = self.encoder.supports_gradient_checkpointing
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> ImageClassifierOutput:
        features = pooled(self.encoder(pixel_values=pixel_values), self.config.pooling)
        return ImageClassifierOutput(logits=self.classifier(features))


def pooled(output: Any, pooling: str) -> Tensor:
    """The output of an encoder -> (B, D)."""
    if pooling == "pooler":
        return output.pooler_output.flatten(1)
    if pooling == "map":
        maps = output.feature_maps[-1] if "feature_maps" in output else output.last_hidden_state
        return maps.mean(dim=(2, 3) if maps.ndim == 4 else 1)
    tokens = output.last_hidden_state
    return tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)


def classifier_config(name: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the classifier that a model of this config gets; again where arguments have changed such a config.

    Args:
        name: of the model, for messages.
    Raises:
        UserError: it is not an image encoder, or one whose output is not one vector, or tokens, per image.
    """
    if isinstance(config, EncoderConfig) and is_without_classifier(config):
        return _with_pooling(name, config)
    if type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return config
    vision = copy.deepcopy(config)
    vision.name_or_path = ""  # it would be saved, and can be a folder of this machine
    if config.model_type in TOWERS:
        return TOWERS[config.model_type](vision_config=vision.to_dict())
    if config.model_type == "vit_mae":  # a ViT; its own class hides and shuffles the patches of an image
        fields = ViTConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
        return ViTConfig(**{key: value for key, value in vision.to_dict().items() if key in fields})
    if not _is_image_encoder(config):
        raise _refusal(name, config, "which has no image-classification head and is not an image encoder")
    return _with_pooling(name, EncoderConfig(vision_config=vision))


def is_without_classifier(config: PreTrainedConfig) -> bool:
    """Whether `classifier_config` made this config for a file that holds an encoder alone."""
    return isinstance(config, (EncoderConfig, *TOWERS.values())) and config.architectures is None


def pretrained(
    kind: Any, name: str, revision: str | None, config: PreTrainedConfig
) -> tuple[PreTrainedModel, set[str], set[str]]:
    """A model of a class of transformers, or an Auto class, with the weights of the file, in float32.

    Returns:
        The model, the names of its tensors that are not from the file, and those of them that have another shape there.
    """
    model, info = kind.from_pretrained(
        name,
        revision=revision,
        config=copy.deepcopy(config),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    return model, mismatched | set(info["missing_keys"]), mismatched


def load_encoder(name: str, revision: str | None, config: Any) -> tuple[PreTrainedModel, set[str], set[str]]:
    """The classifier of a config of `classifier_config`, with the encoder's weights of the file; returns as `pretrained`."""
    vision = copy.deepcopy(config.vision_config)
    encoder, fresh, mismatched = pretrained(_class_of(vision), name, revision, vision)
    if isinstance(config, EncoderConfig) and config.pooling == "pooler" and any("pool" in key for key in fresh):
        config = _with_pooling(name, config, has_pooler=False)
    with torch.device("meta"):  # not a second encoder in memory
        model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    place = "encoder" if isinstance(config, EncoderConfig) else "vision_model"
    setattr(model, place, encoder)
    model.classifier.to_empty(device="cpu")
    renew_head(model, {"classifier.weight", "classifier.bias"})
    fresh, mismatched = ({f"{place}.{key}" for key in keys} for keys in (fresh, mismatched))
    return model, fresh | {"classifier.weight", "classifier.bias"}, mismatched


def encoder_notes(config: PreTrainedConfig) -> list[str]:
    """What a report says of the classifier of such a config."""
    if not isinstance(config, EncoderConfig):
        return []
    return [
        f"transformers has no classifier of the type {config.vision_config.model_type}: this one is a linear layer on "
        f"{POOLINGS[config.pooling]}, and the saved model is loaded after `import hf_accel.cifar_nets`"
    ]


def _class_of(config: PreTrainedConfig) -> Any:
    """The class of an encoder with this config."""
    found = (MODEL_MAPPING if type(config) in MODEL_MAPPING else MODEL_FOR_BACKBONE_MAPPING)[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _is_image_encoder(config: PreTrainedConfig) -> bool:
    """Whether transformers has a model that turns pixels, and nothing else, into features."""
    if config.is_encoder_decoder or type(config) in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        return False
    if type(config) not in MODEL_MAPPING:
        return type(config) in MODEL_FOR_BACKBONE_MAPPING
    network = _class_of(config)
    return network.main_input_name == "pixel_values" and network.input_modalities in ("image", ("image",))


def _with_pooling(name: str, config: EncoderConfig, has_pooler: bool = True) -> EncoderConfig:
    """The config with the pooling that the encoder's answer to a black image allows; no weights are made for that."""
    vision = config.vision_config
    side = getattr(vision, "image_size", None) or USUAL_SIDE
    height, width = (side, side) if isinstance(side, int) else side
    try:
        with torch.device("meta"):
            encoder = _class_of(vision)._from_config(copy.deepcopy(vision)).eval()
            output = encoder(pixel_values=torch.zeros(1, 3, height, width))
        has_class_token = any(key.rpartition(".")[2] in CLASS_TOKENS for key, _ in encoder.named_parameters())
        pooling = _pooling_of(output, has_pooler, has_class_token)
        features = pooled(output, pooling)
    except Exception as error:  # whatever it is: this is not an encoder of one image
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise _refusal(
            name, config.vision_config, f"which does not turn an image into tokens ({reason[:200]})"
        ) from error
    changed = copy.deepcopy(config)
    changed.pooling, changed.feature_size = pooling, features.shape[1]
    return changed


def _pooling_of(output: Any, has_pooler: bool, has_class_token: bool) -> str:
    if has_pooler and getattr(output, "pooler_output", None) is not None:
        return "pooler"
    if "feature_maps" in output or output.last_hidden_state.ndim == 4:
        return "map"
    return "cls" if has_class_token else "mean"


def _refusal(name: str, config: Any, what: str) -> UserError:
    return UserError(
        f"model.name: {name} is of the type {config.model_type}, {what}. Expected an image encoder such as "
        "google/vit-base-patch16-224-in21k, facebook/dinov3-vits16-pretrain-lvd1689m or timm/resnet50.a1_in1k."
    )


AutoConfig.register(ENCODER_TYPE, EncoderConfig, exist_ok=True)
AutoModelForImageClassification.register(EncoderConfig, EncoderForImageClassification, exist_ok=True)
