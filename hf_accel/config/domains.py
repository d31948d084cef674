"""Settings that mean something for images or for texts alone, refused in a recipe of the other kind.

A recipe that was written whole has every setting, so a value that does nothing (the default, null or false) is allowed.
"""

from __future__ import annotations

from typing import Any

from hf_accel.config.augmentation import AugmentSettings, plain_settings
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import QUANTIZATION

TEXT = "text-classification"
OF_IMAGES: dict[str, tuple[str, ...]] = {
    "model": ("dropout", "drop_path", "activation", "channels_last", "fit_head", "freeze_batch_norm", "whiten_stem"),
    "data": ("image_column", "labels", "split_column", "image_size", "channels", "resize", "max_pixels", "transforms",
             "cache_size", "layout", "on_bad_image", "progressive_resizing", "streaming", "shuffle_buffer",
             "test_time_augmentation", "augment"),
}  # fmt: skip
OF_TEXTS: dict[str, tuple[str, ...]] = {"data": ("text_column", "max_length", "on_bad_text")}
# The recipe that is meant where none is named, by task.
FINETUNE = {"image-classification": "finetune", TEXT: "finetune_text"}
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
    """Messages about settings of another kind of data than that of `model.task`.

    Args:
        compress: the section of that name; None: there is none.
    """
    is_text = model.get("task") == TEXT
    what, settings = ("text-classification", OF_IMAGES) if is_text else ("image-classification", OF_TEXTS)
    other = "images" if is_text else "texts"
    sections = {"model": model, "data": data}
    found = [
        f"{section}.{name} is a setting for {other}, and model.task is {what}. Leave it out."
        for section, names in settings.items()
        for name in names
        if name in sections[section] and not _does_nothing(section, name, sections[section][name])
    ]
    for setting, value in ((f"training.{QUANTIZATION}", training.get(QUANTIZATION)), ("compress", compress)):
        if is_text and value is not None:
            found.append(f"{setting} is for ONNX files of image classifiers, and model.task is {TEXT}. Leave it out.")
    if is_text and data.get("cache") == "device":
        found.append("data.cache is device, which keeps images of one size. For texts set it to memory, disk or none.")
    if is_text and data.get("cache") == "none" and training.get(SAMPLING) == BY_LENGTH:
        found.append(
            f"training.{SAMPLING} is {BY_LENGTH} and data.cache is none, but the lengths of texts are known only where their "
            "tokens are kept. Set data.cache: memory or disk."
        )
    if not is_text and training.get(SAMPLING) == BY_LENGTH:
        found.append(
            f"training.{SAMPLING} is {BY_LENGTH}, and images have no length. Leave it out, or set model.task: {TEXT}."
        )
    return found


def _does_nothing(section: str, name: str, value: Any) -> bool:
    if name == "augment":
        off = plain_settings(AugmentSettings())
        return not isinstance(value, dict) or {**off, **value} == off
    return value is None or value is False or value == getattr(SECTIONS[section], name)
