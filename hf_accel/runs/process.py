"""A run in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hf_accel import terminal

TRAIN = (sys.executable, "-m", "hf_accel.train")
# A comparison that is killed must not leave a run behind that slows down the next one: PR_SET_PDEATHSIG of prctl(2), which
# the run keeps through exec. subprocess' preexec_fn would do it too, but is unsafe where there are threads.
ENDS_WITH_PARENT = (
    sys.executable,
    "-c",
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}); os.execv(sys.argv[1], sys.argv[1:])",
)
# Set by launchers that start several processes: torch's, and those of MPI, which accelerate can use.
RANK_IS_KNOWN = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
TASKS_OF_SLURM = "SLURM_STEP_NUM_TASKS"  # set by srun


def missing_processes(environment: Mapping[str, str]) -> str | None:
    """A warning where several processes were asked for and this one is alone; else None.

    With --cpu, or without --multi_gpu on CPUs, `accelerate launch` starts one process whatever --num_processes and
    --num_machines say. It names an address of the first process, which it does for several only, but tells nobody of a rank.
    `srun` starts one for each task, and connects none of them.
    """
    tasks = environment.get(TASKS_OF_SLURM, "1")
    if tasks not in ("0", "1") and not any(name in environment for name in RANK_IS_KNOWN):
        return (
            f"srun started {tasks} tasks, and each of them trains alone. Start one task per machine with --ntasks-per-node 1, "
            "and in it `accelerate launch` or torchrun."
        )
    launched = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if not launched or any(name in environment for name in RANK_IS_KNOWN):
        return None
    return (
        "this is the only process, although `accelerate launch` was asked for more: with --cpu it starts one. On "
        "CPUs use `accelerate launch --multi_gpu --num_processes N` without --cpu, or torchrun --nproc_per_node N."
    )


def warn_of_missing_processes() -> None:
    """Print that warning to stderr, if there is one."""
    warning = missing_processes(os.environ)
    if warning is not None:
        terminal.warn(warning)


def run_process(
    options: Sequence[str],
    output: Path,
    tick: Callable[[], None],
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> tuple[int, str]:
    """Run a command with its output in a file; returns the exit status and the output.

    Args:
        tick: called about once a second while it lasts.
        command: what the options are given to; None: TRAIN.
        environment: variables that it gets in addition.
        limit: seconds after which the process is killed.
    Raises:
        TimeoutError: it was killed after `limit` seconds.
    """
    started = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*(ENDS_WITH_PARENT if sys.platform == "linux" else ()), *(command or TRAIN), *options],
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    tick()
                    if limit is not None and time.monotonic() - started >= limit:
                        raise TimeoutError(f"it did not end within {limit:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return process.returncode, output.read_text(encoding="utf-8", errors="replace")


def failure_reason(code: int, output: str) -> str:
    """Why a run failed, in a line."""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"ended by {name}{memory}"
    return last_words(output)


def last_words(output: str) -> str:
    """The line that says what went wrong: the command's own message, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (messages or lines or ["it left no message"])[-1]
