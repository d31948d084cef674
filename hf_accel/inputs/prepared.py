"""Batches of rows that a caller's own transform prepares, one image at a time, where the DataLoader runs.

A transform may draw from torch, NumPy or `random`: for each image these are seeded by (seed, epoch, row) and put back
afterwards, so that the images of a run do not depend on batches, workers, ranks or a resume.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hf_accel.data.given_rows import GivenRows, as_picture, is_prepared
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.images import with_channels
from hf_accel.errors import UserError
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.counter_rng import random_bits
from hf_accel.inputs.features import FeatureBatches
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.text import TextBatches

OwnTransform = Callable[[Any], Any]
_OWN_DRAW = 1 << 21  # of the counter hash; see inputs/sampling.py for the others


@dataclass(frozen=True)
class OwnTransforms:
    """The transforms that a caller brings, each of one image; see `PreparedBatches`. None: the recipe's."""

    train: OwnTransform | None = None
    eval: OwnTransform | None = None

    @property
    def notes(self) -> list[str]:
        """What a report says of them."""
        notes = []
        if self.train is not None:
            notes.append(
                f"train_transform: {_named(self.train)} in place of data.augment; data.cache is not used for it"
            )
        if self.eval is not None:
            notes.append(f"eval_transform: {_named(self.eval)} in place of the model's own preprocessing")
        return notes


def _named(transform: OwnTransform) -> str:
    return " ".join(str(getattr(transform, "__name__", transform)).split())


class PreparedBatches(Dataset):
    """Batches of `pixel_values`.

    Args:
        split: the rows.
        transform: PIL image, upright and RGB (or what a row of float tensors holds) -> float tensor (C, H, W), the model's
            input; or -> an image (PIL, or uint8 pixels), which the model's preprocessing then resizes and normalises.
            None: the rows are tensors for the model already.
        preprocessing: of the model.
        seed: of the random numbers of the transform.
        channels_last: memory format of `pixel_values`.
    """

    def __init__(
        self,
        split: ImageSplit,
        transform: OwnTransform | None,
        preprocessing: Preprocessing,
        seed: int,
        channels_last: bool = False,
    ) -> None:
        self.split = split
        self.transform = transform
        self.preprocessing = preprocessing
        self.seed = seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Read a batch.

        Args:
            indices: `epoch * len(self) + row`; plain rows are epoch 0.
        Returns:
            pixel_values (B, C, H, W) float32; rows (B,) int64; labels (B,) int64, unless the rows have none.
        Raises:
            UserError: the transform gives something else than a tensor or an image, or images of different shapes.
        """
        epochs, rows = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        images = [self.image(int(epoch), int(row)) for epoch, row in zip(epochs, rows, strict=True)]
        other = next((number for number, image in enumerate(images) if image.shape != images[0].shape), None)
        if other is not None:
            raise UserError(
                f"{self.split.where(int(rows[other]))}: {self._what} gives the shape {tuple(images[other].shape)}, and "
                f"{tuple(images[0].shape)} for another row. Expected one shape: resize or crop to a fixed size."
            )
        batch = {"rows": torch.from_numpy(rows), "pixel_values": torch.stack(images)}
        if self.split.is_labelled:
            batch["labels"] = torch.from_numpy(np.asarray(self.split.labels, dtype=np.int64)[rows])
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image, as a batch of one."""
        return self.__getitems__([index])

    def complete(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of a batch on the training device that the model takes."""
        pixel_values = batch["pixel_values"].contiguous(memory_format=self.memory_format)
        return {"pixel_values": pixel_values} | {key: batch[key] for key in ("labels",) if key in batch}

    def image(self, epoch: int, row: int) -> Tensor:
        """The model's input for one row, (C, H, W) float32."""
        with fixed_draws(int(random_bits(self.seed, epoch, np.array([row]), _OWN_DRAW)[0] & (2**63 - 1))):
            image = _raw_image(self.split, row)
            image = image if self.transform is None else self.transform(image)
        if is_prepared(image):
            tensor = torch.as_tensor(image).float()
            if tensor.ndim != 3:
                raise UserError(
                    f"{self.split.where(row)}: {self._what} gives a float tensor of the shape {tuple(tensor.shape)}, expected "
                    "(channels, height, width)."
                )
            return tensor
        picture = as_picture(image, f"{self.split.where(row)}: what {self._what} gives")
        pixels = np.array(with_channels(picture, self.preprocessing.channels))
        return torch.from_numpy(self.preprocessing.pixel_values(pixels.reshape(*pixels.shape[:2], -1)))

    @property
    def _what(self) -> str:
        return "the data set" if self.transform is None else "the given transform"


ScoredBatches = ImageBatches | PreparedBatches | FeatureBatches | TextBatches  # what an evaluation reads


def prepared_shape(split: ImageSplit, transform: OwnTransform | None) -> tuple[int, int, int] | None:
    """Channels, height and width of the tensors that a caller prepares; None: they are images, which the model's processor
    gives their size."""
    if transform is None and not split.is_prepared:
        return None
    with fixed_draws(0):
        image = _raw_image(split, 0)
        image = image if transform is None else transform(image)
    return tuple(image.shape) if is_prepared(image) and image.ndim == 3 else None


def _raw_image(split: ImageSplit, row: int) -> Any:
    rows = split.dataset
    if isinstance(rows, GivenRows) and rows.is_prepared:
        return rows.image(row)
    return Image.fromarray(split.read(row))


@contextmanager
def fixed_draws(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, NumPy's and `random`'s within the context, and put them back after it."""
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
