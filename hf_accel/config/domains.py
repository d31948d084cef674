"""Settings that mean something for one kind of data or of labels alone, refused in a recipe of another task.

A recipe that was written whole has every setting, so a value that does nothing (the default, null or false) is allowed.
"""

from __future__ import annotations

from typing import Any

from hf_accel.config.augmentation import AugmentSettings, plain_settings
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import (
    DISTILLATION_TEMPERATURE,
    DISTILLATION_WEIGHT,
    FOCAL_GAMMA,
    GENERALIZED_CROSS_ENTROPY,
    QUANTIZATION,
)

IMAGE, TEXT = "image-classification", "text-classification"
MULTI_LABEL = "multi-label-image-classification"
OF_IMAGES: dict[str, tuple[str, ...]] = {
    "model": ("dropout", "drop_path", "activation", "channels_last", "fit_head", "freeze_batch_norm", "whiten_stem"),
    "data": ("image_column", "labels", "split_column", "image_size", "channels", "resize", "max_pixels", "transforms",
             "cache_size", "layout", "on_bad_image", "progressive_resizing", "streaming", "shuffle_buffer",
             "test_time_augmentation", "augment"),
}  # fmt: skip
OF_TEXTS: dict[str, tuple[str, ...]] = {"data": ("text_column", "max_length", "on_bad_text")}
# A row of multi-label classification has any number of labels: these settings are of rows with one.
OF_ONE_CLASS: dict[str, tuple[str, ...]] = {
    "model": ("teacher", "fit_head", "sure_precision"),
    "data": ("layout", "streaming", "sampling", "hard_examples"),
    "training": (FOCAL_GAMMA, GENERALIZED_CROSS_ENTROPY, DISTILLATION_WEIGHT, DISTILLATION_TEMPERATURE, QUANTIZATION),
}
MIXING = ("mixup", "cutmix")
# The recipe that is meant where none is named, by task.
FINETUNE = {IMAGE: "finetune", MULTI_LABEL: "finetune", TEXT: "finetune_text"}
SAMPLING = "train_sampling_strategy"
BY_LENGTH = "group_by_length"


def default_recipe(overrides: dict[str, Any]) -> str:
    """The recipe that is meant where none is named.

    >>> default_recipe({"model": {"task": "text-classification"}})
    'finetune_text'
    """
    return FINETUNE.get(overrides.get("model", {}).get("task"), "finetune")


def domain_problems(
    model: dict[str, Any], data: dict[str, Any], training: dict[str, Any], compress: Any = None
) -> list[str]:
    """Messages about settings of another kind of data, or of labels, than that of `model.task`.

    Args:
        compress: the section of that name; None: there is none.
    """
    task = model.get("task", IMAGE)
    sections = {"model": model, "data": data, "training": training}
    found = _of_other_tasks(task, sections)
    if task == MULTI_LABEL:
        found += _of_one_class(sections, compress)
    elif isinstance(data.get("label_column"), list):
        found.append(
            f"data.label_column names several columns, and of {task} each row has one label. Name one column, or set "
            f"model.task: {MULTI_LABEL}."
        )
    return found + (_of_texts(data, training, compress) if task == TEXT else _of_lengths(training))


def _of_other_tasks(task: Any, sections: dict[str, dict[str, Any]]) -> list[str]:
    settings, other = (OF_IMAGES, "images") if task == TEXT else (OF_TEXTS, "texts")
    return [
        f"{setting} is a setting for {other}, and model.task is {task}. Leave it out."
        for setting in _set(settings, sections)
    ]


def _of_one_class(sections: dict[str, dict[str, Any]], compress: Any) -> list[str]:
    augment = sections["data"].get("augment")
    mixing = [f"data.augment.{name}" for name in MIXING if isinstance(augment, dict) and augment.get(name)]
    named = [*_set(OF_ONE_CLASS, sections), *mixing, *([] if compress is None else ["compress"])]
    return [
        f"{setting} is for images of one class each, and model.task is {MULTI_LABEL}. Leave it out."
        for setting in named
    ]


def _of_texts(data: dict[str, Any], training: dict[str, Any], compress: Any) -> list[str]:
    found = [
        f"{setting} is for ONNX files of image classifiers, and model.task is {TEXT}. Leave it out."
        for setting, value in ((f"training.{QUANTIZATION}", training.get(QUANTIZATION)), ("compress", compress))
        if value is not None
    ]
    if data.get("cache") == "device":
        found.append("data.cache is device, which keeps images of one size. For texts set it to memory, disk or none.")
    if data.get("cache") == "none" and training.get(SAMPLING) == BY_LENGTH:
        found.append(
            f"training.{SAMPLING} is {BY_LENGTH} and data.cache is none, but the lengths of texts are known only where their "
            "tokens are kept. Set data.cache: memory or disk."
        )
    return found


def _of_lengths(training: dict[str, Any]) -> list[str]:
    if training.get(SAMPLING) != BY_LENGTH:
        return []
    return [f"training.{SAMPLING} is {BY_LENGTH}, and images have no length. Leave it out, or set model.task: {TEXT}."]


def _set(settings: dict[str, tuple[str, ...]], sections: dict[str, dict[str, Any]]) -> list[str]:
    """Those of the settings that a recipe gives a value that does something."""
    return [
        f"{section}.{name}"
        for section, names in settings.items()
        for name in names
        if name in sections[section] and not _does_nothing(section, name, sections[section][name])
    ]


def _does_nothing(section: str, name: str, value: Any) -> bool:
    if name == "augment":
        off = plain_settings(AugmentSettings())
        return not isinstance(value, dict) or {**off, **value} == off
    default = None if section == "training" else getattr(SECTIONS[section], name)
    return value is None or value is False or value == default
