"""The order of rows in an epoch, and the partners of mixup and cutmix, both from the counter hash of counter_rng.py.

The epoch travels within the index of a row, so that a dataset in any worker or rank knows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.inputs.counter_rng import random_bits

# Draws of the order of rows and of partners; those of the transforms are small numbers, see transforms/pipeline.py.
ORDER_DRAW = 1 << 20
PARTNER_DRAW = ORDER_DRAW + 1


def encode(epoch: int, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Put the epoch into the index, the one thing that reaches a dataset in any worker; `divmod` takes it out."""
    return rows + np.int64(epoch) * num_rows


def draw_partners(seed: int, num_rows: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows that mixup and cutmix blend into these; any row of the split, not only those of the batch."""
    return random_bits(seed, epochs, rows, PARTNER_DRAW) % num_rows


def mixes(augment: AugmentSettings) -> bool:
    """Whether training blends two images, and so needs a partner for each row."""
    return augment.mixup > 0 or augment.cutmix > 0


class EpochSampler(Sampler[int]):
    """Every row once per epoch, in an order that depends on the seed and the epoch alone.

    Yields `epoch * num_rows + row`. Accelerate shards the batches over the ranks and calls `set_epoch`.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        rows = np.arange(self.num_rows)
        order = np.argsort(random_bits(self.seed, self.epoch, rows, ORDER_DRAW), kind="stable")
        yield from encode(self.epoch, order, self.num_rows).tolist()
