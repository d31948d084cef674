"""The path of images from the rows of a run to its model: datasets of batches, and what is done to a batch on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_accel.config.recipe import Recipe
from hf_accel.data.given import given_split
from hf_accel.data.splits import ImageSplit
from hf_accel.inputs.batches import ImageBatches, TransformedBatches
from hf_accel.inputs.cache import open_evaluation_pixels, open_training_pixels
from hf_accel.inputs.prepared import OwnTransform, OwnTransforms, PreparedBatches, ScoredBatches
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.sampling import BalancedRows, draw_partners, mixes
from hf_accel.inputs.stream import StreamedBatches, count_readers, in_turn
from hf_accel.models.load import LoadedModel
from hf_accel.transforms.converted import ConvertedInput
from hf_accel.transforms.pipeline import EvalTransform, TrainTransform
from hf_accel.transforms.progressive_resizing import TrainingSides
from hf_accel.transforms.views import mean_logits, views_note

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments


@dataclass(frozen=True)
class ImageInputs:
    """The path of images from a split to the model: datasets of batches, and what is done to a batch on the device."""

    recipe: Recipe
    preprocessing: Preprocessing
    args: TrainingArguments
    label_names: list[str]
    image_size: int  # side in pixels of the model's own input
    flops_by_side: dict[int, int] = field(default_factory=dict)  # of a forward pass of one image; evaluation has none
    sides: TrainingSides | None = None  # of progressive resizing
    own: OwnTransforms = field(default_factory=OwnTransforms)
    train_shape: tuple[int, int, int] | None = None  # channels, height, width of what training gives the model
    trains_prepared: bool = False  # by the caller's transform, or as tensors
    why_no_features: ClassVar[str | None] = None  # the input of a classifier can be stored

    def train_batches(self, split: ImageSplit) -> ImageBatches | TransformedBatches | PreparedBatches:
        """The dataset that training reads; opens its pixels.

        Raises:
            UserError: an image is unreadable, or the pixels do not fit where `data.cache` has them.
        """
        if self.own.train is not None or split.is_prepared:
            return self._prepared(split, self.own.train)
        data, split = self.recipe.data, self._in_channels(split)
        pixels = open_training_pixels(split, data, self.preprocessing, self.args.device)
        batches: ImageBatches
        if split.is_streamed:
            seed = self.args.seed if mixes(data.augment) else None
            batches = StreamedBatches(split, pixels, mixing_seed=seed, sides=self.sides)
        else:
            batches = ImageBatches(split, pixels, self._partners(split) if mixes(data.augment) else None, self.sides)
        return batches if data.transforms == "device" else TransformedBatches(batches, self._augmentation())

    def _partners(self, split: ImageSplit) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        if self.recipe.data.sampling == "balanced":
            return partial(BalancedRows(np.asarray(split.labels)).partners, self.args.seed)
        return partial(draw_partners, self.args.seed, len(split))

    def scored_batches(self, split: ImageSplit) -> ScoredBatches:
        """The dataset that an evaluation reads; raises as `train_batches` does."""
        if self.own.eval is not None or split.is_prepared:
            return self._prepared(split, self.own.eval)
        split = self._in_channels(split)
        pixels = open_evaluation_pixels(split, self.recipe.data, self.preprocessing, self.args.device)
        if not split.is_streamed:
            return ImageBatches(split, pixels)
        readers = count_readers(self.args.world_size, self.args.dataloader_num_workers)
        return StreamedBatches(split, pixels, in_turn(np.arange(len(split)), self.args.eval_batch_size, readers))

    def read_rows(self, given: Any) -> ScoredBatches:
        """The dataset that an evaluation reads of rows that a caller brings, with labels or without.

        Raises:
            UserError: rows that cannot be understood, or a label that the model does not know.
        """
        return self.scored_batches(self.given_split(given))

    def given_split(self, given: Any) -> ImageSplit:
        return given_split(given, self.recipe.data, self.label_names)

    def train_transform(self) -> TrainTransform | None:
        """What training does to a batch on the device; None where the loader has done it."""
        return self._augmentation() if self.recipe.data.transforms == "device" and not self.trains_prepared else None

    def eval_transform(self) -> EvalTransform:
        return EvalTransform(self.preprocessing, channels_last=self.recipe.model.channels_last)

    def scoring_model(self) -> Callable[[nn.Module], Callable[..., ImageClassifierOutput]] | None:
        """Model -> what is scored in its place, for test-time augmentation; None: the model itself."""
        kind = self.recipe.data.test_time_augmentation
        return None if kind == "none" else partial(over_views, kind)

    def teacher_view(self, teacher: LoadedModel) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """The arguments of this run's model -> those of a teacher, with its own preprocessing."""
        converted = ConvertedInput(self.preprocessing, Preprocessing.of(teacher.processor))
        return lambda inputs: {"pixel_values": converted(inputs["pixel_values"])}

    def flops_of_row(self, batch: dict[str, Any]) -> int:
        """Floating-point operations of a forward pass of one image of this batch."""
        return self.flops_by_side[batch.get("side", self.image_size)]

    def example(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Arguments of a forward pass of one black image, on the model's device: pixel_values (1, C, H, W)."""
        parameter = next(model.parameters())
        return {"pixel_values": torch.zeros(1, *self._shape, device=parameter.device, dtype=parameter.dtype)}

    def smallest_batch(self, model: PreTrainedModel, rows: int) -> dict[str, Tensor]:
        """Arguments of a forward pass of so many black images, of the smallest size that training gives the model."""
        channels, height, width = self._shape
        if self.sides is not None:
            height = width = min(self.sides.first_epochs())
        return {"pixel_values": self.example(model)["pixel_values"].new_zeros(rows, channels, height, width)}

    @property
    def notes(self) -> list[str]:
        """What a report says of this path."""
        notes = [*views_note(self.recipe.data.test_time_augmentation), *self.own.notes]
        return notes if self.sides is None else [*notes, self.sides.note]

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.train_shape or (self.preprocessing.channels, self.preprocessing.height, self.preprocessing.width)

    def _in_channels(self, split: ImageSplit) -> ImageSplit:
        """The rows as the model takes them, and not as people look at them."""
        return replace(split, channels=self.preprocessing.channels)

    def _prepared(self, split: ImageSplit, transform: OwnTransform | None) -> PreparedBatches:
        return PreparedBatches(split, transform, self.preprocessing, self.args.seed, self.recipe.model.channels_last)

    def _augmentation(self) -> TrainTransform:
        return TrainTransform(
            self.recipe.data.augment,
            self.preprocessing,
            num_labels=len(self.label_names),
            seed=self.args.seed,
            channels_last=self.recipe.model.channels_last,
        )


def over_views(kind: str, model: nn.Module) -> Callable[..., ImageClassifierOutput]:
    """A forward pass whose logits are the weighted mean over the views of each image; see `transforms.views`."""

    def forward(pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(
            logits=mean_logits(lambda view: model(pixel_values=view)["logits"], pixel_values, kind)
        )

    return forward
