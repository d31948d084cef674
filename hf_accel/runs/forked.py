"""Processes that begin with their imports done: they are forked from a server that has loaded a module and run nothing.

Loading torch and transformers takes longer than a few steps of a small network. What such a process sets (thread counts, TF32
flags, compile caches) ends with it, as in a new one. A device that was touched cannot be used after a fork, so this is for
CPUs, and for Linux, where forking is safe with these libraries.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from hf_accel.cli import run

TICK_SECONDS = 1.0


def can_fork(device: str | None) -> bool:
    """Whether such processes can be used for this device, as `describe_environment` names it."""
    return sys.platform == "linux" and device == "cpu"


def run_forked(
    module: str, argv: Sequence[str], output: Path, tick: Callable[[], None], limit: float | None = None
) -> tuple[int, str]:
    """Call `main(argv)` of a module in such a process, with its output in a file.

    Args and returns as for `runs.process.run_process`.

    Raises:
        TimeoutError: it was killed after `limit` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    process = context.Process(target=_call, args=(module, list(argv), str(output), multiprocessing.get_start_method()))
    started = time.monotonic()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # ^C is for the command, which ends the others
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        while process.is_alive():
            process.join(TICK_SECONDS)
            tick()
            if limit is not None and process.is_alive() and time.monotonic() - started >= limit:
                raise TimeoutError(f"it did not end within {limit:.0f} s")
    finally:
        if process.is_alive():
            process.kill()
        process.join()
    code = process.exitcode
    assert code is not None, "it was joined"
    return code, output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""


def _call(module: str, argv: list[str], output: str, start_method: str) -> None:
    """In the process: ends with the server, which ends with the command that asked for it.

    Args:
        start_method: of processes that it starts, such as those of a DataLoader; it would be the server's.
    """
    multiprocessing.set_start_method(start_method, force=True)
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG of prctl(2)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.exit(run(import_module(module).main, argv))
