"""Commands in two processes on a CPU, as `accelerate launch` starts them, or forked from one that has imported everything."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.distributed.elastic.utils.distributed import get_free_port

from hf_accel.cli import run as run_command
from hf_accel.config.recipe import Recipe
from hf_accel.report.run_report import RunReport
from hf_accel.train import main

# without --multi_gpu accelerate would silently start one process
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
LONGEST_SECONDS = 600
TWO = ("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


def launch(*words: Any, options: tuple[str, ...] = TWO) -> subprocess.CompletedProcess[str]:
    """Start a script with its arguments, or `-m` and a module, and wait for it; it may fail."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *words]
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, timeout=LONGEST_SECONDS
    )


def output_of_two(*words: Any) -> str:
    """What the command prints; it must succeed."""
    done = launch(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train_in_two_processes(recipe: Recipe, file: Path) -> RunReport:
    """Write the recipe to the file and run it; its report is that of two ranks, not of one that nobody noticed.

    The ranks are forked, which takes a third of the time of a launcher and two commands that import torch.
    """
    recipe.write(file)
    port = get_free_port()
    context = multiprocessing.get_context("forkserver")
    logs = [file.with_name(f"{file.name}.{rank}.log") for rank in range(2)]
    ranks = [context.Process(target=_rank, args=(rank, port, str(file), str(log))) for rank, log in enumerate(logs)]
    for process in ranks:
        process.start()
    try:
        for process, log in zip(ranks, logs, strict=True):
            process.join(LONGEST_SECONDS)
            assert process.exitcode == 0, log.read_text("utf-8", "replace")[-3000:]
    finally:
        for process in ranks:
            process.kill()
            process.join()
    report = RunReport.load(recipe.output_dir)
    assert report.train.world_size == 2
    return report


def _rank(rank: int, port: int, recipe: str, log: str) -> None:
    """Train in this process, which is forked for it, with the variables that a launcher sets."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), ACCELERATE_MIXED_PRECISION="no",
    )  # fmt: skip
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a command of its own
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = run_command(main, ["--recipe", recipe])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launch_on_two_machines(folders: Sequence[Path], *words: Any) -> list[subprocess.CompletedProcess[str]]:
    """Start a command as two machines do that reach each other: one process each, in a working folder each."""
    port = get_free_port()
    begun = []
    for rank, folder in enumerate(folders):
        options = ("--multi_gpu", "--num_machines", 2, "--num_processes", 2, "--machine_rank", rank,
                   "--main_process_ip", "127.0.0.1", "--main_process_port", port)  # fmt: skip
        command = [*map(str, (sys.executable, "-m", "accelerate.commands.launch", *options, *words))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        begun.append(subprocess.Popen(command, cwd=folder, **pipes))
    try:
        ends = [(process, process.communicate(timeout=300)) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [subprocess.CompletedProcess(process.args, process.returncode, *output) for process, output in ends]
