"""Settings that contradict each other: refused from the recipe alone, before data, weights or a device are touched.

The checks take the sections as they stand in the merged recipe, so that these mistakes are reported together with those
in single values; a value of the wrong type never fails them.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Any

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.selection import selection_defaults
from hf_accel.config.sparsity_settings import sparsity_problems
from hf_accel.config.training import EARLY_STOPPING
from hf_accel.errors import UserError

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
        _rates_of_muon(training),
        *_nothing_to_select_by(data, training),
        *sparsity_problems(model, training),
    ]
    return [f"{where}: {problem}" for problem in found if problem] + _muon_problems(where, training)


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


def _nothing_to_select_by(data: dict[str, Any], training: dict[str, Any]) -> list[str]:
    if data.get("validation", 0) == 0 and any(name in training for name in EARLY_STOPPING):
        return ["training.early_stopping_patience needs validation rows. Set data.validation, for example 0.1."]
    return []


def selection_problems(where: str, recipe: dict[str, Any]) -> list[str]:
    """Messages about scoring, saving and selecting that contradict each other, in a recipe whose values have the right types."""
    training = {name: value for name, value in (recipe.get("training") or {}).items() if value is not None}
    try:
        selection_defaults(where, training, has_validation=recipe["data"].get("validation", 0) > 0)
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
