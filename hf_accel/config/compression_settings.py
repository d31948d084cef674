"""What `hf-accel compress`, and a recipe with `compress:`, write and measure; checked without torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from hf_accel.config.fields import KNOWN_ONLY, Probability, Whole

Format = Literal["int8", "int8_dynamic", "fp16", "bf16"]
FORMATS: tuple[Format, ...] = get_args(Format)
Images = Annotated[StrictInt, Field(ge=1), Whole]


@dataclass(frozen=True, config=KNOWN_ONLY)
class CompressionSettings:
    """The ONNX files of a trained model: float32, and the formats that are asked for."""

    formats: list[Format] = Field(
        default_factory=list,
        description="Files next to the float32 one. int8: weights and activations, calibrated on training images; "
        "int8_dynamic: weights of linear layers, activations as they come; fp16, bf16: stored weights.",
        examples=[["int8", "fp16"]],
    )
    max_drop: Probability = Field(
        default=0.01, description="Accuracy that a file may lose against the float32 one, else it is not written."
    )
    images: Images = Field(default=1000, description="Images that are compared, test images first.")
    calibration_images: Images = Field(
        default=512, description="Training images that the ranges of int8 activations are taken from."
    )
    keep: StrictBool = Field(
        default=False, description="Write a file even if it is slower than the float32 one or loses more than max_drop."
    )
