"""The input of a classifier, computed once for each image and read a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from hf_accel.inputs.batches import ImageBatches, TransformedBatches
    from hf_accel.inputs.prepared import PreparedBatches


class FeatureBatches(Dataset):
    """Batches of features while they are stored, and of images before and after.

    Args:
        images: the batches of images.
        labels: (N,) int64, of their rows.
        transform: what is done to them on the device; None: their loader has done it.

    Attributes:
        features: (N, ...) in memory, one row for each of the split; None: they are not stored.
    """

    def __init__(
        self,
        images: ImageBatches | TransformedBatches | PreparedBatches | FeatureBatches,
        labels: np.ndarray,
        transform: Callable[[dict[str, Any]], dict[str, Tensor]] | None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self.features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Read a batch.

        Args:
            indices: `epoch * len(self) + row`; plain rows are epoch 0.
        Returns:
            features (B, ...), rows and labels (B,) int64; while no features are stored, what `images` returns.
        """
        if self.features is None:
            return self.images.__getitems__(indices)
        rows = torch.from_numpy(np.asarray(indices, dtype=np.int64) % len(self))
        return {"rows": rows, "labels": self.labels[rows], "features": self.features[rows]}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row, as a batch of one."""
        return self.__getitems__([index])

    def complete(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The part of a batch on the training device that the model takes, transformed where it is of images."""
        if "features" in batch:
            return {key: batch[key] for key in ("features", "labels")}
        completed = self.images.complete(batch)
        return completed if self.transform is None else self.transform(completed)
