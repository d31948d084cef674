"""A recipe trained by two processes, as `accelerate launch` starts them."""

import os
import subprocess
import sys
from pathlib import Path

from hf_accel.config.recipe import Recipe
from hf_accel.report.run_report import RunReport


def train_in_two_processes(recipe: Recipe, file: Path) -> RunReport:
    """Write the recipe to the file and run it; its report is that of two ranks, not of one that nobody noticed."""
    recipe.write(file)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--main_process_port", "0", "-m", "hf_accel.train", "--recipe", str(file)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    report = RunReport.load(recipe.output_dir)
    assert report.train.world_size == 2
    return report
