"""The order in which rows of shards are read, and their batches.

Each process, and each of its workers, reads one slice of the rows in the order of an epoch's shards: none reads what another
one trains on, except for the row group in which their slices meet. Within its slice, a row moves by less than
`data.shuffle_buffer` places. Both orders are functions of the seed and the epoch, so there is nothing to save: a run that
resumes within an epoch leaves out the batches it has had, and reads none of their images.

Recipe: `data: {streaming: true, shuffle_buffer: 2048}`. Measured: nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hf_accel.data.splits import ImageSplit
from hf_accel.data.streaming import StreamedRows
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import PixelStore
from hf_accel.inputs.counter_rng import random_bits, uniform
from hf_accel.inputs.sampling import ORDER_DRAW, PARTNER_DRAW, EpochSampler, encode

logger = logging.getLogger(__name__)

SHARD_DRAW = ORDER_DRAW + 4


def in_turn(rows: np.ndarray, batch_size: int, readers: int) -> np.ndarray:
    """Divide rows among readers so that, batch by batch, they take turns, and each reads neighbouring rows.

    Batches go to processes and their workers in turn, so batch number b is that of reader b modulo `readers`.

    Args:
        rows: (N,) in the order of reading.
        readers: processes times the workers of each.
    Returns:
        (N,) the same rows in the order of the batches; the last batch may be smaller than the others.

    >>> in_turn(np.arange(10), 2, 2)
    array([0, 1, 6, 7, 2, 3, 8, 9, 4, 5])
    """
    order = np.empty_like(rows)
    start = 0
    for reader in range(readers):
        places = _places(len(rows), batch_size, readers, reader)
        order[places] = rows[start : start + len(places)]
        start += len(places)
    return order


def stream_order(
    shards: np.ndarray, seed: int, epoch: int, buffer: int, batch_size: int = 1, readers: int = 1
) -> np.ndarray:
    """The rows of an epoch in the order of the batches.

    One reader whose buffer holds all rows has the order of `EpochSampler`, that of data that is not streamed.

    Args:
        shards: (N,) the number of the shard that holds each row, ascending.
        buffer: rows; a row moves by less than this within the rows of its reader.
        batch_size, readers: as for `in_turn`.
    Returns:
        (N,) int64, every row once.
    """
    turns = random_bits(seed, epoch, np.arange(int(shards[-1]) + 1), SHARD_DRAW)
    rows = np.argsort(turns[shards], kind="stable")
    shuffled, start = np.empty_like(rows), 0
    for reader in range(readers):
        count = len(_places(len(rows), batch_size, readers, reader))
        own = rows[start : start + count]
        if buffer >= count:
            keys = random_bits(seed, epoch, own, ORDER_DRAW)
        else:
            keys = np.arange(count) + buffer * uniform(seed, epoch, own, ORDER_DRAW).astype(np.float64)
        shuffled[start : start + count] = own[np.argsort(keys, kind="stable")]
        start += count
    return in_turn(shuffled, batch_size, readers)


def _places(num_rows: int, batch_size: int, readers: int, reader: int) -> np.ndarray:
    """The places that the batches of one reader have among those of all."""
    starts = np.arange(reader * batch_size, num_rows, readers * batch_size)
    places = (starts[:, None] + np.arange(batch_size)).reshape(-1)
    return places[places < num_rows]


class StreamSampler(EpochSampler):
    """`EpochSampler` for rows of shards: every row once in an epoch, in the order of `stream_order`.

    It remembers on what else that order depends, because a run that resumes within an epoch must have the same.

    Args:
        rows: of the training split; their window is the buffer.
        seed: of the order.
        batch_size, readers: as for `in_turn`.
    """

    def __init__(self, rows: StreamedRows, seed: int, batch_size: int, readers: int) -> None:
        super().__init__(len(rows), seed)
        self.shards = rows.shard_numbers()
        self.settings = {"shuffle_buffer": rows.window, "batch_size": batch_size, "readers": readers}

    def __iter__(self) -> Iterator[int]:
        buffer, batch_size, readers = self.settings.values()
        rows = stream_order(self.shards, self.seed, self.epoch, buffer, batch_size, readers)
        yield from encode(self.epoch, rows, self.num_rows).tolist()

    def state_dict(self) -> dict[str, int]:
        return dict(self.settings)

    def load_state_dict(self, state: dict[str, int]) -> None:
        changed = [
            f"{name} was {state[name]} and is {value}"
            for name, value in self.settings.items()
            if state.get(name, value) != value
        ]
        if changed:
            logger.warning(
                "data.streaming: the order of rows has changed (%s; readers are processes times dataloader_num_workers), so an "
                "epoch that was begun trains on some rows twice and not on others",
                ", ".join(changed),
            )


class StreamedBatches(ImageBatches):
    """Batches of rows of shards.

    Args:
        split: the split; its rows are streamed.
        pixels: the pixels of its rows.
        order: (N,) place in an evaluation -> row; None: a sampler gives rows.
        mixing_seed: of the partners of mixup and cutmix, which are rows of the same batch: others would have to be read from
            other shards. None: nothing is mixed.
        sides: as for `ImageBatches`.
    """

    def __init__(
        self,
        split: ImageSplit,
        pixels: PixelStore,
        order: np.ndarray | None = None,
        mixing_seed: int | None = None,
        sides: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(split, pixels, sides=sides)
        self.order = order
        self.mixing_seed = mixing_seed

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """As `ImageBatches`, which says what a batch holds."""
        places = np.asarray(indices, dtype=np.int64)
        if self.order is not None:
            places = self.order[places % len(self)]
        batch = super().__getitems__(places.tolist())
        if self.mixing_seed is not None:
            rows = batch["rows"]
            partners = random_bits(self.mixing_seed, batch["epochs"], rows, PARTNER_DRAW) % len(rows)
            mixed = ("rows", "labels", "pixels", "sizes")
            batch |= {f"partner_{name}": batch[name][partners] for name in mixed if name in batch}
        return batch


def count_readers(world_size: int, num_workers: int) -> int:
    """Who reads shards at the same time: the workers of all processes, or the processes themselves.

    >>> count_readers(2, 0), count_readers(2, 4)
    (2, 8)
    """
    return world_size * max(1, num_workers)
