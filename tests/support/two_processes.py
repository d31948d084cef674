"""Commands in two processes on a CPU, as `accelerate launch` starts them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.report.run_report import RunReport

# without --multi_gpu accelerate would silently start one process
TWO = ("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


def launch(*words: Any, options: tuple[str, ...] = TWO, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Start a script with its arguments, or `-m` and a module, and wait for it; it may fail."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    settings = {"capture_output": True, "text": True, "env": environment, "timeout": 600, **kwargs}
    return subprocess.run([*map(str, command)], **settings)


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
