"""What only a long run shows: memory that grows; and what a limit on it does."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LEAK = """
import sys
from transformers import TrainerCallback
from hf_accel.config.recipe import load_recipe
from hf_accel.machine.resources import anonymous_bytes
from hf_accel.training.build import build_trainer

class Memory(TrainerCallback):
    def on_evaluate(self, args, state, control, **kwargs):
        print("MIB", state.global_step, anonymous_bytes() / 2**20, flush=True)

trainer = build_trainer(load_recipe(sys.argv[1]))
trainer.add_callback(Memory())
trainer.train()
"""


def test_memory_stays_flat_over_many_steps_and_evaluations(tiny_recipe, tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is read from /proc")
    training = {"max_steps": 2000, "eval_strategy": "steps", "eval_steps": 100, "save_strategy": "no",
                "logging_steps": 50}  # fmt: skip
    tiny_recipe({"training": training}).write(tmp_path / "recipe.yaml")
    command = [sys.executable, "-c", LEAK, str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("MIB")]
    mib = {int(step): float(value) for _, step, value in found}
    assert len(mib) == 20
    assert mib[2000] - mib[500] < 3, mib


LIMITED = """
import resource, sys
import psutil
from hf_accel.cli import run_and_exit
from hf_accel.train import main
from hf_accel.training import build, finish
from hf_accel.training.trainer import ImageTrainer

train = ImageTrainer.train

def with_a_limit(self, *args, **kwargs):
    limit = psutil.Process().memory_info().vms + 30 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return train(self, *args, **kwargs)

ImageTrainer.train = with_a_limit
run_and_exit(main)
"""


def test_a_limit_on_memory_is_one_message(tiny_recipe, tmp_path):
    model = {"args": {"depth": 8, "width": 64}}
    patch = {"model": model, "data": {"image_size": 96}, "training": {"per_device_train_batch_size": 16}}
    recipe = tiny_recipe(patch)
    recipe.write(tmp_path / "recipe.yaml")
    words = ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", str(recipe.output_dir)]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr[-3000:]
    assert done.stderr.count("error: ") == 1
    assert "memory ran out" in done.stderr or "no further thread" in done.stderr
    assert "Traceback" not in done.stderr
