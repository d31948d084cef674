"""Linear probe: with `model.freeze: backbone`, the input of the classifier is computed once for each image.

Where no training image changes at random, a network whose classifier alone learns computes the same numbers in every epoch.
They are computed before the first step, kept in memory, and the classifier is trained on them, dropout in front of it
included: the steps, checkpoints and the saved model are those of the whole network, up to rounding. A run of E epochs
passes each image through the backbone once in place of E times. That pass counts as training; the same of the
validation rows counts as evaluation. The test rows are scored by the whole network.

Each rank computes its share of the rows and all of them keep all features, because the order of the rows mixes them in
every epoch. A resumed run computes them again.

Source: the linear evaluation of features, as in https://arxiv.org/abs/2103.00020.
Recipe: `model: {freeze: backbone}`, and no `data.augment`; `data.cache: none` turns it off.
Measured: EfficientNet-Lite0 at 224 px, 600 photographs, 10 epochs on 2 CPU cores: 2.76 s of training, 2.20 s of them for the
features, where the whole network in every step takes 28.7 s (28 % of them decoding, as data.cache is none); the loss and the
test accuracy are equal in every digit (n = 1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object, send_to_device
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel import terminal
from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import AugmentSettings
from hf_accel.data.splits import Splits
from hf_accel.formatting import format_bytes, format_count
from hf_accel.inputs.cache import fits_in_memory
from hf_accel.inputs.features import FeatureBatches
from hf_accel.inputs.prepared import PreparedBatches
from hf_accel.models.head_split import HeadSplit, NoSplitError, split_head

if TYPE_CHECKING:
    from hf_accel.tasks.image_inputs import ImageInputs
    from hf_accel.tasks.text_classification import TextInputs

LARGEST_NUMBER = 4  # bytes of a feature: float32, where the network does not compute in half precision


@dataclass(frozen=True)
class RunBatches:
    """The batches that a run trains and selects on, and what is done to those of training on the device."""

    train: Any
    validation: Any
    train_transform: Callable[[dict[str, Any]], dict[str, Tensor]] | None


class LinearProbe(TrainerCallback):
    """Stores the features while a run trains.

    Args:
        split: the network in two parts.
        train: the training rows.
        validation: those that select, or None.
        args: batch size of the computation, device and ranks.
    """

    def __init__(
        self, split: HeadSplit, train: FeatureBatches, validation: FeatureBatches | None, args: TrainingArguments
    ) -> None:
        self.split = split
        self.train = train
        self.validation = validation
        self.args = args

    def before_training(self, counted: Callable[[], AbstractContextManager[None]]) -> None:
        """Compute the features; not if a caller has let more of the network learn since."""
        if not self.split.is_valid:
            return
        with counted():
            self.train.features = self._features(self.train, "features of the training rows")
        if self.validation is not None:
            self.validation.features = self._features(self.validation, "features of the validation rows")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What is evaluated later goes through the whole network, which a caller may change."""
        for batches in (self.train, self.validation):
            if batches is not None:
                batches.features = None

    def _features(self, batches: FeatureBatches, title: str) -> Tensor:
        """(N, ...) of all rows, on every rank, in the precision in which the network computes them."""
        batches.features = None  # those of an attempt before
        return gathered_features(len(batches), self.args, title, partial(self._of_rows, batches))

    def _of_rows(self, batches: FeatureBatches, rows: np.ndarray) -> Tensor:
        batch = send_to_device(batches.__getitems__(rows.tolist()), self.args.device)
        inputs = {name: value for name, value in batches.complete(batch).items() if name != "labels"}
        return self.split.features(**inputs)


def gathered_features(
    count: int, args: TrainingArguments, title: str, of_rows: Callable[[np.ndarray], Tensor]
) -> Tensor:
    """(count, ...) in memory, of all rows on every rank; each rank computes its share.

    Args:
        title: of the progress bar.
        of_rows: numbers of rows (B,) -> their features (B, ...), on the device.
    """
    features, ranks = torch.empty(0), args.world_size
    with terminal.bar(count, title, "image") as bar:
        for start in range(0, count, args.eval_batch_size * ranks):
            # the last batches of the ranks are filled up: all must be of one size
            size = min(args.eval_batch_size, math.ceil((count - start) / ranks))
            own = start + args.process_index * size + np.arange(size)
            part = gather(of_rows(own.clip(max=count - 1)))[: count - start]
            if start == 0:
                features = torch.empty(count, *part.shape[1:], dtype=part.dtype)
            features[start : start + len(part)].copy_(part)
            bar.update(len(part))
    return features


def linear_probe(
    recipe: Recipe, splits: Splits, args: TrainingArguments, model: PreTrainedModel, inputs: ImageInputs | TextInputs
) -> tuple[RunBatches, list[LinearProbe], list[str]]:
    """The batches of a run: of stored features where the recipe and the network allow it, else of images.

    Returns:
        The batches; the method, if there is one; a note for the report, if only the classifier learns.
    Raises:
        UserError: as `ImageInputs.train_batches`.
    """
    rows = splits.validation
    train: Any = inputs.train_batches(splits.train)
    validation: Any = None if rows is None else inputs.scored_batches(rows)
    batches = RunBatches(train, validation, inputs.train_transform())
    if recipe.model.freeze != "backbone":
        return batches, [], []
    try:
        split = _split(recipe, splits, args, model, inputs)
    except NoSplitError as reason:
        note = f"linear probe: the whole network computes every step, because {reason}"
        return batches, [], [note]
    split.install()
    stored = FeatureBatches(train, splits.train.labels, batches.train_transform)
    selecting = None
    # test-time augmentation asks the network for several views of an image
    if validation is not None and rows is not None and rows.is_fixed and inputs.scoring_model() is None:
        transform = None if isinstance(validation, PreparedBatches) else inputs.eval_transform()
        selecting = FeatureBatches(validation, rows.labels, transform)
    probe = LinearProbe(split, stored, selecting, args)
    batches = RunBatches(stored, validation if selecting is None else selecting, None)
    return batches, [probe], [_note(split, len(splits.train))]


def _note(split: HeadSplit, rows: int) -> str:
    numbers = format_count(math.prod(split.shape))
    return (
        f"linear probe: the classifier trains on its input ({numbers} numbers per image), which is computed once for each of the "
        f"{format_count(rows)} training images; that pass counts in the training time and in images per second"
    )


def _split(
    recipe: Recipe, splits: Splits, args: TrainingArguments, model: PreTrainedModel, inputs: ImageInputs | TextInputs
) -> HeadSplit:
    """Raises NoSplitError: the features cannot be stored."""
    reason = _reason_of_settings(recipe, splits, args, inputs)
    if reason is not None:
        raise NoSplitError(reason)
    split = split_head(model, two_images(inputs.example(model)))
    rows = len(splits.train) + len(splits.validation or ())
    nbytes = rows * math.prod(split.shape) * LARGEST_NUMBER
    if not all(gather_object([fits_in_memory(nbytes)])):  # the ranks must agree
        raise NoSplitError(f"its inputs take {format_bytes(nbytes)}, which the memory does not have free")
    return split


def _reason_of_settings(
    recipe: Recipe, splits: Splits, args: TrainingArguments, inputs: ImageInputs | TextInputs
) -> str | None:
    data = recipe.data
    if inputs.why_no_features is not None:
        return inputs.why_no_features
    if splits.train.is_streamed:
        return "data.streaming keeps nothing of an image"
    if data.cache == "none":
        return "data.cache is none"
    if recipe.model.teacher is not None:
        return "model.teacher looks at the images of every step"
    if inputs.own.train is not None:
        return "train_transform may change training images at random"
    if not splits.train.is_fixed:
        return "the rows of a torch data set may change whenever they are read"
    if data.progressive_resizing is not None:
        return "data.progressive_resizing changes the training images"
    changed = random_changes(data.augment)
    if changed:
        return f"data.augment.{changed[0]} changes training images at random"
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    images = args.max_steps * batch if args.max_steps > 0 else args.num_train_epochs * len(splits.train)
    if images <= len(splits.train):
        return "no image is read twice"
    return "FSDP and DeepSpeed shard the network" if is_sharded(args) else None


def is_sharded(args: TrainingArguments) -> bool:
    """Whether no process holds the whole network."""
    launched = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
    return launched or bool(args.fsdp or args.deepspeed)


def random_changes(augment: AugmentSettings) -> list[str]:
    """Names of the settings by which a training image is not the same in every epoch.

    >>> random_changes(AugmentSettings(flip=True))
    ['flip']
    """
    default = AugmentSettings()
    details = ("pad", "pad_mode", "scale", "ratio")  # of crops
    return [name for name, value in vars(augment).items() if name not in details and value != getattr(default, name)]


def two_images(example: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of a forward pass of two images of noise, from those of one image."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, *value.shape[1:], generator=generator).to(value.device) for name, value in example.items()
    }
