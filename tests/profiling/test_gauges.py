"""The counters of this process."""

import mmap

import numpy as np
import pytest

from hf_accel.profiling.gauges import Gauges, _opened, seconds_since_start

MIB = 2**20


@pytest.fixture
def gauges():
    gauges = Gauges()
    if gauges.read().requested_bytes is None or gauges.memory()[0] is None:
        pytest.skip("this system shows no counters in /proc")
    return gauges


def test_reading_a_file_moves_the_bytes_of_read_calls(gauges, tmp_path):
    (tmp_path / "file").write_bytes(bytes(3 * MIB))
    before = gauges.read()
    (tmp_path / "file").read_bytes()
    after = gauges.read()
    assert 3 * MIB <= after.requested_bytes - before.requested_bytes < 4 * MIB
    assert after.wall > before.wall
    assert after.cpu >= before.cpu


def test_an_array_is_anonymous_memory(gauges):
    before = gauges.memory()
    array = np.frombuffer(
        mmap.mmap(-1, 64 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=np.uint8
    )  # not from memory that was freed
    array[:] = 1
    after = gauges.memory()
    assert array[-1] == 1
    assert after[1] - before[1] > 48 * MIB
    assert after[0] >= after[1]


def test_what_the_system_does_not_show_is_missing_and_not_zero(tmp_path):
    assert _opened(str(tmp_path / "absent")) is None
    gauges = Gauges()
    gauges._io = gauges._memory = None
    found = gauges.read()
    assert (found.read_bytes, found.written_bytes, found.requested_bytes, found.rss, found.anonymous) == (None,) * 5


def test_the_process_is_older_than_this_test():
    assert seconds_since_start() > 0
