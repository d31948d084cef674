"""Settings that contradict each other: refused from the recipe alone, before data, weights or a device are touched.

The checks take the sections as they stand in the merged recipe, so that these mistakes are reported together with those
in single values; a value of the wrong type never fails them.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterator
from typing import Any

from hf_accel.config.channels import channel_problems
from hf_accel.config.domains import domain_problems
from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.optimizers import optimizer_problem
from hf_accel.config.quantization_settings import quantization_problems
from hf_accel.config.selection import selection_defaults
from hf_accel.config.sparsity_settings import sparsity_problems
from hf_accel.config.training import (
    DISTILLATION_TEMPERATURE,
    DISTILLATION_WEIGHT,
    EARLY_STOPPING,
    GRADUAL_UNFREEZING,
)
from hf_accel.errors import UserError, did_you_mean

# What each optimizer of PyTorch reads of training.optim_args. Those of other packages read what they like.
_OPTIM_ARGS: dict[str, tuple[str, ...]] = {
    "adamw_torch": (),
    "adamw_torch_fused": (),
    "adafactor": (),
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
}
_DEFAULT_OPTIM = "adamw_torch_fused"  # of TrainingArguments
_SWITCHES = ("nesterov", "centered")
_LONGEST_NAME = 200  # bytes; a file system allows 255, and other words join it


def contradictions(where: str, recipe: dict[str, Any]) -> list[str]:
    """Messages about settings that cannot be combined.

    Args:
        recipe: the merged recipe; only sections that are mappings are checked.
    """
    model, data, training = (
        recipe[section] if isinstance(recipe.get(section), dict) else {} for section in ("model", "data", "training")
    )
    found = [
        _weights_that_do_not_exist(model),
        _pixels_out_of_reach(data),
        _two_precisions(training),
        _two_losses(training),
        _student_without_teacher(model, training),
        *domain_problems(model, data, training, recipe.get("compress")),
        *_two_choices_of_rows(data),
        *_out_of_a_stream(model, data),
        *_rows_of_a_table(data),
        *channel_problems(model, data, training, recipe.get("compress")),
        _rates_of_muon(training),
        _layers_that_join(model, training),
        _no_room_for_adapters(model, training),
        *_nothing_to_select_by(data, training),
        _steps_that_cannot_be_repeated(training),
        *sparsity_problems(model, training),
        *quantization_problems(model, training),
    ]
    of_optimizer = optimizer_problem(where, training)
    return [
        *(f"{where}: {problem}" for problem in found if problem),
        *_muon_problems(where, training),
        *([of_optimizer] if of_optimizer else _optimizer_problems(where, training)),
    ]


def folder_name_problem(name: Any) -> str | None:
    """What is expected of the name of a recipe or a variant, which becomes the name of a folder; None if it is valid.

    >>> folder_name_problem("vit_cifar10") is None
    True
    >>> folder_name_problem("../x")
    'expected a name that a folder can have, without slashes and control characters'
    """
    if isinstance(name, bool) or not isinstance(name, str | int):
        return "expected text"
    name = str(name)
    odd = any(letter in "/\\" or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    if odd or not name.strip(". \t"):
        return "expected a name that a folder can have, without slashes and control characters"
    return f"expected at most {_LONGEST_NAME} bytes" if len(os.fsencode(name)) > _LONGEST_NAME else None


def _weights_that_do_not_exist(model: dict[str, Any]) -> str | None:
    name = model.get("name")
    if isinstance(name, str) and name.startswith("hf_accel/") and model.get("pretrained", True) is True:
        return f"model.name: {name} has no pretrained weights. Set model.pretrained to false to train it from scratch."
    return None


def _pixels_out_of_reach(data: dict[str, Any]) -> str | None:
    if data.get("transforms") == "loader" and data.get("cache") == "device":
        return (
            "data.transforms is loader and data.cache is device, but the loader has no pixels that are on "
            "the device. Set data.transforms: device, or data.cache: memory."
        )
    return None


def _two_precisions(training: dict[str, Any]) -> str | None:
    if training.get("fp16") is True and training.get("bf16") is True:
        return "training.fp16 and training.bf16 are both true, expected at most one of them"
    return None


def _two_losses(training: dict[str, Any]) -> str | None:
    if training.get("focal_gamma") and training.get("generalized_cross_entropy"):
        return "training.focal_gamma and training.generalized_cross_entropy are both set, expected at most one of them"
    return None


def _student_without_teacher(model: dict[str, Any], training: dict[str, Any]) -> str | None:
    found = [name for name in (DISTILLATION_WEIGHT, DISTILLATION_TEMPERATURE) if training.get(name)]
    if not found or model.get("teacher") is not None:
        return None
    return f"training.{found[0]} has no effect without a teacher. Set model.teacher, or leave {found[0]} out."


def _two_choices_of_rows(data: dict[str, Any]) -> Iterator[str]:
    is_balanced, has_hard = data.get("sampling") == "balanced", data.get("hard_examples") is not None
    if is_balanced and data.get("class_weights") == "balanced":
        yield (
            "data.sampling and data.class_weights are both balanced, which corrects for the same imbalance twice. Leave one of "
            "the two out."
        )
    if is_balanced and has_hard:
        yield "data.sampling is balanced and data.hard_examples is set, and each chooses the rows of an epoch. Leave one out."
    augment = data.get("augment")
    mixed = [name for name in ("mixup", "cutmix") if isinstance(augment, dict) and augment.get(name)]
    if has_hard and mixed:
        yield (
            f"data.hard_examples needs the loss of each image, and data.augment.{mixed[0]} blends two images. Leave one of the "
            "two out."
        )


def _out_of_a_stream(model: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    """Settings that need rows in any order, which shards do not give."""
    if data.get("streaming") is not True:
        if data.get("shuffle_buffer") is not None:
            yield "data.shuffle_buffer has no effect without data.streaming. Set data.streaming: true, or leave it out."
        return
    if data.get("cache") not in (None, "none"):
        yield f"data.streaming keeps no decoded image, and data.cache is {data['cache']}. Set data.cache: none, or leave it out."
    if data.get("sampling") == "balanced":
        yield (
            "data.streaming reads rows in the order of their shards, and data.sampling: balanced repeats rows of small classes. "
            "Set data.class_weights: balanced instead, or leave data.streaming out."
        )
    for section, settings, name, fix in (
        ("data", data, "hard_examples", "Leave one of the two out."),
        ("data", data, "labels", "Leave one of the two out."),
        ("data", data, "group_column", "Bring the splits in files of their own."),
        ("data", data, "folds", "Leave one of the two out."),
        ("data", data, "max_train_rows", "Set training.max_steps instead, or leave data.streaming out."),
        ("model", model, "whiten_stem", "Leave one of the two out."),
    ):
        if settings.get(name) not in (None, False):
            yield (
                f"data.streaming reads rows in the order of their shards, and {section}.{name} takes training rows from all over "
                f"the data. {fix}"
            )


def _rows_of_a_table(data: dict[str, Any]) -> Iterator[str]:
    """Settings of `data.labels` and `data.folds` that have no effect, or none together."""
    if data.get("split_column") is not None and data.get("labels") is None:
        yield "data.split_column is a column of data.labels, which is not set. Set data.labels, or leave it out."
    if data.get("labels") is not None and data.get("layout") == "classes":
        yield "data.labels names the classes, and data.layout: classes takes those of the folders. Leave one of the two out."
    folds, fold = data.get("folds"), data.get("fold", 0)
    if folds is None and fold != 0:
        yield "data.fold is one of the parts of data.folds, which is not set. Set data.folds, for example 5, or leave it out."
    if isinstance(folds, int) and isinstance(fold, int) and fold >= folds:
        yield f"data.fold is {fold}, expected 0 to {folds - 1} for data.folds: {folds}"


def has_validation(data: dict[str, Any]) -> bool:
    """Whether the section `data` of a recipe asks for a validation split; see `DataSettings.selects`."""
    share = data.get("validation", 0)
    return data.get("folds") is not None or (isinstance(share, int | float) and share > 0)


def _rates_of_muon(training: dict[str, Any]) -> str | None:
    if training.get("optim") != "muon":
        return None
    if training.get("head_learning_rate") is not None:
        return "training.head_learning_rate cannot be combined with optim: muon. Set optim_args: head_lr=... instead."
    if training.get("layer_decay") not in (None, 1, 1.0):
        return (
            "training.layer_decay cannot be combined with optim: muon, whose steps have the same size in every layer."
        )
    return None


def _layers_that_join(model: dict[str, Any], training: dict[str, Any]) -> str | None:
    if training.get(GRADUAL_UNFREEZING) is None:
        return None
    if model.get("freeze") == "backbone":
        return (
            "training.gradual_unfreezing is set and model.freeze is backbone, so no layer could join. Leave freeze out: the "
            "classifier alone learns at first."
        )
    for name, value in (("torch_compile", True), ("ddp_static_graph", True), ("ddp_find_unused_parameters", False)):
        if training.get(name) is value:
            return (
                f"training.gradual_unfreezing cannot be combined with {name}: {str(value).lower()}, because the parameters that "
                "learn change during the run. Leave one of the two out."
            )
    return None


def _no_room_for_adapters(model: dict[str, Any], training: dict[str, Any]) -> str | None:
    if model.get("lora") is None:
        return None
    if model.get("freeze") == "backbone":
        return "model.lora and model.freeze: backbone leave no layer for an adapter. Leave one of the two out."
    if model.get("whiten_stem") is True:
        return "model.lora cannot be combined with model.whiten_stem, which changes the weights that lora keeps."
    if training.get("optim") == "muon":
        return (
            "model.lora cannot be combined with training.optim: muon, whose steps are for whole weights. Choose another "
            "optimizer, for example adamw_torch."
        )
    kwargs = training.get("gradient_checkpointing_kwargs") or training.get("activation_checkpointing_kwargs")
    if isinstance(kwargs, dict) and kwargs.get("use_reentrant"):
        return (
            "model.lora: with use_reentrant: true no adapter gets a gradient. Set use_reentrant to false, the default."
        )
    return None


def _nothing_to_select_by(data: dict[str, Any], training: dict[str, Any]) -> list[str]:
    if not has_validation(data) and any(name in training for name in EARLY_STOPPING):
        return ["training.early_stopping_patience needs validation rows. Set data.validation, for example 0.1."]
    return []


def _steps_that_cannot_be_repeated(training: dict[str, Any]) -> str | None:
    optim = training.get("optim")
    if training.get("auto_find_batch_size") is not True:
        return None
    if isinstance(optim, str) and optim.endswith(("lomo", "layerwise")):
        return (
            f"training.auto_find_batch_size repeats a step in which memory ran out, and optim: {optim} changes the weights in "
            "the middle of it. Choose another optimizer, or leave auto_find_batch_size out."
        )
    if training.get("ddp_static_graph") is True:
        return (
            "training.auto_find_batch_size repeats a step in which memory ran out with more forward passes, and "
            "ddp_static_graph promises that all steps have as many. Leave one of them out."
        )
    return None


def selection_problems(where: str, recipe: dict[str, Any]) -> list[str]:
    """Messages about scoring, saving and selecting that contradict each other, in a recipe whose values have the right types."""
    training = {name: value for name, value in (recipe.get("training") or {}).items() if value is not None}
    try:
        task = recipe["model"].get("task")
        selection_defaults(where, training, has_validation=has_validation(recipe["data"]), task=task)
    except UserError as error:
        return [str(error)]
    return []


def _muon_problems(where: str, training: dict[str, Any]) -> list[str]:
    text = training.get("optim_args")
    if training.get("optim") != "muon" or not isinstance(text, str):
        return []
    try:
        MuonSettings.parse(where, text)
    except UserError as error:
        return [str(error)]
    return []


def _optimizer_problems(where: str, training: dict[str, Any]) -> list[str]:
    text, optim = training.get("optim_args"), training.get("optim") or _DEFAULT_OPTIM
    if not (isinstance(text, str) and text.strip() and isinstance(optim, str) and optim in _OPTIM_ARGS):
        return []
    known = _OPTIM_ARGS[optim]
    if not known:
        return [
            f"{where}: training.optim_args is {text!r}, which has no effect with optim: {optim}. Leave it out, or set optim to "
            "an optimizer that reads it, for example sgd."
        ]
    problems = [_optimizer_argument_problem(part, optim) for part in text.replace(" ", "").split(",")]
    return [f"{where}: training.optim_args: {problem}" for problem in problems if problem]


def _optimizer_argument_problem(part: str, optim: str) -> str | None:
    name, _, value = part.partition("=")
    if name not in _OPTIM_ARGS[optim]:
        return f"{optim} takes no {name!r}. {did_you_mean(name, list(_OPTIM_ARGS[optim]))}"
    if name in _SWITCHES:
        return None if value in ("true", "false") else f"{name} is {value!r}, expected true or false"
    return None if _is_finite(value) else f"{name} is {value!r}, expected a number"


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
