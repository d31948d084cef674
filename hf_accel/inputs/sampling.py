"""The order of rows in an epoch, its batches, and the partners of mixup and cutmix.

Order and partners come from the counter hash of counter_rng.py.

The epoch travels within the index of a row, so that a dataset in any worker or rank knows it.

Recipe: `data: {sampling: balanced}` for epochs in which every class is equally frequent. Not measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.inputs.counter_rng import random_bits

# Draws of the order of rows, of partners and of turns; those of the transforms are small numbers, see transforms/pipeline.py.
ORDER_DRAW = 1 << 20
PARTNER_DRAW = ORDER_DRAW + 1
TURN_DRAW = ORDER_DRAW + 2
PARTNER_CLASS_DRAW = ORDER_DRAW + 3
GROUP_DRAW = ORDER_DRAW + 4

_MOST_GROUPS = 50  # steps whose rows are sorted together, as in the LengthGroupedSampler of transformers


def encode(epoch: int, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Put the epoch into the index, the one thing that reaches a dataset in any worker; `divmod` takes it out."""
    return rows + np.int64(epoch) * num_rows


def draw_partners(seed: int, num_rows: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows that mixup and cutmix blend into these; any row of the split, not only those of the batch."""
    return random_bits(seed, epochs, rows, PARTNER_DRAW) % num_rows


def mixes(augment: AugmentSettings) -> bool:
    """Whether training blends two images, and so needs a partner for each row."""
    return augment.mixup > 0 or augment.cutmix > 0


def rows_in_turn(seed: int, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
    """A part of an endless sequence, in which each N places hold all N rows in an order of their own.

    Parts that follow each other thus use every row equally often, to within one.

    Args:
        rows: (N,) int64, at least one.
        start, stop: places in the sequence, from 0.
    Returns:
        (stop - start,) int64.

    >>> sorted(rows_in_turn(0, np.array([7, 8, 9]), 3, 6).tolist())
    [7, 8, 9]
    """
    first, last = start // len(rows), -(-stop // len(rows))
    bits = random_bits(seed, np.arange(first, last)[:, None], rows[None, :], TURN_DRAW)
    turns = rows[np.argsort(bits, axis=1, kind="stable")]
    return turns.reshape(-1)[start - first * len(rows) : stop - first * len(rows)]


class BalancedRows:
    """`data.sampling: balanced`: in an epoch of as many rows as there are, every class is equally frequent, to within one row.

    Rows of small classes repeat and some of those of large classes are left out, others in each epoch: over the epochs, all
    rows of a class are used equally often.

    Args:
        labels: (N,) int64 of the training rows; classes without rows do not count.
    """

    def __init__(self, labels: np.ndarray) -> None:
        _, self.counts = np.unique(labels, return_counts=True)
        self.ends = np.cumsum(self.counts)
        self.order = np.argsort(labels, kind="stable")
        rarest, commonest = self.counts.min(), self.counts.max()
        self.note = (
            f"sampling: balanced (the {len(self.counts)} classes have {rarest} to {commonest} training rows, and are equally "
            "frequent in an epoch)"
        )

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, seed: int, epoch: int) -> np.ndarray:
        """(N,) int64: the rows of an epoch, class by class."""
        # the sum over c of floor((x + c) / C) is x, so that the epoch has exactly N rows
        number, before = len(self.counts), epoch * len(self)
        classes = np.split(self.order, self.ends[:-1])
        return np.concatenate(
            [
                rows_in_turn(seed, rows, (before + c) // number, (before + len(self) + c) // number)
                for c, rows in enumerate(classes)
            ]
        )

    def partners(self, seed: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """As `draw_partners`, with every class equally likely."""
        drawn = random_bits(seed, epochs, rows, PARTNER_CLASS_DRAW) % len(self.counts)
        places = random_bits(seed, epochs, rows, PARTNER_DRAW) % self.counts[drawn]
        return self.order[self.ends[drawn] - self.counts[drawn] + places]


class LengthGroups:
    """`train_sampling_strategy: group_by_length`: the rows of a step are of similar length, so that little of it is padding.

    Within each part of the shuffled epoch (50 steps, and at most a quarter of the epoch) the rows are sorted by length and
    divided into steps; the steps of all parts are then shuffled, but for the one with the longest row, which comes first:
    a step that does not fit in memory fails at once. An incomplete step comes last. The order depends on the rows of a whole
    step, not on how they are divided among micro-batches and processes.

    Source: the LengthGroupedSampler of transformers. Measured: a small XLNet on Amazon
    reviews, three rounds: 2.90 times the samples/s (2.66 to 3.15).

    Args:
        lengths: (N,) of the training rows.
        size: rows of an optimizer step, over all processes.
    """

    def __init__(self, lengths: np.ndarray, size: int) -> None:
        self.lengths = lengths
        self.size = size

    def order(self, seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
        """The rows of an epoch, in random order -> in the order in which they train."""
        part = self.size * max(1, min(_MOST_GROUPS, len(rows) // (4 * self.size)))
        parts = [rows[start : start + part] for start in range(0, len(rows), part)]
        by_length = np.concatenate([rows[np.argsort(-self.lengths[rows], kind="stable")] for rows in parts])
        whole = len(rows) // self.size
        steps = by_length[: whole * self.size].reshape(whole, self.size)
        order = np.argsort(random_bits(seed, epoch, np.arange(whole), GROUP_DRAW), kind="stable")
        if whole:
            longest = int(self.lengths[steps[:, 0]].argmax())
            order = np.concatenate([[longest], order[order != longest]])
        return np.concatenate([steps[order].reshape(-1), by_length[whole * self.size :]])


class EpochSampler(Sampler[int]):
    """The rows of each epoch, in an order that depends on the seed and the epoch alone.

    Yields `epoch * num_rows + row`. Accelerate shards the batches over the ranks and calls `set_epoch`.

    Args:
        num_rows: of the split.
        seed: of the order.
        length: rows of an epoch.
        choose: seed, epoch -> rows (length,) int64; None: every row once.
        groups: brings rows of similar length together; None: the order is random.
    """

    def __init__(
        self,
        num_rows: int,
        seed: int,
        length: int | None = None,
        choose: Callable[[int, int], np.ndarray] | None = None,
        groups: LengthGroups | None = None,
    ) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.length = num_rows if length is None else length
        self.choose = choose
        self.groups = groups
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        places = np.arange(self.length)
        order = np.argsort(random_bits(self.seed, self.epoch, places, ORDER_DRAW), kind="stable")
        rows = order if self.choose is None else self.choose(self.seed, self.epoch)[order]
        if self.groups is not None:
            rows = self.groups.order(self.seed, self.epoch, rows)
        yield from encode(self.epoch, rows, self.num_rows).tolist()


class WholeRounds(BatchSampler):
    """The batches of an epoch, which several processes take in turn: of each round every process takes one.

    All processes must make the same steps, so the last round is completed with batches that have been trained before. Their
    rows must not count: the processes that get them compute, but train nothing. So no row trains twice, and none is left out.

    Args:
        sampler: the rows of an epoch.
        batch_size: of each process.
        processes: how many take turns.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, processes: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        round_before: deque[list[int]] = deque(maxlen=self.processes)
        for batch in super().__iter__():
            round_before.append(batch)
            yield batch
        for _ in range(len(self) - super().__len__() if round_before else 0):
            round_before.append(round_before[0])
            yield round_before[-1]

    def __len__(self) -> int:
        return -(-super().__len__() // self.processes) * self.processes

    def counts_last(self, process: int) -> bool:
        """Whether the rows of this process's last batch count."""
        return super().__len__() - (len(self) - self.processes) > process
