"""The settings of `model:`, `data:` and `push:`. Type, choices, range, default and meaning of a setting stand at its field.

The checks at load, the JSON Schema of `hf-accel recipe schema` and docs/recipe.md are made from these fields.
`training:` is TrainingArguments, name for name: see config/training.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

# Strict types: true is not a number, and "2" is not one either; 2.0 is a whole number.
Whole = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_KNOWN_ONLY = ConfigDict(extra="forbid")


def _rising(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError("expected two rising numbers")
    return pair


def _expected(words: str) -> dict[str, JsonValue]:
    """The words of a message, where the type and the range of a setting do not say what is expected."""
    return {"expected": words}


Share = Annotated[Number, Field(gt=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]


@dataclass(frozen=True, config=_KNOWN_ONLY)
class LoraSettings:
    """Low-rank adapters, which learn in place of the weights of the backbone (https://arxiv.org/abs/2106.09685)."""

    rank: Annotated[StrictInt, Field(ge=1, le=4096), Whole] = Field(
        default=8, description="Rank of the product that is added to a weight."
    )
    alpha: Number = Field(default=16.0, gt=0, description="The product is scaled by alpha / rank.")
    dropout: Number = Field(default=0.0, ge=0, lt=1, description="Dropout of what an adapter reads.")
    targets: Literal["auto"] | Annotated[list[StrictStr], Field(min_length=1)] = Field(
        default="auto",
        description="Layers that get an adapter, by the end of their names; auto: the linear layers, and where convolutions hold "
        "more weights than they, both.",
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class ModelSettings:
    """Which network, and how it is prepared for training."""

    name: StrictStr = Field(
        description="A Hub id, timm/NAME, hf_accel/NAME (the networks of this package), or a local folder.",
        examples=["timm/resnet50.a1_in1k"],
    )
    pretrained: StrictBool = Field(default=True, description="false: the architecture with random weights.")
    revision: StrictStr | None = Field(
        default=None, description="Branch, tag or commit of the model on the Hub.", examples=["main"]
    )
    task: Literal["image-classification"] = Field(
        default="image-classification", description="What the model is trained for."
    )
    args: dict[Any, Any] = Field(
        default_factory=dict,
        description="Arguments of the timm model, or settings that replace those of a transformers config.",
        examples=[{"drop_path_rate": 0.1}],
    )
    dropout: Number | None = Field(
        default=None, ge=0, lt=1, description="Dropout of a timm model; null: the architecture's own.", examples=[0.1]
    )
    drop_path: Number | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Stochastic depth of a timm model: rate of the last residual branch; null: the architecture's own.",
        examples=[0.1],
    )
    activation: StrictStr | None = Field(
        default=None,
        description="Activation of a timm model, by timm's name; null: the architecture's own.",
        examples=["leaky_relu"],
    )
    channels_last: StrictBool = Field(
        default=False, description="NHWC weights: faster convolutions on most devices, no gain for ViT."
    )
    freeze_batch_norm: StrictBool = Field(
        default=False,
        description="Batch-norm layers keep their pretrained statistics, for small data sets.",
        examples=[True],
    )
    freeze: Literal["none", "backbone"] | Annotated[StrictInt, Field(ge=0, le=10_000), Whole] = Field(
        default="none",
        description="backbone: only the classifier learns; a number: the stem and that many layers after it do not learn.",
        examples=[4],
    )
    lora: LoraSettings | None = Field(
        default=None,
        description="Low-rank adapters, merged into plain weights at the end; the classifier learns in full; {} takes the "
        "defaults.",
        examples=[{"rank": 8, "alpha": 16}],
    )
    whiten_stem: StrictBool = Field(
        default=False, description="The first convolution becomes a fixed whitening of the training images' patches."
    )
    kernels: Literal["auto", "library"] = Field(
        default="auto",
        description="auto: on a CPU, bf16 operations that PyTorch computes slowly are replaced; library: none are.",
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class ColorJitter:
    """Strengths as in torchvision's ColorJitter; 0 is off."""

    brightness: Number = Field(
        default=0.0, ge=0, description="The brightness is multiplied by 1 plus or minus at most this."
    )
    contrast: Number = Field(
        default=0.0, ge=0, description="The contrast is multiplied by 1 plus or minus at most this."
    )
    saturation: Number = Field(
        default=0.0, ge=0, description="The saturation is multiplied by 1 plus or minus at most this."
    )
    hue: Number = Field(
        default=0.0, ge=0, le=0.5, description="The colour circle is turned by at most this part of a turn."
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class RandAugment:
    """RandAugment with torchvision's operations (https://arxiv.org/abs/1909.13719)."""

    num_ops: Annotated[StrictInt, Field(ge=0, le=100), Whole] = Field(default=2, description="Operations per image.")
    magnitude: Annotated[StrictInt, Field(ge=0, le=30), Whole] = Field(
        default=9, description="Strength of every operation."
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class AugmentSettings:
    """Random changes to a training image, applied to whole batches on the training device. Absent means off."""

    crop: Literal["none", "pad", "random_resized"] = Field(
        default="none", description="pad: a shifted window of the padded image; random_resized: a random part, resized."
    )
    pad: Annotated[StrictInt, Field(ge=0, le=512), Whole] = Field(
        default=4, description="Pixels of the stored image that are added on each side, for crop: pad."
    )
    pad_mode: Literal["reflect", "zero"] = Field(
        default="reflect", description="What the added pixels are, for crop: pad."
    )
    scale: Annotated[list[Share], Field(min_length=2, max_length=2), AfterValidator(_rising)] = Field(
        default_factory=lambda: [0.08, 1.0],
        description="Smallest and largest area of a crop, as a share of the image, for crop: random_resized.",
        json_schema_extra=_expected("two rising numbers above 0, at most 1"),
    )
    ratio: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(_rising)] = Field(
        default_factory=lambda: [0.75, 4 / 3],
        description="Smallest and largest width / height of a crop, for crop: random_resized.",
        json_schema_extra=_expected("two rising numbers above 0"),
    )
    flip: StrictBool | Literal["alternating"] = Field(
        default=False,
        description="Horizontal flips with probability 0.5; alternating: every image is flipped in every other epoch.",
    )
    color_jitter: ColorJitter | None = Field(
        default=None,
        description="Random brightness, contrast, saturation and hue.",
        examples=[{"brightness": 0.4, "hue": 0.1}],
    )
    randaugment: RandAugment | None = Field(
        default=None, description="RandAugment; {} takes its defaults.", examples=[{"num_ops": 2, "magnitude": 9}]
    )
    random_erasing: Number = Field(
        default=0.0, ge=0, le=1, description="Probability that a rectangle of an image is erased.", examples=[0.25]
    )
    mixup: Number = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Alpha of the Beta distribution by which two images are blended; 0: off.",
        examples=[0.2],
    )
    cutmix: Number = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Alpha of the Beta distribution of the part that another image replaces; 0: off.",
        examples=[1.0],
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class ProgressiveResizing:
    """Training images that grow by epoch from a smaller size to the model's own."""

    start: Annotated[StrictInt, Field(ge=4), Whole] = Field(
        description="Side of the first epoch's images.",
        json_schema_extra=_expected("a whole number of pixels, at least 4"),
    )
    full_at: Number = Field(
        default=0.75, gt=0, le=1, description="Fraction of the epochs after which images have full size."
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class DataSettings:
    """Which images, which rows, and how they reach the model."""

    name: StrictStr = Field(
        description="A Hub id, a local folder (parquet files or class folders), or digits.", examples=["./photos"]
    )
    config: StrictStr | None = Field(default=None, description="Configuration of a Hub data set.")
    revision: StrictStr | None = Field(
        default=None, description="Branch, tag or commit of the data set on the Hub.", examples=["main"]
    )
    image_column: StrictStr | None = Field(
        default=None, description="Column of the images; null: found by name and type."
    )
    label_column: StrictStr | None = Field(
        default=None, description="Column of the labels; null: found by name and type.", examples=["fine_label"]
    )
    validation: Number = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Fraction held out from train where there is no validation split; 0: all rows train, the last weights stay.",
        examples=[0.1],
    )
    image_size: Annotated[StrictInt, Field(ge=4, le=4096), Whole] | None = Field(
        default=None, description="Side of the model's input in pixels; null: the model's own.", examples=[224]
    )
    max_pixels: Annotated[StrictInt, Field(ge=1), Whole] | None = Field(
        default=178_956_970,  # the limit of PIL itself: twice Image.MAX_IMAGE_PIXELS
        description="Images with more pixels are refused as unreadable; null: no limit.",
    )
    cache: Literal["memory", "disk", "device", "none"] = Field(
        default="memory", description="Where decoded images are kept; none: every epoch decodes them again."
    )
    transforms: Literal["device", "loader"] = Field(
        default="device",
        description="Where images are changed: in batches on the training device, or on the CPU while loading.",
    )
    cache_size: Annotated[StrictInt, Field(ge=4, le=8192), Whole] | None = Field(
        default=None,
        description="Short side in pixels at which photographs are cached; null: the model's input / 0.875.",
    )
    cache_dir: StrictStr | None = Field(
        default=None,
        description="Folder of cache: disk; null: hf_accel in $HF_HOME, or else in the user's folder of caches.",
    )
    layout: Literal["auto", "classes"] = Field(
        default="auto",
        description="classes: every folder directly below data.name is a class, even one that is called test or train.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        default="error",
        description="What an unreadable image does: it ends the run, or is left out and counted.",
        examples=["skip"],
    )
    max_train_rows: Annotated[StrictInt, Field(ge=2), Whole] | None = Field(
        default=None, description="Train on this many rows at most, drawn by class with the seed.", examples=[1000]
    )
    max_test_rows: Annotated[StrictInt, Field(ge=1), Whole] | None = Field(
        default=None, description="Score this many test rows at most, drawn by class with the seed."
    )
    progressive_resizing: ProgressiveResizing | None = Field(
        default=None,
        description="Training images that grow by epoch from a smaller size to the model's own.",
        examples=[{"start": 128, "full_at": 0.75}],
    )
    test_time_augmentation: Literal["none", "flip", "flip_shift"] = Field(
        default="none",
        description="Evaluation takes the mean logits over two (flip) or six (flip_shift) views of an image.",
    )
    class_weights: Literal["balanced"] | list[Annotated[Number, Field(ge=0)]] | None = Field(
        default=None,
        description="Weights of the classes in the training loss: balanced (by their rows), or one number per class.",
        examples=["balanced"],
    )
    augment: AugmentSettings = Field(
        default_factory=AugmentSettings, description="Random changes to a training image; absent means off."
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class PushSettings:
    """What of a run is published with its model; `training.push_to_hub` and `hf-accel push` publish it."""

    examples: StrictBool | None = Field(
        default=None,
        description="Whether three test images, with the model's answers, are published with the model; null: only those of "
        "a data set that is public, never those of a local folder.",
        examples=[True],
    )


SECTIONS: dict[str, type] = {"model": ModelSettings, "data": DataSettings, "push": PushSettings}


def choices(setting: str) -> tuple[str, ...]:
    """The values that a setting with choices may have.

    >>> choices("data.test_time_augmentation")
    ('none', 'flip', 'flip_shift')
    """
    section, name = setting.split(".")
    return get_args(get_type_hints(SECTIONS[section])[name])
