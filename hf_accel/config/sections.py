"""What the sections of a recipe may hold, with types, defaults and ranges.

`training:` has no dataclass here: it is TrainingArguments, name for name. Its names and types are read from the source
of the installed transformers without importing it, because importing takes seconds and a typing mistake should be
answered at once.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from hf_accel.errors import did_you_mean

# Arguments of transformers.EarlyStoppingCallback, under their own names, beside those of TrainingArguments.
EARLY_STOPPING = {"early_stopping_patience": "int", "early_stopping_threshold": "float"}
# On a CPU: freed memory stays with the process, which saves the kernel's work at every step.
KEEP_FREED_MEMORY = "keep_freed_memory"


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and how it is prepared for training."""

    name: str  # Hub id, timm/<name>, hf_accel/<name> (networks of this package), or a local folder
    pretrained: bool = True  # False: the architecture with random weights
    revision: str | None = None  # branch, tag or commit on the Hub
    task: str = "image-classification"
    args: dict[str, Any] = field(default_factory=dict)  # timm model_args, or overrides of a transformers config
    channels_last: bool = False  # NHWC weights: faster convolutions on most devices, no gain for ViT
    freeze_batch_norm: bool = False  # batch-norm layers keep their pretrained statistics (small data sets)
    whiten_stem: bool = False  # the first convolution is a fixed whitening of the training images' patches
    kernels: str = "auto"  # auto: on a CPU, bf16 operations that PyTorch does slowly are replaced | library: none is


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to a training image, applied batched on the training device. Absent means off."""

    crop: str = "none"  # none | pad | random_resized
    pad: int = 4  # pixels of the stored image on each side, for crop: pad
    pad_mode: str = "reflect"  # reflect | zero
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # area of the crop, for random_resized
    ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])  # width / height of the crop
    flip: bool | str = False  # horizontal, p = 0.5; "alternating": every image is flipped every other epoch
    color_jitter: dict[str, float] | None = None  # brightness, contrast, saturation, hue
    randaugment: dict[str, int] | None = None  # num_ops, magnitude
    random_erasing: float = 0.0  # probability
    mixup: float = 0.0  # alpha of the Beta distribution
    cutmix: float = 0.0  # alpha of the Beta distribution


@dataclass(frozen=True)
class DataSettings:
    """Which images, which rows, and how they reach the model."""

    name: str  # Hub id, local folder (parquet or class folders), or digits
    config: str | None = None  # configuration of a Hub data set
    revision: str | None = None
    image_column: str | None = None  # None: found by name and type
    label_column: str | None = None
    validation: float = 0.0  # fraction held out from train when there is no validation split; 0: no selection
    image_size: int | None = None  # pixels of the model's input; None: the model's own
    cache: str = "memory"  # memory | disk | device | none
    transforms: str = "device"  # where images are changed: device (batched) | loader (on the CPU, while loading)
    cache_size: int | None = None  # short side at which photographs are cached; None: image_size / 0.875
    cache_dir: str | None = None
    layout: str = "auto"  # auto | classes: every folder directly below data.name is a class
    on_bad_image: str = "error"  # error | skip
    max_pixels: int | None = 178_956_970  # width x height from which an image counts as unreadable; None: any size
    max_train_rows: int | None = None  # stratified, seeded
    max_test_rows: int | None = None
    progressive_resizing: dict[str, float] | None = None  # start (pixels), full_at (fraction of the epochs, 0.75)
    test_time_augmentation: str = "none"  # none | flip | flip_shift: evaluation takes the mean logits over views
    class_weights: str | list[float] | None = None  # "balanced", or a weight for each class, in the loss
    augment: AugmentSettings = field(default_factory=AugmentSettings)


CHOICES = {
    "model.task": ("image-classification",),
    "model.kernels": ("auto", "library"),
    "data.cache": ("memory", "disk", "device", "none"),
    "data.transforms": ("device", "loader"),
    "data.layout": ("auto", "classes"),
    "data.on_bad_image": ("error", "skip"),
    "data.test_time_augmentation": ("none", "flip", "flip_shift"),
    "data.augment.crop": ("none", "pad", "random_resized"),
    "data.augment.pad_mode": ("reflect", "zero"),
}
# inclusive lower bound, inclusive upper bound
RANGES = {
    "data.validation": (0.0, 0.9),
    "data.image_size": (4, 4096),
    "data.cache_size": (4, 8192),
    "data.max_pixels": (1, 10**12),
    "data.max_train_rows": (2, 10**12),
    "data.max_test_rows": (1, 10**12),
    "data.augment.pad": (0, 512),
    "data.augment.random_erasing": (0.0, 1.0),
    "data.augment.mixup": (0.0, 100.0),
    "data.augment.cutmix": (0.0, 100.0),
    "training.num_train_epochs": (1e-6, 1e9),
    "training.learning_rate": (0.0, 1e6),
    "training.per_device_train_batch_size": (1, 10**9),
    "training.per_device_eval_batch_size": (1, 10**9),
    "training.gradient_accumulation_steps": (1, 10**9),
    "training.dataloader_num_workers": (0, 4096),
    "training.label_smoothing_factor": (0.0, 0.999),
    "training.early_stopping_patience": (1, 10**9),
    "training.seed": (0, 2**32 - 1),
}
ONE_OF_TEXT = {"data.augment.flip": ("alternating",), "data.class_weights": ("balanced",)}
DICT_KEYS = {
    "data.progressive_resizing": ("start", "full_at"),
    "data.augment.color_jitter": ("brightness", "contrast", "saturation", "hue"),
    "data.augment.randaugment": ("num_ops", "magnitude"),
}


@cache
def training_types() -> dict[str, str]:
    """Names of TrainingArguments of the installed transformers, each with its annotation as text."""
    package = importlib.util.find_spec("transformers")
    source = Path(package.submodule_search_locations[0]) / "training_args.py"
    classes = (node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.ClassDef))
    arguments = next(node for node in classes if node.name == "TrainingArguments")
    names = {n.target.id: ast.unparse(n.annotation) for n in arguments.body if isinstance(n, ast.AnnAssign)}
    return {**names, **EARLY_STOPPING, KEEP_FREED_MEMORY: "bool"}


def settings_types(settings: type) -> dict[str, str]:
    return {f.name: f.type for f in fields(settings)}


def type_problem(value: Any, annotation: str) -> str | None:
    """What was expected, or None when the value fits an annotation such as `float | None`."""
    parts = [part.strip().strip("'\"") for part in annotation.split("|")]
    known = {"bool": bool, "int": int, "float": (int, float), "str": str, "None": type(None)}
    for part in parts:
        base = part.split("[")[0]
        if base in known:
            is_number = base in ("int", "float")
            if isinstance(value, known[base]) and not (is_number and isinstance(value, bool)):
                return None
            if base == "int" and isinstance(value, float) and value.is_integer():
                return None
        elif base == "list":
            if isinstance(value, (list, tuple)) and _all_fit(value, part):
                return None
        elif base == "dict":
            if isinstance(value, dict) and _all_fit(value.values(), part.split(",")[-1].strip()):
                return None
        elif isinstance(value, str):  # an enum of transformers: it names its own choices
            return None
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "None": "null"}
    expected = [words.get(p, "a list" if p.startswith("list") else "a mapping" if p.startswith("dict") else "text")
                for p in parts]  # fmt: skip
    return "expected " + " or ".join(dict.fromkeys(expected))


def _all_fit(values: Any, annotation: str) -> bool:
    inner = annotation.split("[")[-1].rstrip("]").strip()
    if inner in ("int", "float"):
        return all(type_problem(value, inner) is None for value in values)
    return True


def section_problems(where: str, section: str, values: Any, types: dict[str, str]) -> list[str]:
    """Unknown keys, wrong types and values out of range in one section, as messages."""
    if not isinstance(values, dict):
        return [f"{where}: {section} is {values!r}, expected a mapping of settings"]
    problems = []
    for key, value in values.items():
        name = f"{section}.{key}"
        if key not in types:
            what = "an argument of TrainingArguments" if section == "training" else "a setting"
            problems.append(f"{where}: {name} is not {what}. {did_you_mean(str(key), types)}")
            continue
        if types[key] == "AugmentSettings":
            problems += section_problems(where, name, value, settings_types(AugmentSettings))
            continue
        if name == "training.bf16" and value == "auto":
            continue
        expected = type_problem(value, types[key])
        if expected is None:
            expected = _value_problem(name, value)
        if expected is not None:
            problems.append(f"{where}: {name} is {value!r}, {expected}")
    return problems


def _value_problem(name: str, value: Any) -> str | None:
    if name in CHOICES and value not in CHOICES[name]:
        return f"expected one of {', '.join(CHOICES[name])}. {did_you_mean(str(value), list(CHOICES[name]))}"
    if name in ONE_OF_TEXT and isinstance(value, str) and value not in ONE_OF_TEXT[name]:
        return f"expected {' or '.join(ONE_OF_TEXT[name])}, or another type"
    if name in RANGES and isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = RANGES[name]
        if not low <= value <= high:
            return f"expected a number from {low:g} to {high:g}"
    if name in DICT_KEYS and isinstance(value, dict) and set(value) - set(DICT_KEYS[name]):
        return f"expected keys among {', '.join(DICT_KEYS[name])}"
    if name == "data.progressive_resizing" and value is not None:
        start, full_at = value.get("start", 4), value.get("full_at", 1)
        if not (start >= 4 and start % 1 == 0 and 0 < full_at <= 1):
            return "expected a start of a whole number of pixels, at least 4, and a full_at above 0, at most 1"
    if name in ("data.augment.scale", "data.augment.ratio") and not (
        len(value) == 2 and 0 < value[0] <= value[1] and (name.endswith("ratio") or value[1] <= 1)
    ):
        return "expected two rising numbers above 0" + ("" if name.endswith("ratio") else ", at most 1")
    return None
