"""Any Hub or timm image classifier, ready to be trained for the labels at hand.

What upstream leaves to the user is done here once: a new head (said which layers), fp32 master weights whatever the
file holds, label names, a processor that can be saved, and for timm the `pretrained_cfg` without which a fine-tuned
folder has no processor. Code from a repository is never run.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTImageProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

import hf_accel.models.airbench
import hf_accel.models.cifar_resnet  # noqa: F401  both register this package's networks with timm
from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError, did_you_mean
from hf_accel.inputs.preprocessing import with_image_size
from hf_accel.models.layout import use_channels_last

OWN_PREFIX = "hf_accel/"
TIMM_PREFIX = "timm/"
PREPROCESSING_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass
class LoadedModel:
    """A model with its processor and what was done to it, in words."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    image_size: int
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def load_model(settings: ModelSettings, label_names: list[str], image_size: int | None = None) -> LoadedModel:
    """Load or build a classifier for these labels.

    Args:
        settings: the `model:` section of a recipe.
        label_names: one name a class, in the order of the label numbers.
        image_size: side of the square input in pixels; None is the model's own.
    Raises:
        UserError: no such model, no image classifier, weights that cannot be had, or an image size it cannot take.
    """
    labels = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    is_timm_architecture = not settings.pretrained and settings.name.startswith((OWN_PREFIX, TIMM_PREFIX))
    loaded = (
        _timm_from_scratch(settings, labels, image_size)
        if is_timm_architecture
        else _from_repository(settings, labels, image_size)
    )
    if settings.channels_last:
        use_channels_last(loaded.model)
    if settings.freeze_batch_norm:
        frozen = freeze_batch_norm(loaded.model)
        loaded.notes.append(f"{frozen} batch-norm layers keep their statistics")
    loaded.model.train()
    return loaded


def load_trained(folder: str | Path, revision: str | None = None) -> LoadedModel:
    """Load a fine-tuned folder or Hub model as it is, head and labels included."""
    name = str(folder)
    with _hub_errors("model", name):
        config = AutoConfig.from_pretrained(name, revision=revision)
        _require_classifier(name, config)
        model = AutoModelForImageClassification.from_pretrained(name, revision=revision, dtype=torch.float32)
        processor = AutoImageProcessor.from_pretrained(name, revision=revision)
    return LoadedModel(model.eval(), processor, processor_size(processor))


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


def processor_size(processor: BaseImageProcessor) -> int:
    """Side in pixels of the square image that a processor makes."""
    if isinstance(processor, TimmWrapperImageProcessor):
        return processor.data_config["input_size"][-1]
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    return size["height"] if size.get("height") else size["shortest_edge"]


def flops_per_image(model: nn.Module, image_size: int, setting: str = "data.image_size") -> int:
    """Floating-point operations of one forward pass of one image, a multiply-add counted as two.

    Args:
        setting: that asked for this size, for the message.
    Raises:
        UserError: the model cannot take an image of this size.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = model(pixel_values=torch.zeros(1, 3, image_size, image_size, device=device)).logits
    except (RuntimeError, ValueError, AssertionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{setting}: the model cannot take {image_size} x {image_size} pixels ({first}). Leave it out to use the "
            "model's own size, or give the architecture its size through model.args (timm ViT: img_size; for several "
            "sizes dynamic_img_size: true)."
        ) from None
    finally:
        model.train(was_training)
    assert logits.ndim == 2
    return counter.get_total_flops()


def _timm_from_scratch(settings: ModelSettings, labels: dict[str, Any], image_size: int | None) -> LoadedModel:
    architecture = settings.name.split("/", 1)[1]
    base = architecture.split(".")[0]
    if not timm.is_model(base):
        known = timm.list_models()
        raise UserError(f"model.name: timm has no model {base!r}. {did_you_mean(base, known)}")
    try:
        network = timm.create_model(base, pretrained=False, num_classes=len(labels["id2label"]), **settings.args)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"model.args: {base} does not take {settings.args}: {error}") from None
    tagged = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    defaults = {**(tagged.to_dict() if tagged is not None else {}), **network.pretrained_cfg}
    cfg = {key: defaults[key] for key in PREPROCESSING_KEYS if key in defaults}
    if image_size is not None:
        cfg |= {"input_size": (3, image_size, image_size)}
        if image_size <= 64:
            cfg["crop_pct"] = 1.0  # small images are resized whole: cropping would cut their content
    config = TimmWrapperConfig(
        architecture=base,
        model_args=_without_num_classes(settings.args) or None,
        pretrained_cfg=_plain(cfg),
        **labels,
    )
    model = TimmWrapperForImageClassification(config)
    # the wrapper's post_init is meant for a head on loaded weights: timm's own initialisation is the right one here
    model.timm_model.load_state_dict(network.state_dict())
    processor = TimmWrapperImageProcessor(pretrained_cfg=config.pretrained_cfg, architecture=base)
    return LoadedModel(model, processor, processor_size(processor), [f"{base} from random weights"])


def _from_repository(settings: ModelSettings, labels: dict[str, Any], image_size: int | None) -> LoadedModel:
    name, revision = settings.name, settings.revision
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"model.name: there is no folder {name}. Give a Hub id, timm/<name>, or an existing folder.")
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    with _hub_errors("model", name):
        config = AutoConfig.from_pretrained(name, revision=revision)
        _require_classifier(name, config)
        # not as arguments of from_pretrained: a timm config would keep its own number of classes
        config.id2label, config.label2id = labels["id2label"], labels["label2id"]
        if isinstance(config, TimmWrapperConfig):
            config.model_args = _without_num_classes({**(config.model_args or {}), **settings.args}) or None
        else:
            unknown = [key for key in settings.args if not hasattr(config, key)]
            if unknown:
                raise UserError(
                    f"model.args: {type(config).__name__} has no {unknown[0]}. Known: {sorted(vars(config))}"
                )
            config.update(settings.args)
        processor = _processor(name, revision, config, image_size)
        if not settings.pretrained:
            model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
            return LoadedModel(
                model, processor, processor_size(processor), [f"{config.model_type} from random weights"]
            )
        with _quiet_loading_report():
            model, info = AutoModelForImageClassification.from_pretrained(
                name,
                revision=revision,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    return LoadedModel(model, processor, processor_size(processor), _loading_notes(name, model, info))


def _processor(name: str, revision: str | None, config: PreTrainedConfig, image_size: int | None) -> BaseImageProcessor:
    if isinstance(config, TimmWrapperConfig):
        cfg = dict(getattr(config, "pretrained_cfg", None) or {})
        if not cfg:
            raise UserError(
                f"model.name: {name} has no pretrained_cfg in its config.json, so its preprocessing is unknown. Add "
                "input_size, mean, std, interpolation and crop_pct there, as timm's Hub folders have them."
            )
        cfg.pop("num_classes", None)
        if image_size is not None:
            cfg["input_size"] = [3, image_size, image_size]
        config.pretrained_cfg = _plain(cfg)
        return TimmWrapperImageProcessor(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)
    try:
        processor = AutoImageProcessor.from_pretrained(name, revision=revision)
    except OSError:
        if not Path(name).is_dir():
            raise
        side = getattr(config, "image_size", 224)
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        processor = ViTImageProcessor(size={"height": height, "width": width})
    return processor if image_size is None else with_image_size(processor, image_size)


def _require_classifier(name: str, config: PreTrainedConfig) -> None:
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"model.name: {name} is a {config.model_type} model, which has no image-classification head. Expected an "
            "image encoder such as google/vit-base-patch16-224-in21k or timm/resnet50.a1_in1k."
        )


def _loading_notes(name: str, model: PreTrainedModel, info: dict[str, Any]) -> list[str]:
    notes = [f"weights of {name}, trained in float32"]
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    fresh = sorted(mismatched | set(info["missing_keys"]))
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if fresh:
        notes.append("new layers, from random weights: " + ", ".join(f"{k} {list(shapes.get(k, ()))}" for k in fresh))
    if len(fresh) > max(8, len(shapes) // 4):
        notes.append(
            f"warning: {len(fresh)} of {len(shapes)} tensors are not in the file: is it the right architecture?"
        )
    return notes


def _without_num_classes(args: dict[str, Any]) -> dict[str, Any]:
    # a timm Hub config may hold it; the wrapper passes num_classes itself and the call fails on the second one
    return {key: value for key, value in args.items() if key != "num_classes"}


def _plain(cfg: dict[str, Any]) -> dict[str, Any]:
    """The same content as JSON has it: tuples become lists, so that a saved and a loaded config are equal."""
    return json.loads(json.dumps(cfg))


@contextlib.contextmanager
def _quiet_loading_report() -> Iterator[None]:
    """Silence transformers' table of new and mismatched keys: the same is said in `notes`, in one line."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _hub_errors(what: str, name: str) -> Iterator[None]:
    """Say in one message what the Hub client says in several tracebacks."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = " ".join(str(error).split())
        if Path(name).is_dir():
            raise UserError(
                f"{what}.name: the folder {name} holds no model that can be loaded: {text[:400]}"
            ) from error
        if "does not appear to have" in text or "Unrecognized model" in text or "not supported in your version" in text:
            raise UserError(
                f"{what}.name: {name} holds no image classifier that can be loaded: {text[:400]}"
            ) from error
        raise UserError(
            f"{what}.name: {name} is not on this machine and cannot be fetched from the Hub ({text[:200]}). Its "
            f"config.json, weights and processor would be downloaded. Check the name and the connection, or download it "
            f"elsewhere (`hf download {name} --local-dir FOLDER`) and set {what}.name to that folder."
        ) from error
