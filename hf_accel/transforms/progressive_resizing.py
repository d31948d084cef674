"""Progressive resizing: small training images in the first epochs, which cost less, and full size at the end.

The size is a function of the epoch and travels with each batch as a number of the host: a loader may be an epoch ahead of
the training, and to ask a GPU for the epochs of a batch would make the host wait.

Source: EfficientNetV2 (https://arxiv.org/abs/2104.00298), without its change of regularisation.
Recipe: `data: {progressive_resizing: {start: 128, full_at: 0.75}}`.
Measured: MobileNetV2, the recipe mobilenetv2_imagefolder, seeds 0 to 2, from 160 px: the whole command took a quarter less time,
and on average less than one more of 153 photographs was classified wrongly (benchmarks/README.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_accel.config.sections import ProgressiveResizing
from hf_accel.errors import UserError

if TYPE_CHECKING:  # a spawned DataLoader worker imports this file, and transformers takes seconds
    from transformers import TrainingArguments

    from hf_accel.inputs.preprocessing import Preprocessing


@dataclass(frozen=True)
class TrainingSides:
    """Epoch, counted from 0 -> side in pixels of its training images.

    >>> [TrainingSides(start=128, full=224, full_at=0.75, num_epochs=5)(epoch) for epoch in range(5)]
    [128, 128, 160, 192, 224]
    """

    start: int  # side of the first epoch
    full: int  # side of the model's input; the last epoch has it, whatever full_at
    full_at: float  # fraction of the epochs after which images are full, in (0, 1]
    num_epochs: int

    def __call__(self, epoch: int) -> int:
        # 0.55 * 20 is a little above 11 in floating point
        growing = min(math.ceil(self.full_at * self.num_epochs - 1e-9), self.num_epochs - 1)
        if epoch >= growing:
            return self.full
        step = 32 if self.full > 64 else 4
        side = self.start + (self.full - self.start) * epoch // growing
        return max(self.start, side // step * step)

    def first_epochs(self) -> dict[int, int]:
        """Side -> the first epoch that has it, in the order of epochs."""
        firsts: dict[int, int] = {}
        for epoch in range(self.num_epochs):
            firsts.setdefault(self(epoch), epoch)
        return firsts

    @property
    def note(self) -> str:
        sizes = ", ".join(f"{side} px from epoch {epoch + 1}" for side, epoch in self.first_epochs().items())
        return f"training images: {sizes} of {self.num_epochs} (progressive resizing); evaluation at {self.full} px"


def training_sides(
    settings: ProgressiveResizing, preprocessing: Preprocessing, args: TrainingArguments, num_rows: int
) -> TrainingSides:
    """The schedule of `data.progressive_resizing` for a model and a number of training rows.

    Raises:
        UserError: the start is above the model's size, or the model's images are not square.
    """
    full = preprocessing.height
    if preprocessing.width != full:
        raise UserError(
            f"data.progressive_resizing: the model takes {full} x {preprocessing.width} pixels, expected a model with "
            "square images. Leave it out."
        )
    if settings.start > full:
        raise UserError(
            f"data.progressive_resizing: start is {settings.start}, expected at most {full}, the side in pixels of the model's "
            "images. A larger model input is data.image_size."
        )
    return TrainingSides(settings.start, full, settings.full_at, count_epochs(args, num_rows))


def count_epochs(args: TrainingArguments, num_rows: int) -> int:
    """Epochs begun in a run, as the Trainer counts them; with `max_steps` it follows from the rows."""
    if args.max_steps <= 0:
        return math.ceil(args.num_train_epochs)
    batches = num_rows / (args.train_batch_size * args.world_size)
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return math.ceil(args.max_steps / max(1, math.ceil(batches / args.gradient_accumulation_steps)))
