"""`training.quantization`. The method is methods/quantization_aware.py; its settings are checked without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from hf_accel.config.fields import KNOWN_ONLY, Number


@dataclass(frozen=True, config=KNOWN_ONLY)
class QuantizationSettings:
    """Weights and activations are rounded to int8 while the model trains, so that it learns to be exact as an int8 file."""

    begin: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.5, description="Share of the training steps after which weights and activations are rounded."
    )
    freeze: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=0.75,
        description="Share of the training steps after which the ranges of activations stay as they are.",
    )


def quantization_problems(model: dict[str, Any], training: dict[str, Any]) -> list[str]:
    """Settings of `training.quantization` that contradict each other or another section, as messages.

    Args:
        model, training: the sections of a merged recipe; a value of the wrong type is not judged here.
    """
    asked = training.get("quantization")
    if not isinstance(asked, dict):
        return []
    problems, where, defaults = [], "training.quantization", QuantizationSettings()
    begin, freeze = asked.get("begin", defaults.begin), asked.get("freeze", defaults.freeze)
    if _is_number(begin) and _is_number(freeze) and begin >= freeze:
        problems.append(f"{where}.begin is {begin}, expected a number below {where}.freeze, which is {freeze}.")
    problems += [
        f"{where} cannot be combined with {setting}, {why}. Leave one out."
        for setting, is_set, why in (
            ("model.lora", model.get("lora") is not None, "whose weights are whole only when the run ends"),
            (
                "model.freeze: backbone",
                model.get("freeze") == "backbone",
                "because most of the weights could not adapt",
            ),
            ("torch_compile: true", training.get("torch_compile") is True, "because layers change during the run"),
        )
        if is_set
    ]
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
