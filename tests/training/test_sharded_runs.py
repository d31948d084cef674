"""FSDP2 on two processes of a CPU, with the launch files that docs/scale.md names, against DDP."""

import json
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from hf_accel import cli, evaluate, verify
from hf_accel.config.recipe import LAUNCH_FILES, RECIPES_FOLDER
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.training.sharding import PLAIN_LAYOUT, SHARDED_ON_CPUS, shard_on_cpus
from tests.support.two_processes import launch


@pytest.fixture
def start(tiny_recipe, tmp_path):
    """Run a recipe under a launch file in two processes; its report."""
    model = {"freeze_batch_norm": True, "channels_last": True}
    training = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "save_strategy": "steps",
                "save_steps": 2, "eval_strategy": "no", "load_best_model_at_end": False}  # fmt: skip
    data = {"validation": 0, "max_train_rows": 17}
    tiny_recipe({"training": training, "data": data, "model": model}).write(tmp_path / "run.yaml")

    def run(name, folder, *flags):
        options = ("--config_file", RECIPES_FOLDER / LAUNCH_FILES / f"{name}.yaml", "--num_processes", "2")
        words = ("-m", "hf_accel.train", "--recipe", tmp_path / "run.yaml", "--output_dir", tmp_path / folder, *flags)
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
    # a run without this note: Accelerate shards on CPUs itself, and hf_accel/training/sharding.py can go
    assert [SHARDED_ON_CPUS in report.notes for report in (whole, sharded)] == [False, True]
    assert [PLAIN_LAYOUT in report.notes for report in (whole, sharded)] == [False, True]
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-4)
    assert sharded.test.loss == pytest.approx(whole.test.loss, rel=1e-4)
    assert cli.run(verify.main, [str(tmp_path / "fsdp2")]) == 0
    capsys.readouterr()
    assert cli.run(evaluate.main, [str(tmp_path / "fsdp2"), "--data.name", str(photos), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(sharded.test.loss, rel=1e-5)


@pytest.mark.slow
def test_fsdp2_computes_in_bf16_as_ddp_does(start):
    whole = start("ddp", "ddp", "--bf16", "true")
    sharded, exact = start("fsdp2", "fsdp2", "--bf16", "true"), start("fsdp2", "exact")
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-2)
    assert losses(sharded) != pytest.approx(losses(exact), rel=1e-6)
    assert sharded.test.loss == pytest.approx(whole.test.loss, rel=1e-2)


@pytest.mark.slow
def test_a_run_of_fsdp2_resumes(start, tmp_path):
    whole = start("fsdp2", "whole")
    within = tmp_path / "whole" / "checkpoint-4"
    resumed = start("fsdp2", "resumed", "--resume_from_checkpoint", within)
    assert losses(resumed)[-2:] == pytest.approx(losses(whole)[-2:], rel=1e-5)
    assert resumed.test.loss == pytest.approx(whole.test.loss, rel=1e-5)


def test_the_first_version_of_fsdp_does_not_shard_on_cpus(monkeypatch):
    state = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU, mixed_precision="no")
    accelerator = SimpleNamespace(state=state)
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert not shard_on_cpus(accelerator, SimpleNamespace(fsdp_plugin_args=None))
    with pytest.raises(UserError, match=r"version 1 is asked for, and on CPUs only version 2 shards.*fsdp2\.yaml"):
        shard_on_cpus(accelerator, SimpleNamespace(fsdp_plugin_args={"fsdp_version": 1}))
    assert state.distributed_type == DistributedType.MULTI_CPU
