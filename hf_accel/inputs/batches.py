"""A split as the DataLoader sees it: a whole batch is one call and one indexed read, as uint8.

Indices carry the epoch (`EpochSampler`), so that a batch knows its random numbers in any worker or rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_accel.data.splits import ImageSplit
from hf_accel.inputs.cache import PixelStore


class ImageBatches(Dataset):
    """Batches of a split.

    Args:
        split: the split whose labels are read.
        pixels: the pixels of its rows, from `open_training_pixels` or `open_evaluation_pixels`.
        partners: epochs (B,), rows (B,) -> rows (B,) to be blended in by mixup or cutmix; None for neither.
        sides: epoch -> side in pixels of its training images; None for the model's own.
    """

    def __init__(
        self,
        split: ImageSplit,
        pixels: PixelStore,
        partners: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        sides: Callable[[int], int] | None = None,
    ) -> None:
        self.labels = np.asarray(split.labels, dtype=np.int64)
        self.is_labelled = split.is_labelled
        self.pixels = pixels
        self.partners = partners
        self.sides = sides

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Read a batch.

        Args:
            indices: `epoch * len(self) + row`; plain rows are epoch 0.
        Returns:
            rows, epochs and, where the split has them, labels (B,) int64; pixels (B, H, W, 3) uint8 unless they are on the
            device; sizes (B, 2) int64 where the images differ in size; the same with `partner_` before the name where there
            are partners (no partner_epochs: they are those of the batch); side, a number, where there are `sides`: a batch
            is of one epoch.
        """
        epochs, rows = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        batch: dict[str, Any] = {"epochs": torch.from_numpy(epochs), **self._read(rows, "")}
        if self.partners is not None:
            batch |= self._read(self.partners(epochs, rows), "partner_")
        if self.sides is not None:
            batch["side"] = self.sides(int(epochs[0]))
        return batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image, as a batch of one."""
        return self.__getitems__([index])

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its pixels, once it is on the training device, as the transforms take it."""
        return self.pixels.complete(batch)

    def _read(self, rows: np.ndarray, prefix: str) -> dict[str, Tensor]:
        batch = {f"{prefix}rows": torch.from_numpy(rows)}
        if self.is_labelled:
            batch[f"{prefix}labels"] = torch.from_numpy(self.labels[rows])
        return batch | {f"{prefix}{name}": values for name, values in self.pixels.loaded(rows).items()}


class TransformedBatches(Dataset):
    """Batches that are transformed where they are loaded, for `data.transforms: loader`; the pixels are the same.

    Args:
        batches: the batches to be transformed.
        transform: batch dictionary -> `pixel_values` and `labels`.
    """

    def __init__(self, batches: ImageBatches, transform: Callable[[dict[str, Any]], dict[str, Tensor]]) -> None:
        self.batches = batches
        self.transform = transform

    def __len__(self) -> int:
        return len(self.batches)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        batch = self.batches.__getitems__(indices)
        return {key: batch[key] for key in ("rows", "side") if key in batch} | self.transform(batch)

    def complete(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The part of such a batch that the model takes."""
        return {key: batch[key] for key in ("pixel_values", "labels")}
