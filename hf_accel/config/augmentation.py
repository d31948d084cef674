"""The settings of `data.augment`. Their names, ranges and defaults are those of torchvision.transforms.v2."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, StrictBool, StrictInt, model_validator
from pydantic.dataclasses import dataclass

from hf_accel.config.fields import (
    KNOWN_ONLY,
    Number,
    Positive,
    Probability,
    Share,
    Whole,
    expected_words,
    rising,
)

Degrees = Annotated[Number, Field(ge=0, le=360)]
TwoRising = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(rising)]
_ANGLES = "an angle from 0 to 360, for -angle to angle, or two rising angles"


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("expected an odd number")
    return number


def _two_risings(four: list[float]) -> list[float]:
    rising(four[:2])
    rising(four[2:])
    return four


def _two(values: list[float], words: str, description: str) -> list[float]:
    """A setting of two numbers, whose default is in the schema too: pydantic leaves out those of a default_factory."""
    extra: dict[str, JsonValue] = {**expected_words(words), "default": [*values]}
    return Field(default_factory=lambda: list(values), description=description, json_schema_extra=extra)


def _always() -> float:
    return Field(default=1.0, description="Probability that an image is changed.")


def _sometimes(alone: float) -> float | None:
    return Field(default=None, description=f"Probability that an image is changed; null: {alone}, and 1 in a chain.")


@dataclass(frozen=True, config=KNOWN_ONLY)
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
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class Rotation:
    """torchvision's RandomRotation, bilinear; what lies outside the image is black, here and in the other warps."""

    degrees: Degrees | TwoRising = Field(
        description="An angle is drawn from -degrees to degrees, or between two.",
        json_schema_extra=expected_words(_ANGLES),
    )
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class Affine:
    """torchvision's RandomAffine, bilinear."""

    degrees: Degrees | TwoRising = Field(
        default=0.0,
        description="The angle of the rotation is drawn from -degrees to degrees, or between two.",
        json_schema_extra=expected_words(_ANGLES),
    )
    translate: Annotated[list[Probability], Field(min_length=2, max_length=2)] = _two(
        [0.0, 0.0],
        "two numbers from 0 to 1",
        "Largest shift to either side, as a share of the width and of the height.",
    )
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(rising)] = _two(
        [1.0, 1.0], "two rising numbers above 0", "Smallest and largest factor of the size."
    )
    shear: (
        Annotated[Number, Field(ge=0, lt=90)]
        | TwoRising
        | Annotated[list[Number], Field(min_length=4, max_length=4), AfterValidator(_two_risings)]
    ) = Field(
        default=0.0,
        description="The angle of the shear along x is drawn from -shear to shear, or between two; with four, that along y "
        "between the last two.",
        json_schema_extra=expected_words("an angle from 0, below 90, or two or four angles, each two of them rising"),
    )
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class Perspective:
    """torchvision's RandomPerspective, bilinear."""

    distortion_scale: Probability = Field(
        default=0.5, description="Each corner moves inwards by at most this share of half the image."
    )
    p: Probability | None = _sometimes(0.5)


@dataclass(frozen=True, config=KNOWN_ONLY)
class Elastic:
    """torchvision's ElasticTransform, bilinear."""

    alpha: Annotated[Number, Field(ge=0)] = Field(default=50.0, description="Magnitude of the displacements.")
    sigma: Positive = Field(default=5.0, description="Smoothness of the displacements, in pixels.")
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class Solarize:
    """torchvision's RandomSolarize."""

    threshold: Number = Field(default=128.0, ge=0, le=255, description="Levels from this one on are inverted.")
    p: Probability | None = _sometimes(0.5)


@dataclass(frozen=True, config=KNOWN_ONLY)
class Invert:
    """torchvision's RandomInvert."""

    p: Probability | None = _sometimes(0.5)


@dataclass(frozen=True, config=KNOWN_ONLY)
class Grayscale:
    """torchvision's RandomGrayscale."""

    p: Probability | None = _sometimes(0.1)


@dataclass(frozen=True, config=KNOWN_ONLY)
class Blur:
    """torchvision's GaussianBlur."""

    kernel_size: Annotated[StrictInt, Field(ge=3, le=255), AfterValidator(_odd), Whole] = Field(
        default=5,
        description="Side of the kernel in pixels.",
        json_schema_extra=expected_words("an odd whole number from 3 to 255"),
    )
    sigma: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(rising)] = _two(
        [0.1, 2.0], "two rising numbers above 0", "Smallest and largest standard deviation in pixels."
    )
    p: Probability = _always()


_CHAINABLE = "color_jitter, rotation, affine, perspective, elastic, solarize, invert, grayscale, blur"
_ONE_ONLY = ConfigDict(
    extra="forbid",
    json_schema_extra={
        "minProperties": 1,
        "maxProperties": 1,
        **expected_words(f"a mapping of exactly one of {_CHAINABLE}"),
    },
)


@dataclass(frozen=True, config=_ONE_ONLY)
class ChainedOperation:
    """One operation of a chain: exactly one of the settings is given."""

    color_jitter: ColorJitter | None = Field(default=None, description="See color_jitter.")
    rotation: Rotation | None = Field(default=None, description="See rotation.")
    affine: Affine | None = Field(default=None, description="See affine.")
    perspective: Perspective | None = Field(default=None, description="See perspective.")
    elastic: Elastic | None = Field(default=None, description="See elastic.")
    solarize: Solarize | None = Field(default=None, description="See solarize.")
    invert: Invert | None = Field(default=None, description="See invert.")
    grayscale: Grayscale | None = Field(default=None, description="See grayscale.")
    blur: Blur | None = Field(default=None, description="See blur.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.given()) != 1:
            raise ValueError("expected exactly one operation")
        return self

    def given(self) -> dict[str, Any]:
        """The name of the operation and its settings."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, config=KNOWN_ONLY)
class Chain:
    """Operations in the order given, with one probability for all of them, as torchvision's RandomApply."""

    operations: Annotated[list[ChainedOperation], Field(min_length=1, max_length=16)] = Field(
        description="The operations, with the settings that they have alone; p of an operation is its probability within "
        "the chain.",
        json_schema_extra=expected_words(
            f"a list of 1 to 16 operations, each a mapping of exactly one of {_CHAINABLE}"
        ),
    )
    p: Probability = Field(default=0.5, description="Probability that the chain is applied to an image.")


@dataclass(frozen=True, config=KNOWN_ONLY)
class RandAugment:
    """RandAugment with torchvision's operations (https://arxiv.org/abs/1909.13719)."""

    num_ops: Annotated[StrictInt, Field(ge=0, le=100), Whole] = Field(default=2, description="Operations per image.")
    magnitude: Annotated[StrictInt, Field(ge=0, le=30), Whole] = Field(
        default=9, description="Strength of every operation."
    )


@dataclass(frozen=True, config=KNOWN_ONLY)
class TrivialAugment:
    """torchvision's TrivialAugmentWide (https://arxiv.org/abs/2103.10158)."""

    num_magnitude_bins: Annotated[StrictInt, Field(ge=2, le=100), Whole] = Field(
        default=31, description="Strengths to draw from."
    )
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class AugMix:
    """torchvision's AugMix (https://arxiv.org/abs/1912.02781), without its loss."""

    severity: Annotated[StrictInt, Field(ge=1, le=10), Whole] = Field(
        default=3, description="Strength of the operations."
    )
    mixture_width: Annotated[StrictInt, Field(ge=1, le=10), Whole] = Field(
        default=3, description="Chains of operations that are mixed."
    )
    chain_depth: Annotated[StrictInt, Field(ge=1, le=10), Whole] | None = Field(
        default=None, description="Operations of each chain; null: 1, 2 or 3, drawn."
    )
    alpha: Annotated[Number, Field(ge=0.01, le=100)] = Field(
        default=1.0, description="Parameter of the distributions of the shares in the mixture."
    )
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
class Cutout:
    """A square that is erased, clipped at the border (https://arxiv.org/abs/1708.04552)."""

    size: Share = Field(default=0.5, description="Side of the square, as a share of the image's shorter side.")
    fill: Literal["mean", "zero"] = Field(
        default="mean", description="mean: the square gets the mean colour of the model's normalisation; zero: black."
    )
    p: Probability = _always()


@dataclass(frozen=True, config=KNOWN_ONLY)
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
    scale: Annotated[list[Share], Field(min_length=2, max_length=2), AfterValidator(rising)] = Field(
        default_factory=lambda: [0.08, 1.0],
        description="Smallest and largest area of a crop, as a share of the image, for crop: random_resized.",
        json_schema_extra=expected_words("two rising numbers above 0, at most 1"),
    )
    ratio: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(rising)] = Field(
        default_factory=lambda: [0.75, 4 / 3],
        description="Smallest and largest width / height of a crop, for crop: random_resized.",
        json_schema_extra=expected_words("two rising numbers above 0"),
    )
    flip: StrictBool | Literal["alternating"] = Field(
        default=False,
        description="Horizontal flips with probability 0.5; alternating: every image is flipped in every other epoch.",
    )
    rotation: Rotation | None = Field(
        default=None, description="Rotation about the centre.", examples=[{"degrees": 15}]
    )
    affine: Affine | None = Field(
        default=None,
        description="Rotation, shift, scale and shear.",
        examples=[{"translate": [0.1, 0.1], "scale": [0.9, 1.1], "shear": 10}],
    )
    perspective: Perspective | None = Field(
        default=None,
        description="The image as seen from another place.",
        examples=[{"distortion_scale": 0.2, "p": 0.5}],
    )
    elastic: Elastic | None = Field(
        default=None, description="Smooth displacements of the pixels.", examples=[{"alpha": 30.0, "p": 0.5}]
    )
    color_jitter: ColorJitter | None = Field(
        default=None,
        description="Random brightness, contrast, saturation and hue.",
        examples=[{"brightness": 0.4, "hue": 0.1}],
    )
    solarize: Solarize | None = Field(default=None, description="Inverts bright levels.", examples=[{"p": 0.2}])
    invert: Invert | None = Field(default=None, description="Inverts all levels.", examples=[{"p": 0.1}])
    grayscale: Grayscale | None = Field(default=None, description="Removes the colour.", examples=[{"p": 0.2}])
    blur: Blur | None = Field(default=None, description="Gaussian blur.", examples=[{"kernel_size": 5, "p": 0.3}])
    chain: Chain | None = Field(
        default=None,
        description="Operations in the order given, with one probability for all of them.",
        examples=[{"p": 0.5, "operations": [{"rotation": {"degrees": 15}}, {"invert": {}}]}],
    )
    randaugment: RandAugment | None = Field(
        default=None, description="RandAugment; {} takes its defaults.", examples=[{"num_ops": 2, "magnitude": 9}]
    )
    trivial_augment: TrivialAugment | None = Field(
        default=None, description="TrivialAugment (wide); {} takes its defaults.", examples=[{}]
    )
    augmix: AugMix | None = Field(
        default=None, description="AugMix; {} takes its defaults.", examples=[{"severity": 3}]
    )
    random_erasing: Number = Field(
        default=0.0, ge=0, le=1, description="Probability that a rectangle of an image is erased.", examples=[0.25]
    )
    cutout: Cutout | None = Field(
        default=None, description="Cutout: a square of fixed size is erased.", examples=[{"size": 0.5}]
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

    def switched_on(self) -> dict[str, Any]:
        """The settings that change an image, without those of crops that are not made and without nulls; plain values."""
        own = _without_nulls(plain_settings(self))
        values = {name: value for name, value in own.items() if value not in (False, 0, "none")}
        needless = {"none": ("pad", "pad_mode", "scale", "ratio"), "pad": ("scale", "ratio")}
        without = needless.get(self.crop, ("pad", "pad_mode"))
        return {name: value for name, value in values.items() if name not in without}


def plain_settings(augment: AugmentSettings) -> dict[str, Any]:
    """Plain values, as they stand in a recipe: an operation of a chain is a mapping of one name."""
    values = dataclasses.asdict(augment)
    if values["chain"] is not None:
        values["chain"]["operations"] = [
            {name: settings for name, settings in operation.items() if settings is not None}
            for operation in values["chain"]["operations"]
        ]
    return values


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(part) for name, part in value.items() if part is not None}
