"""The configurations of `accelerate launch` in recipes/accelerate."""

import subprocess

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from hf_accel.config.recipe import LAUNCH_FILES, RECIPES_FOLDER, shipped_recipes

FILES = sorted((RECIPES_FOLDER / LAUNCH_FILES).glob("*.yaml"))
TYPES = {"ddp": "MULTI_GPU", "deepspeed_zero": "DEEPSPEED", "fsdp2": "FSDP", "multi_node": "MULTI_GPU"}


def test_they_are_not_listed_as_recipes():
    assert {file.stem for file in FILES} == set(TYPES)
    assert not set(TYPES) & set(shipped_recipes())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_every_one(file):
    config = load_config_from_file(str(file))
    assert config.distributed_type == DistributedType(TYPES[file.stem])
    assert config.num_processes % config.num_machines == 0
    assert not config.use_cpu
    assert config.mixed_precision == "no"  # else it would overrule training.bf16


def test_the_script_for_slurm_is_a_script():
    subprocess.run(["bash", "-n", RECIPES_FOLDER / LAUNCH_FILES / "slurm.sh"], check=True)
