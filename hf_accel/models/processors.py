"""The image processor of a model: its own, the architecture's default where the files have none, at the size asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from transformers import AutoImageProcessor, PreTrainedConfig, TimmWrapperConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_accel.errors import UserError
from hf_accel.inputs.processors import with_image_size
from hf_accel.inputs.resize_modes import Mode, timm_settings, with_resize

if TYPE_CHECKING:
    from hf_accel.models.load import LoadedModel

PREPROCESSING_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def load_processor(
    name: str, revision: str | None, config: PreTrainedConfig, image_size: int | None = None
) -> tuple[BaseImageProcessor, list[str]]:
    """The processor of a folder or Hub model, and what had to be chosen, in words.

    Args:
        config: the model's config; a timm config gets the `pretrained_cfg` that describes the result.
        image_size: side in pixels of the square images that it makes; None is the model's own.
    Raises:
        UserError: a timm folder without `pretrained_cfg` of an architecture for which timm has none.
    """
    if isinstance(config, TimmWrapperConfig):
        return _timm_processor(name, config, image_size)
    try:
        processor, notes = AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=False), []
    except OSError:
        if not Path(name).is_dir() or type(config) not in IMAGE_PROCESSOR_MAPPING:
            raise
        processor = default_processor(config)
        notes = [
            f"{name} has no preprocessor_config.json: the default of {config.model_type} is used ({_statistics(processor)})"
        ]
    return processor if image_size is None else with_image_size(processor, image_size), notes


def set_resize(loaded: LoadedModel, mode: Mode | None) -> LoadedModel:
    """Make a model's processor bring images to its size in this way, in place and for good; see `inputs.resize_modes`.

    Raises:
        UserError: the processor cannot be set so.
    """
    if mode is not None:
        loaded.processor = with_resize(loaded.processor, mode)
        config: Any = loaded.model.config  # a config keeps keywords that it has no field for
        if isinstance(config, TimmWrapperConfig):  # which is where a timm model has its processor's settings
            config.pretrained_cfg = plain(timm_settings(config.pretrained_cfg, mode))
        loaded.notes.append(f"data.resize: {mode}, by {type(loaded.processor).__name__}, which is saved with the model")
    return loaded


def processor_size(processor: BaseImageProcessor) -> int:
    """Side in pixels of the square image that a processor makes.

    Raises:
        UserError: it does not say one, as those of detectors and of language models with images.
    """
    if isinstance(processor, TimmWrapperImageProcessor):
        return processor.data_config["input_size"][-1]
    own: Any = processor  # every class declares its settings itself
    size = own.crop_size if getattr(own, "do_center_crop", False) else own.size
    side = size.get("height") or size.get("shortest_edge")
    if side is None:
        raise UserError(
            f"model.name: {type(processor).__name__} makes images of different sizes, expected one size for all images. Choose "
            "another model, or save its weights with an image processor such as ViTImageProcessor."
        )
    return side


def plain(cfg: dict[str, Any]) -> dict[str, Any]:
    """The same content as JSON has it: tuples become lists, so that a saved and a loaded config are equal."""
    return json.loads(json.dumps(cfg))


def _timm_processor(
    name: str, config: TimmWrapperConfig, image_size: int | None
) -> tuple[BaseImageProcessor, list[str]]:
    cfg, notes = dict(config.to_dict().get("pretrained_cfg") or {}), []
    if not cfg:
        registered = timm.get_pretrained_cfg(config.architecture, allow_unregistered=True)
        cfg = {} if registered is None else registered.to_dict()
        cfg = {key: cfg[key] for key in PREPROCESSING_KEYS if key in cfg}
        if not cfg:
            raise UserError(
                f"model.name: {name} has no pretrained_cfg in its config.json, and timm has none for "
                f"{config.architecture}, so its preprocessing is unknown. Add input_size, mean, std, interpolation and "
                "crop_pct there, as timm's Hub folders have them."
            )
        asked = (config.model_args or {}).get("img_size")
        if asked is not None:
            cfg["input_size"] = (3, asked, asked) if isinstance(asked, int) else (3, *asked)
    cfg.pop("num_classes", None)
    if image_size is not None:
        cfg["input_size"] = [*(cfg.get("input_size") or [3])[:1], image_size, image_size]
    had_none = not config.to_dict().get("pretrained_cfg")
    config.pretrained_cfg = plain(cfg)
    processor = TimmWrapperImageProcessor(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)
    if had_none:
        used = processor.data_config
        notes = [
            f"{name} has no pretrained_cfg in its config.json: timm's default of {config.architecture} is used "
            f"(mean {list(used['mean'])}, std {list(used['std'])})"
        ]
    return processor, notes


def default_processor(config: PreTrainedConfig) -> BaseImageProcessor:
    """The processor that transformers has for an architecture, at the size that the config states."""
    by_backend: Any = IMAGE_PROCESSOR_MAPPING[type(config)]  # annotated as a tuple upstream
    processor = by_backend["torchvision"]()
    side = config.to_dict().get("image_size")
    return with_image_size(processor, side) if isinstance(side, int) else processor


def _statistics(processor: BaseImageProcessor) -> str:
    own: Any = processor
    if not own.do_normalize:
        return "pixels from 0 to 1, not normalised"
    return f"mean {list(own.image_mean)}, std {list(own.image_std)}"
