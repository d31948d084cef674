"""What the environment of a launcher says about the processes that were asked for."""

import json
import os
import subprocess
import sys

import pytest

from hf_accel.runs.process import missing_processes

SIMPLE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"}  # what accelerate's simple launcher sets
SEVERAL = SIMPLE | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # and that, where several were asked for


@pytest.mark.parametrize(
    ("environment", "is_missing"),
    [
        ({}, False),
        (SIMPLE, False),
        (SEVERAL, True),
        ({"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, False),
        (SEVERAL | {"RANK": "0", "WORLD_SIZE": "2"}, False),
        (SEVERAL | {"OMPI_COMM_WORLD_SIZE": "2"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4", "RANK": "0", "WORLD_SIZE": "4"}, False),
    ],
)
def test_the_warning_comes_where_several_were_asked_for_and_one_was_started(environment, is_missing):
    assert (missing_processes(environment) is not None) == is_missing


@pytest.mark.slow
def test_accelerate_starts_one_process_on_a_cpu_and_the_run_says_so(photos, tmp_path):
    flags = {"--data.name": photos, "--output_dir": tmp_path / "run", "--max_steps": 1, "--data.image_size": 16}
    flags |= {"--model.name": "hf_accel/cifar_resnet20", "--model.pretrained": "false"}
    words = [str(word) for pair in flags.items() for word in pair]
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "hf_accel.train", *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: this is the only process") == 1
    assert json.loads((tmp_path / "run" / "report.json").read_text())["train"]["world_size"] == 1
