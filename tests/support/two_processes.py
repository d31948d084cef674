"""Commands in two processes on a CPU, as `accelerate launch` starts them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.distributed.elastic.utils.distributed import get_free_port

from hf_accel.config.recipe import Recipe
from hf_accel.report.run_report import RunReport

# without --multi_gpu accelerate would silently start one process
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TWO = ("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


def launch(*words: Any, options: tuple[str, ...] = TWO) -> subprocess.CompletedProcess[str]:
    """Start a script with its arguments, or `-m` and a module, and wait for it; it may fail."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, timeout=600)


def output_of_two(*words: Any) -> str:
    """What the command prints; it must succeed."""
    done = launch(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train_in_two_processes(recipe: Recipe, file: Path) -> RunReport:
    """Write the recipe to the file and run it; its report is that of two ranks, not of one that nobody noticed."""
    recipe.write(file)
    output_of_two("-m", "hf_accel.train", "--recipe", file)
    report = RunReport.load(recipe.output_dir)
    assert report.train.world_size == 2
    return report


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
