"""FSDP2 on two processes of a CPU, with the launch files that docs/scale.md names, against DDP."""

import json
from types import SimpleNamespace

import pytest

from hf_accel import cli, evaluate, verify
from hf_accel.config.recipe import LAUNCH_FILES, RECIPES_FOLDER
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.training.checks import refuse_unsharded
from tests.support.two_processes import launch

SHARDED = """
import sys
from tests.support.sharding import shard_on_cpus
from hf_accel import cli, train

shard_on_cpus()
cli.run_and_exit(lambda argv: train.main(sys.argv[1:]))
"""


@pytest.fixture
def start(tiny_recipe, tmp_path):
    """Run a recipe under a launch file in two processes; its report."""
    training = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "save_strategy": "steps",
                "save_steps": 2, "eval_strategy": "no", "load_best_model_at_end": False}  # fmt: skip
    data = {"validation": 0, "max_train_rows": 17}
    tiny_recipe({"training": training, "data": data, "model": {"freeze_batch_norm": True}}).write(tmp_path / "run.yaml")
    (tmp_path / "sharded.py").write_text(SHARDED)

    def run(name, folder, *flags):
        options = ("--config_file", RECIPES_FOLDER / LAUNCH_FILES / f"{name}.yaml", "--num_processes", "2")
        command = ("-m", "hf_accel.train") if name == "ddp" else (tmp_path / "sharded.py",)
        words = (*command, "--recipe", tmp_path / "run.yaml", "--output_dir", tmp_path / folder, *flags)
        done = launch(*words, options=options)
        assert done.returncode == 0, done.stderr[-3000:]
        return RunReport.load(tmp_path / folder)

    return run


def losses(report):
    return [entry["loss"] for entry in report.history]


@pytest.mark.slow
def test_fsdp2_gives_what_ddp_gives_and_its_model_is_whole(start, photos, tmp_path, capsys):
    whole, sharded = start("ddp", "ddp"), start("fsdp2", "fsdp2")
    assert [(report.train.world_size, report.train.parallel) for report in (whole, sharded)] == [
        (2, "ddp"),
        (2, "fsdp2"),
    ]
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-4)
    assert sharded.test.loss == pytest.approx(whole.test.loss, rel=1e-4)
    assert cli.run(verify.main, [str(tmp_path / "fsdp2")]) == 0
    capsys.readouterr()
    assert cli.run(evaluate.main, [str(tmp_path / "fsdp2"), "--data.name", str(photos), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(sharded.test.loss, rel=1e-5)


@pytest.mark.slow
def test_a_run_of_fsdp2_resumes(start, tmp_path):
    whole = start("fsdp2", "whole")
    within = tmp_path / "whole" / "checkpoint-4"
    resumed = start("fsdp2", "resumed", "--resume_from_checkpoint", within)
    assert losses(resumed)[-2:] == pytest.approx(losses(whole)[-2:], rel=1e-5)
    assert resumed.test.loss == pytest.approx(whole.test.loss, rel=1e-5)


def test_fsdp_on_cpus_is_refused_because_accelerate_leaves_it_out(monkeypatch):
    args = SimpleNamespace(fsdp=None, world_size=2, device=SimpleNamespace(type="cpu"))
    refuse_unsharded(args, is_sharded=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    refuse_unsharded(args, is_sharded=True)
    with pytest.raises(
        UserError, match="FSDP is asked for, and Accelerate shards weights on accelerators only, not on cpu"
    ):
        refuse_unsharded(args, is_sharded=False)
