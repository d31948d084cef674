"""The order of a stream: every row once, neighbours for each reader, and the order of loaded data where nothing is left out."""

import itertools

import numpy as np
import pytest

from hf_accel.data.streaming import StreamedRows
from hf_accel.inputs.sampling import EpochSampler
from hf_accel.inputs.stream import StreamSampler, in_turn, stream_order


class Numbers:
    """A shard whose images are the numbers of their rows."""

    def __init__(self, first, parts):
        self.first, self.parts = first, parts

    def read(self, part, column):
        start = self.first + sum(self.parts[:part])
        return [{"bytes": bytes([row]), "path": None} for row in range(start, start + self.parts[part])]


def made_rows(window, shards=((5, 5, 5), (5, 5), (3,), (5, 5, 2), (5, 5, 5, 5), (4, 4, 4))):
    ends = np.cumsum([sum(parts) for parts in shards])
    return StreamedRows(
        [Numbers(end - sum(parts), parts) for end, parts in zip(ends, shards, strict=True)], "image", window
    )


def batches(order, size):
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("readers", [1, 2, 6])
@pytest.mark.parametrize("buffer", [1, 7, 1000])
def test_an_epoch_has_every_row_once_and_another_order_in_the_next(batch_size, readers, buffer):
    shards = made_rows(1).shard_numbers()
    first, again, second, seed = (
        stream_order(shards, s, epoch, buffer, batch_size, readers) for s, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert sorted(first.tolist()) == list(range(len(shards)))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != seed).any()


def test_one_reader_whose_buffer_holds_all_rows_has_the_order_of_loaded_data():
    rows = made_rows(72)
    stream, loaded = StreamSampler(rows, 3, 8, 1), EpochSampler(len(rows), 3)
    for epoch in range(3):
        stream.set_epoch(epoch)
        loaded.set_epoch(epoch)
        assert list(stream) == list(loaded)


def test_without_a_buffer_shards_change_their_places_and_rows_do_not():
    shards = made_rows(1).shard_numbers()
    order = stream_order(shards, 0, 0, buffer=1)
    pieces = [list(group) for _, group in itertools.groupby(order.tolist(), key=lambda row: shards[row])]
    assert len(pieces) == 6
    assert all(piece == sorted(piece) for piece in pieces)


def test_a_row_moves_by_less_than_the_buffer():
    shards = made_rows(1).shard_numbers()
    still, moved = (np.argsort(stream_order(shards, 0, 0, buffer)) for buffer in (1, 10))
    assert 0 < np.abs(still - moved).max() < 10


@pytest.mark.parametrize("readers", [1, 2, 3, 6])
@pytest.mark.parametrize("buffer", [1, 6, 20])
def test_each_reader_reads_a_part_once_and_keeps_few(readers, buffer):
    """Batches go to readers in turn, as the DataLoader and Accelerate deal them out."""
    rows, read = made_rows(buffer), 0
    order = stream_order(rows.shard_numbers(), 0, 0, buffer, batch_size=4, readers=readers)
    for reader in range(readers):
        own = made_rows(buffer)
        for batch in batches(order, 4)[reader::readers]:
            for row in batch:
                assert own[int(row)]["image"]["bytes"] == bytes([row])
                assert sum(map(len, own._kept.values())) <= buffer + 2 * 5
        read += own.parts_read
        assert len(set(own._kept)) == len(own._kept)
    assert len(rows.places) <= read <= len(rows.places) + readers - 1, "a part is shared only where two readers meet"


def test_an_evaluation_reads_neighbours_too():
    rows = np.arange(72)
    order = in_turn(rows, 10, 3)
    assert sorted(order.tolist()) == rows.tolist()
    for reader in range(3):
        own = np.concatenate(batches(order, 10)[reader::3])
        np.testing.assert_array_equal(own, np.arange(own[0], own[0] + len(own)))


def test_a_change_of_readers_within_an_epoch_is_said(caplog):
    rows = made_rows(8)
    sampler = StreamSampler(rows, 0, 4, readers=2)
    sampler.load_state_dict(sampler.state_dict())
    assert not caplog.records
    sampler.load_state_dict(StreamSampler(rows, 0, 4, readers=4).state_dict())
    assert "readers was 4 and is 2" in caplog.text
