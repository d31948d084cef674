"""Processes that are forked from a server: their output, their end, their limit."""

import sys

import pytest

from hf_accel.runs.forked import can_fork, run_forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
MODULE = "tests.support.forked_main"


def test_a_forked_process_leaves_its_output_and_its_code(tmp_path):
    code, output = run_forked(MODULE, ["3"], tmp_path / "output.txt", lambda: None)
    assert (code, output) == (3, "called with 3\n")
    code, output = run_forked(MODULE, ["wrong"], tmp_path / "output.txt", lambda: None)
    assert (code, output) == (2, "error: expected a number\n")
    code, output = run_forked(MODULE, ["kill"], tmp_path / "output.txt", lambda: None)
    assert code == -9


def test_a_forked_process_that_does_not_end_is_killed(tmp_path):
    with pytest.raises(TimeoutError, match="did not end within"):
        run_forked(MODULE, ["hang"], tmp_path / "output.txt", lambda: None, limit=0.2)


def test_a_device_that_a_fork_would_break_is_not_forked():
    assert can_fork("cpu")
    assert not can_fork("NVIDIA H100")
    assert not can_fork(None)
