"""The part of the Trainer that gives each process its rows: their order, its batches, and how many of them count.

Accelerate repeats rows where an epoch does not divide among the processes. Here every row trains once, and a process that has
none left in the last step computes a batch that does not count, because all processes exchange gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from hf_accel.data.splits import Splits
from hf_accel.data.streaming import StreamedRows
from hf_accel.inputs.batches import ImageBatches, TransformedBatches
from hf_accel.inputs.features import FeatureBatches
from hf_accel.inputs.prepared import PreparedBatches
from hf_accel.inputs.sampling import EpochSampler, LengthGroups, WholeRounds
from hf_accel.inputs.stream import StreamSampler, count_readers
from hf_accel.inputs.text import TextBatches
from hf_accel.measure.steps import Measurement
from hf_accel.methods import ChoosesRows
from hf_accel.training.checkpointing import CheckpointingTrainer
from hf_accel.training.scoring import Batch

REPEATED = "repeated"  # in a batch: its rows have trained before and do not count


class FeedingTrainer(CheckpointingTrainer):
    """A Trainer whose training rows come in the order of an `EpochSampler`, every one once per epoch.

    Attributes:
        is_repeated: the rows of the present training batch do not count.
    """

    train_dataset: ImageBatches | TransformedBatches | PreparedBatches | FeatureBatches | TextBatches
    train_transform: Callable[[Batch], Batch] | None
    flops_of_row: Callable[[Batch], int]
    splits: Splits
    measurement: Measurement
    is_repeated = False
    _rows: Tensor  # of the present training batch
    _last_step_of_epoch: int
    _rounds: WholeRounds | None = None  # of several processes

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows = self.splits.train.dataset
        if isinstance(rows, StreamedRows):
            readers = count_readers(self.args.world_size, self.args.dataloader_num_workers)
            sampler = StreamSampler(rows, seed, self._train_batch_size, readers)
            self.own_state = (*(kept for kept in self.own_state if not isinstance(kept, StreamSampler)), sampler)
            self._train_sampler: EpochSampler = sampler
            return sampler
        chosen = next((method for method in self.methods if isinstance(method, ChoosesRows)), None)
        length, choose = (None, None) if chosen is None else (len(chosen), chosen.rows)
        self._train_sampler = EpochSampler(len(dataset), seed, length, choose, self._length_groups(dataset))
        return self._train_sampler

    def _length_groups(self, dataset: Any) -> LengthGroups | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return None
        ranks, steps = self.args.world_size, self.args.gradient_accumulation_steps
        return LengthGroups(dataset.lengths, self._train_batch_size * steps * ranks)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        loader = super()._get_dataloader(*args, **kwargs)
        shard = loader.batch_sampler
        if kwargs.get("is_training") and isinstance(shard, BatchSamplerShard) and not shard.drop_last:
            if shard.split_batches:
                shard.split_batches, shard.batch_size = False, shard.batch_size // shard.num_processes
            self._rounds = WholeRounds(shard.batch_sampler.sampler, shard.batch_size, shard.num_processes)
            shard.batch_sampler, shard.even_batches = self._rounds, False
        return loader

    def num_examples(self, dataloader: DataLoader) -> int:
        """As upstream, which takes the rows of the data set for those of an epoch."""
        batches = dataloader.batch_sampler
        if isinstance(batches, BatchSamplerShard):
            batches = batches.batch_sampler
        if isinstance(batches, BatchSampler) and isinstance(batches.sampler, EpochSampler):
            return len(batches.sampler)
        return super().num_examples(dataloader)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        with self.measurement.waiting():
            batches = self._marked(epoch_iterator, num_batches)
            found, num_items = super().get_batch_samples(batches, num_batches, device)
        for batch in found:
            self.measurement.count_images(count_rows(batch), self.flops_of_row(batch))
        return found, num_items

    def _marked(self, batches: Iterator[Batch], number: int) -> Iterator[Batch]:
        """The batches of a step, the last of which may be there for the sake of the other processes alone."""
        ends = self.state.global_step + 1 == self._last_step_of_epoch
        is_repeated = ends and self._rounds is not None and not self._rounds.counts_last(self.args.process_index)
        for place, batch in enumerate(islice(batches, number), start=1):
            yield batch | {REPEATED: True} if is_repeated and place == number else batch

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | int | None:
        # upstream counts the elements of `labels`; soft labels of the loader are (B, C)
        labels = [batch["labels"][: count_rows(batch)] for batch in batch_samples]
        counted = [{"labels": found[..., 0] if found.ndim == 2 else found} for found in labels]
        return super()._get_num_items_in_batch(counted, device)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        inputs = super()._prepare_inputs(inputs)
        if not self.model.training:
            return inputs
        self._rows, self.is_repeated = inputs["rows"], inputs.pop(REPEATED, False)
        if self.train_transform is None:
            return self.train_dataset.complete(inputs)
        with self.measurement.transforming():
            return self.train_transform(self.train_dataset.complete(inputs))


def count_rows(batch: Batch) -> int:
    """How many rows of a training batch count."""
    return 0 if batch.get(REPEATED) else len(batch["labels"])
