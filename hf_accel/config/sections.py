"""The settings of each section but `training:`. Type, choices, range, default and meaning of a setting stand at its field.

The checks at load, the JSON Schema of `hf-accel recipe schema` and docs/recipe.md are made from these fields.
`training:` is TrainingArguments, name for name: see config/training.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field, StrictBool, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.config.fields import KNOWN_ONLY, Number, Whole, expected_words
from hf_accel.errors import UserError


@dataclass(frozen=True, config=KNOWN_ONLY)
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


@dataclass(frozen=True, config=KNOWN_ONLY)
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
    teacher: StrictStr | None = Field(
        default=None,
        description="A fine-tuned model of the same classes, by its Hub id or local folder, whose answers this one learns too.",
        examples=["./outputs/finetune/default"],
    )
    task: Literal["image-classification", "multi-label-image-classification", "text-classification"] = Field(
        default="image-classification",
        description="What the model is trained for; of multi-label classification, an image has any number of the labels.",
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
    fit_head: StrictBool = Field(
        default=False,
        description="A new classifier on pretrained weights starts as a logistic regression on their features.",
        examples=[True],
    )
    sure_precision: Number | None = Field(
        default=0.95,
        gt=0,
        lt=1,
        description="Share of right answers among those that `predict` does not call unsure, on the validation rows, which also "
        "calibrate its probabilities; null: neither.",
        examples=[0.99],
    )
    whiten_stem: StrictBool = Field(
        default=False, description="The first convolution becomes a fixed whitening of the training images' patches."
    )
    kernels: Literal["auto", "library"] = Field(
        default="auto",
        description="auto: on a CPU, bf16 operations that PyTorch computes slowly are replaced; library: none are.",
    )


@dataclass(frozen=True, config=KNOWN_ONLY)
class ProgressiveResizing:
    """Training images that grow by epoch from a smaller size to the model's own."""

    start: Annotated[StrictInt, Field(ge=4), Whole] = Field(
        description="Side of the first epoch's images.",
        json_schema_extra=expected_words("a whole number of pixels, at least 4"),
    )
    full_at: Number = Field(
        default=0.75, gt=0, le=1, description="Fraction of the epochs after which images have full size."
    )


@dataclass(frozen=True, config=KNOWN_ONLY)
class HardExamples:
    """Rows with a high loss train more often than others."""

    strategy: Literal["proportional", "hardest"] = Field(
        default="proportional",
        description="proportional: rows are drawn by their loss, and may repeat; hardest: an epoch has only the rows with the "
        "highest losses, and is shorter.",
    )
    fraction: Number = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="proportional: share of an epoch that is drawn by loss, the rest evenly; hardest: share of the rows in an "
        "epoch.",
        json_schema_extra=expected_words("a number above 0 and below 1"),
    )
    warmup_epochs: Annotated[StrictInt, Field(ge=0, le=10_000), Whole] = Field(
        default=1, description="First epochs, which go through all rows in turn, whatever their losses."
    )


@dataclass(frozen=True, config=KNOWN_ONLY)
class DataSettings:
    """Which images or texts, which rows, and how they reach the model."""

    name: StrictStr = Field(
        description="A Hub id, a local folder (parquet files or class folders; of texts also CSV, JSON lines or what "
        "save_to_disk wrote), or digits.",
        examples=["./photos"],
    )
    config: StrictStr | None = Field(default=None, description="Configuration of a Hub data set.")
    revision: StrictStr | None = Field(
        default=None, description="Branch, tag or commit of the data set on the Hub.", examples=["main"]
    )
    image_column: StrictStr | None = Field(
        default=None, description="Column of the images; null: found by name and type."
    )
    label_column: StrictStr | Annotated[list[StrictStr], Field(min_length=2)] | None = Field(
        default=None,
        description="Column of the labels; null: found by name and type. Of multi-label classification also several columns of 0 "
        "and 1, one for each label.",
        examples=["fine_label"],
    )
    labels: StrictStr | None = Field(
        default=None,
        description="A CSV, TSV, JSON lines or parquet file with the labels of the images in data.name: a row per image, whose "
        "path is relative to data.name or to the file.",
        examples=["labels.csv"],
    )
    split_column: StrictStr | None = Field(
        default=None,
        description="Column of data.labels that says whether a row is for train, validation or test; null: `split`, if there is "
        "one.",
        examples=["fold"],
    )
    group_column: StrictStr | None = Field(
        default=None,
        description="Column of what rows have in common, such as a patient or a place: rows of one group are never on both sides "
        "of a split that is made here.",
        examples=["patient"],
    )
    text_column: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        default=None,
        description="Column of the texts, or several that are joined line by line; null: found by name and type.",
        examples=[["title", "content"]],
    )
    max_length: Annotated[StrictInt, Field(ge=2, le=1_000_000), Whole] | None = Field(
        default=None,
        description="Tokens that are kept of a text; null: as many as the model takes, at most 512.",
        examples=[128],
    )
    validation: Number = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Fraction held out from train where there is no validation split; 0: all rows train, the last weights stay.",
        examples=[0.1],
    )
    folds: Annotated[StrictInt, Field(ge=2, le=100), Whole] | None = Field(
        default=None,
        description="Number of parts for cross-validation: one of them is the validation split, the others train. "
        "`hf-accel compare` runs all of them.",
        examples=[5],
    )
    fold: Annotated[StrictInt, Field(ge=0, le=99), Whole] = Field(
        default=0, description="The part of data.folds that is the validation split, from 0."
    )
    image_size: Annotated[StrictInt, Field(ge=4, le=4096), Whole] | None = Field(
        default=None, description="Side of the model's input in pixels; null: the model's own.", examples=[224]
    )
    channels: Annotated[StrictInt, Field(ge=1, le=512), Whole] | None = Field(
        default=None,
        description="Channels of the model's input: 1 is grey, 3 is RGB; other numbers take all channels of images that have as "
        "many (RGBA, .npy files); null: the model's own.",
        examples=[1],
    )
    resize: Literal["crop", "squash", "letterbox"] | None = Field(
        default=None,
        description="How an image of another shape becomes the model's input: crop keeps its middle, squash changes its aspect "
        "ratio, letterbox adds bars; null: the model's own way.",
        examples=["letterbox"],
    )
    max_pixels: Annotated[StrictInt, Field(ge=1), Whole] | None = Field(
        default=178_956_970,  # the limit of PIL itself: twice Image.MAX_IMAGE_PIXELS
        description="Images with more pixels are refused as unreadable; null: no limit.",
    )
    cache: Literal["memory", "disk", "device", "none"] = Field(
        default="memory",
        description="Where decoded images, or the tokens of texts, are kept; none: every epoch decodes or tokenises again, and a "
        "frozen backbone computes again.",
    )
    streaming: StrictBool = Field(
        default=False,
        description="Images are read from parquet files or webdataset archives when they are needed, and kept nowhere: for data "
        "that no disk can hold. data.cache is then none.",
    )
    shuffle_buffer: Annotated[StrictInt, Field(ge=1), Whole] | None = Field(
        default=None,
        description="Of a stream: the encoded images that each reader keeps, to shuffle rows among them (shards are read in a "
        "new order in each epoch); 1: rows keep their order within a shard; null: 2048.",
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
        description="Folder of cache: disk, and of the index of a stream from the Hub; null: hf_accel in $HF_HOME, or else in "
        "the user's folder of caches.",
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
    on_bad_text: Literal["error", "skip"] = Field(
        default="error",
        description="What a row without text does: it ends the run, or is left out and counted.",
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
    sampling: Literal["uniform", "balanced"] = Field(
        default="uniform",
        description="uniform: an epoch has every training row once; balanced: it has as many rows, and every class is equally "
        "frequent.",
    )
    hard_examples: HardExamples | None = Field(
        default=None,
        description="Rows with a high loss train more often; {} takes its defaults. Wrong labels have high losses, too.",
        examples=[{"strategy": "hardest", "fraction": 0.5}],
    )
    augment: AugmentSettings = Field(
        default_factory=AugmentSettings, description="Random changes to a training image; absent means off."
    )

    @property
    def one_label_column(self) -> str | None:
        """`label_column` of rows that have one label each.

        Raises:
            UserError: several columns are named.
        """
        if isinstance(self.label_column, list):
            raise UserError(
                "data.label_column: names several columns, and each row has one label. Name one column, or set model.task: "
                "multi-label-image-classification."
            )
        return self.label_column

    @property
    def selects(self) -> bool:
        """Whether there is a validation split, by which the best epoch is selected."""
        return self.validation > 0 or self.folds is not None

    def rows_of_epoch(self, num_rows: int) -> int:
        """The rows that train in an epoch, of so many training rows.

        Every epoch of a run has as many, the warm-up's as well: the Trainer counts steps and epochs, and plans the
        schedule of the learning rate, by it.

        >>> DataSettings(name="digits", hard_examples={"strategy": "hardest", "fraction": 0.3}).rows_of_epoch(10)
        3
        """
        hard = self.hard_examples
        if hard is None or hard.strategy != "hardest":
            return num_rows
        return max(1, round(hard.fraction * num_rows))


@dataclass(frozen=True, config=KNOWN_ONLY)
class PushSettings:
    """What of a run is published with its model; `training.push_to_hub` and `hf-accel push` publish it."""

    examples: StrictBool | None = Field(
        default=None,
        description="Whether three test images, with the model's answers, are published with the model; null: only those of "
        "a data set that is public, never those of a local folder.",
        examples=[True],
    )


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "data": DataSettings,
    "push": PushSettings,
    "compress": CompressionSettings,
}


def choices(setting: str) -> tuple[str, ...]:
    """The values that a setting with choices may have.

    >>> choices("data.test_time_augmentation")
    ('none', 'flip', 'flip_shift')
    """
    section, name = setting.split(".")
    return get_args(get_type_hints(SECTIONS[section])[name])
