"""Errors of the machine are one message with what to do; errors of the code keep their traceback."""

import errno
import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hf_accel.cli import run
from hf_accel.errors import UserError, machine_failure, own_words


class Rows(Dataset):
    """Three rows; a worker that reads the second one does what it is told."""

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 3

    def __getitem__(self, row):
        if row == 1:
            self.act()
        return row


def refuse():
    try:
        raise ValueError("truncated")
    except ValueError as error:
        raise UserError("b.jpg: cannot be read. Fix it.") from error


def error_of(act):
    with pytest.raises(Exception) as raised:  # noqa: PT011  each case has its own
        act()
    return raised.value


def read_all(act):
    list(DataLoader(Rows(act), num_workers=1))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_a_data_loading_process_that_is_gone_is_one_message(number, capsys):
    assert run(lambda argv: read_all(lambda: os.kill(os.getpid(), number)), []) == 1
    error = capsys.readouterr().err
    assert "error: a data-loading process " in error
    assert "memory or shared memory runs out. What was saved before stays" in error
    assert "--dataloader_num_workers" in error
    assert "Traceback" not in error


def test_a_connection_that_breaks_in_a_loader_is_a_process_that_is_gone(monkeypatch):
    def broken(*_, **__):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._get_data", broken)
    assert "a data-loading process is gone" in machine_failure(error_of(lambda: read_all(lambda: None)))
    assert "data-loading" not in machine_failure(error_of(broken))


@pytest.mark.slow
def test_a_message_from_a_data_loading_process_is_the_message_alone(capsys):
    assert "Traceback" in str(error_of(lambda: read_all(refuse)))
    assert own_words(error_of(lambda: read_all(refuse))) == "b.jpg: cannot be read. Fix it."
    assert run(lambda argv: read_all(refuse), []) == 2
    assert capsys.readouterr().err == "error: b.jpg: cannot be read. Fix it.\n"


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device", "outputs/x")


def over_quota():
    raise OSError(errno.EDQUOT, "Disk quota exceeded", "outputs/x")


def torch_save_on_a_full_disk():
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def no_memory_on_the_device():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB")


def not_permitted():
    raise PermissionError(errno.EACCES, "Permission denied", "outputs/x/checkpoint-10")


def too_many_files():
    raise OSError(errno.EMFILE, "Too many open files")


def no_thread():
    raise RuntimeError("can't start new thread")


def no_process():
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def other_process_gone():
    raise torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1. Original reason")


def device_failed():
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered. Compile with more checks")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (no_space, "no space left on the device"),
        (over_quota, "no space left on the device"),
        (torch_save_on_a_full_disk, "no space left on the device"),
        (lambda: torch.zeros(10**15), "memory ran out ([enforce fail at alloc_cpu.cpp"),
        (lambda: np.zeros(10**15), "memory ran out (Unable to allocate 7.11 PiB"),
        (no_memory_on_the_device, "memory ran out (CUDA out of memory)"),
        (not_permitted, "outputs/x/checkpoint-10: Permission denied"),
        (too_many_files, "Too many open files"),
        (no_thread, "no further thread or process could be started (can't start new thread)"),
        (no_process, "no further thread or process could be started ([Errno 11] Resource temporarily unavailable)"),
        (other_process_gone, "the processes of this run lost each other (NCCL communicator was aborted on rank 1)"),
        (device_failed, "the device failed (CUDA error: an illegal memory access was encountered)"),
    ],
)
def test_a_failure_of_the_machine_is_one_message_that_says_what_stays(act, message, capsys):
    assert run(lambda argv: act(), []) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert "What was saved before stays" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), KeyError("a"), OSError("no number"), ValueError("x"), TypeError()]
)
def test_other_errors_are_not_explained(error):
    assert machine_failure(error) is None


def test_a_name_that_no_file_can_have_is_the_users_mistake(capsys):
    assert run(lambda argv: open("x" * 300), []) == 2  # noqa: SIM115
    error = capsys.readouterr().err
    assert error.startswith(f"error: {'x' * 60}…: is too long for the name of a file, expected at most 255 bytes")
    assert "What was saved" not in error
