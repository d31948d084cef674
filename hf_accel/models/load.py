"""Any Hub or timm image classifier, ready to be trained for the labels at hand.

Steps that upstream leaves to the user are done here once: a new head (its layers are named), fp32 master weights whatever the
file holds, label names, a processor that can be saved, and for timm the `pretrained_cfg` without which a fine-tuned
folder has no processor. A classifier is kept only where the file was trained for the same class names in the same order;
otherwise it starts from scratch, and a note says so. Code from a repository is never run, and no pickle is opened.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

import hf_accel.models.airbench
import hf_accel.models.cct
import hf_accel.models.cifar_resnet  # noqa: F401  all three register this package's networks with timm
from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError, did_you_mean
from hf_accel.models.channels import set_channels
from hf_accel.models.encoder import (
    EncoderConfig,
    classifier_config,
    encoder_notes,
)
from hf_accel.models.exported import refuse_exported
from hf_accel.models.head import known_labels, set_labels
from hf_accel.models.layers import freeze
from hf_accel.models.layout import pad_single_pixels, use_channels_last
from hf_accel.models.load_errors import TIMM_PREFIX, load_errors
from hf_accel.models.loaded import Loaded
from hf_accel.models.plain import PLAIN_TYPE
from hf_accel.models.processors import PREPROCESSING_KEYS, load_processor, plain, processor_size
from hf_accel.models.regularisation import refuse_regularisation, require_regularisation, with_regularisation
from hf_accel.models.weights import with_weights

OWN_PREFIX = "hf_accel/"

logger = logging.getLogger(__name__)


@dataclass
class LoadedModel(Loaded):
    """A classifier of images with its processor and what was done to it, in words."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    image_size: int
    notes: list[str] = field(default_factory=list)
    has_new_head: bool = False  # on pretrained weights
    is_given: bool = False  # by a Python caller: nothing is known of where its weights come from

    def preprocessing(self) -> str:
        return json.dumps(self.processor.to_dict(), sort_keys=True, default=str)


def load_model(
    settings: ModelSettings, label_names: list[str], image_size: int | None = None, channels: int | None = None
) -> LoadedModel:
    """Load or build a classifier for these labels.

    Args:
        settings: the `model:` section of a recipe.
        label_names: one name per class, in the order of the label numbers.
        image_size: side of the square input in pixels; None is the model's own.
        channels: of an image; None is the model's own number.
    Raises:
        UserError: no such model, not an image classifier, no weights that can be loaded, or arguments that do not fit.
    """
    loaded = (
        _timm_from_scratch(settings, label_names, image_size)
        if _is_timm_architecture(settings)
        else _from_repository(settings, label_names, image_size)
    )
    set_channels(loaded, channels)
    pad_single_pixels(loaded.model)
    if settings.channels_last:
        use_channels_last(loaded.model)
    if settings.freeze_batch_norm:
        frozen = freeze_batch_norm(loaded.model)
        loaded.notes.append(f"{frozen} batch-norm layers keep their statistics")
    if settings.freeze != "none":
        loaded.notes.append(freeze(loaded.model, settings.freeze))
    loaded.model.train()
    return loaded


def load_model_processor(
    settings: ModelSettings, image_size: int | None = None
) -> tuple[BaseImageProcessor, list[str]]:
    """The processor that `load_model` gives, without the weights, and what had to be chosen, in words.

    Where the Hub's files of a timm model cannot be had, timm's own settings of the same name are taken.

    Raises:
        UserError: no such model, or its processor is not on this machine and cannot be fetched.
    """
    if _is_timm_architecture(settings):
        architecture, arguments, network = _timm_network(settings, num_labels=2)
        return _timm_processor(_timm_config(architecture, arguments, network, image_size)), []
    try:
        with load_errors("model.name", settings.name):
            name = checked_name(settings.name)
            own = classifier_config(name, _load_config(name, settings.revision))
            config = _with_arguments(own, settings.args)
            return load_processor(name, settings.revision, config, image_size)
    except UserError:
        architecture = settings.name.removeprefix(TIMM_PREFIX)
        if not settings.name.startswith(TIMM_PREFIX) or not timm.is_model(architecture.split(".")[0]):
            raise
        processor, _ = load_processor(settings.name, None, TimmWrapperConfig(architecture=architecture), image_size)
        return processor, [f"the preprocessing of {settings.name} is timm's: its files are not on this machine"]


def load_trained(folder: str | Path, revision: str | None = None, setting: str = "model.name") -> LoadedModel:
    """Load a fine-tuned folder or Hub model as it is, head and labels included.

    Args:
        setting: that names it, for the messages.
    Raises:
        UserError: no such model, not an image classifier, or no weights that can be loaded.
    """
    name = str(folder)
    with load_errors(setting, name):
        config = _load_config(name, revision, setting)
        _require_classifier(name, config, setting)
        processor, notes = load_processor(name, revision, config)
        model = AutoModelForImageClassification.from_pretrained(
            name, revision=revision, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    for note in notes:
        logger.warning(note)
    return LoadedModel(model.eval(), processor, processor_size(processor), notes)


def freeze_batch_norm(model: nn.Module) -> int:
    """Keep batch-norm layers in evaluation mode during training too; returns how many there are.

    Their weights still learn. The hook runs before each forward, because the Trainer calls `model.train()` at every
    step.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def keep_statistics(*_: Any) -> None:
        for layer in layers:
            layer.eval()

    model.register_forward_pre_hook(keep_statistics)
    return len(layers)


def _is_timm_architecture(settings: ModelSettings) -> bool:
    return not settings.pretrained and settings.name.startswith((OWN_PREFIX, TIMM_PREFIX))


def _timm_from_scratch(settings: ModelSettings, label_names: list[str], image_size: int | None) -> LoadedModel:
    architecture, arguments, network = _timm_network(settings, len(label_names))
    config = _timm_config(architecture, arguments, network, image_size)
    set_labels(config, label_names)
    model = TimmWrapperForImageClassification(config)
    # the wrapper's post_init is meant for a head on loaded weights: timm's own initialisation is the right one here
    model.timm_model.load_state_dict(network.state_dict())
    processor = _timm_processor(config)
    return LoadedModel(model, processor, processor_size(processor), [f"{config.architecture} from random weights"])


def _timm_network(settings: ModelSettings, num_labels: int) -> tuple[str, dict[str, Any], Any]:
    """The architecture's name with its tag, its arguments, and the network with random weights."""
    architecture = settings.name.split("/", 1)[1]
    base = architecture.split(".")[0]
    if not timm.is_model(base):
        known = timm.list_models()
        raise UserError(f"model.name: timm has no model {base!r}. {did_you_mean(base, known)}")
    arguments = with_regularisation(settings)
    _refuse_loading_arguments(settings.name, arguments)
    try:
        network: Any = timm.create_model(base, pretrained=False, num_classes=num_labels, **arguments)
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise UserError(f"model.args: {base} does not take {arguments}: {error}") from None
    require_regularisation(network, settings)
    return architecture, arguments, network


def _timm_config(
    architecture: str, arguments: dict[str, Any], network: Any, image_size: int | None
) -> TimmWrapperConfig:
    """The config of a timm network, without labels."""
    tagged = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    defaults = {**(tagged.to_dict() if tagged is not None else {}), **network.pretrained_cfg}
    cfg = {key: defaults[key] for key in PREPROCESSING_KEYS if key in defaults}
    if image_size is not None:
        cfg |= {"input_size": (3, image_size, image_size)}
        if image_size <= 64:
            cfg["crop_pct"] = 1.0  # small images are resized whole: cropping would cut their content
    return TimmWrapperConfig(
        architecture=architecture.split(".")[0],
        model_args=_without_num_classes(arguments) or None,
        pretrained_cfg=plain(cfg),  # type: ignore[call-arg]  # a config keeps keywords that it has no field for
    )


def _timm_processor(config: TimmWrapperConfig) -> TimmWrapperImageProcessor:
    cfg: Any = config  # a config keeps keywords that it has no field for
    return TimmWrapperImageProcessor(pretrained_cfg=cfg.pretrained_cfg, architecture=config.architecture)


def checked_name(name: str) -> str:
    """A Hub id, or the path of a folder that exists."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"model.name: there is no folder {name}. Give a Hub id, timm/<name>, or an existing folder.")
    return str(Path(name).expanduser()) if name.startswith("~") else name


def _from_repository(settings: ModelSettings, label_names: list[str], image_size: int | None) -> LoadedModel:
    name, revision = checked_name(settings.name), settings.revision
    with load_errors("model.name", name):
        own = classifier_config(name, _load_config(name, revision))
        known = known_labels(own)
        # not as arguments of from_pretrained: a timm config would keep its own number of classes
        set_labels(own, label_names)
        is_timm = isinstance(own, TimmWrapperConfig)
        if not is_timm:
            refuse_regularisation(name, settings)
        config = _with_arguments(own, with_regularisation(settings) if is_timm else settings.args)
        config = classifier_config(name, config)
        described = config.vision_config if isinstance(config, EncoderConfig) else config
        processor, notes = load_processor(name, revision, described, image_size)
        if settings.pretrained:
            model, has_new_head, weights_notes = with_weights(name, revision, own, config, known)
        else:
            has_new_head = False
            model = AutoModelForImageClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)
            weights_notes = [f"{described.model_type} from random weights"]
        if isinstance(model, TimmWrapperForImageClassification):
            require_regularisation(model.timm_model, settings)
    notes = [*weights_notes, *encoder_notes(model.config), *notes]
    return LoadedModel(model, processor, processor_size(processor), notes, has_new_head)


def _load_config(name: str, revision: str | None, setting: str = "model.name") -> PreTrainedConfig:
    _refuse_plain(name, setting)
    refuse_exported(name, setting)
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    if isinstance(config, TimmWrapperConfig):
        config.model_args = _without_num_classes(config.model_args or {}) or None
        _refuse_loading_arguments(name, config.model_args or {})
    return config


def _refuse_plain(name: str, setting: str) -> None:
    file = Path(name) / "config.json"
    config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if config.get("model_type") == PLAIN_TYPE:
        raise UserError(
            f"{setting}: {name} holds the weights of {config['architectures'][0]}, a network of a caller's own, and "
            "only the code that built it can build it again. Load them with safetensors.torch.load_model, and give the "
            "network to build_trainer or hf_accel.predict."
        )


def _with_arguments(own: PreTrainedConfig, arguments: dict[str, Any]) -> PreTrainedConfig:
    config = copy.deepcopy(own)
    if isinstance(config, TimmWrapperConfig):
        _refuse_loading_arguments(config.architecture, arguments)
        config.model_args = _without_num_classes({**(config.model_args or {}), **arguments}) or None
        return config
    update_config(config, arguments)
    return config


def update_config(config: PreTrainedConfig, arguments: dict[str, Any]) -> None:
    """Set arguments of a config, in place. CLIP and SigLIP keep those of their image encoder in a config of its own.

    Raises:
        UserError: it has no such argument, a value is of another type, or they contradict each other, which upstream finds when
            the config is saved.
    """
    try:
        _set_arguments(config, arguments)
        config.validate()
    except (StrictDataclassError, ArithmeticError) as error:
        raise UserError(f"model.args: {type(config).__name__}: {error.__cause__ or error}") from None


def _set_arguments(config: PreTrainedConfig, arguments: dict[str, Any]) -> None:
    vision = getattr(config, "vision_config", None)
    for key, value in arguments.items():
        owner = vision if vision is not None and hasattr(vision, key) and not hasattr(config, key) else config
        if not hasattr(owner, key):
            raise UserError(f"model.args: {type(config).__name__} has no {key}. Known: {sorted(vars(config))}")
        inner = getattr(owner, key)
        if isinstance(inner, PreTrainedConfig) and isinstance(value, dict):
            _set_arguments(inner, value)
        else:
            owner.update({key: value})


def _require_classifier(name: str, config: PreTrainedConfig, setting: str) -> None:
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"{setting}: {name} is of the type {config.model_type}, which has no classifier of images. Expected a trained "
            "classifier: the folder of a run, or a classifier on the Hub."
        )


def _without_num_classes(args: dict[str, Any]) -> dict[str, Any]:
    # a timm Hub config may hold it; the wrapper passes num_classes itself and the call fails on the second one
    return {key: value for key, value in args.items() if key != "num_classes"}


def _refuse_loading_arguments(name: str, arguments: dict[str, Any]) -> None:
    """timm's factory reads these itself: they fetch files, pickles among them, in place of the weights at hand."""
    found = sorted(
        {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"} & set(arguments)
    )
    if found:
        raise UserError(
            f"model.args: {name} asks for {found[0]}, which makes timm load a file of its own. Expected arguments of the "
            "architecture only; weights come from model.safetensors."
        )
