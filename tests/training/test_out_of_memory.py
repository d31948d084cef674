"""A step in which memory runs out is repeated in smaller parts: nothing is lost, and the step is the same."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
from transformers import TrainerCallback

from hf_accel.cli import run as run_command
from hf_accel.config.recipe import apply_patch
from hf_accel.errors import RunError, UserError
from hf_accel.report.run_report import RunReport
from hf_accel.train import main, train
from hf_accel.training.build import build_trainer
from hf_accel.training.checks import refuse_sharding
from hf_accel.training.out_of_memory import parts
from tests.support.trained import assert_same_but_for_rounding, differing, losses, weights

ASKED = {
    "model": {"freeze_batch_norm": True},
    "data": {"augment": {"crop": "none", "mixup": 0.5}},
    "training": {"auto_find_batch_size": True, "num_train_epochs": 2, "logging_steps": 1, "optim": "sgd",
                 "eval_strategy": "no", "save_strategy": "steps", "save_steps": 4},
}  # fmt: skip
ERRORS = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "host": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
}


@contextlib.contextmanager
def little_memory(trainer, rows, place="backward", error="device", first_step=1, times=999, skipped=0):
    """Within, memory runs out in forward or backward passes of more rows, from a step on, at most so many times.

    The first of these passes may be skipped.

    Yields a list with the rows of each attempt that failed.
    """
    failed, passed = [], []

    def forward(module, args, output):
        count = len(output["logits"])
        if not module.training or trainer.state.global_step + 1 < first_step or count <= rows or len(failed) >= times:
            return
        if len(passed) < skipped:
            passed.append(count)
            return

        def fail(gradient=None):
            failed.append(count)
            raise ERRORS[error]()

        if place == "forward":
            fail()
        output["logits"].register_hook(fail)

    hook = trainer.model.register_forward_hook(forward)
    try:
        yield failed
    finally:
        hook.remove()


def made(tiny_recipe, tmp_path, folder, *patches):
    return build_trainer(tiny_recipe(ASKED, *patches, {"training": {"output_dir": str(tmp_path / folder)}}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "place", "error"), [(0, "forward", "host"), (0, "backward", "device"), (1, "backward", "host")]
)
def test_the_run_is_that_with_enough_memory(batch, place, error, tiny_recipe, tmp_path):
    """Memory runs out in the third step, in its first batch or in its second one."""
    accumulated = {"training": {"gradient_accumulation_steps": 2}}
    enough, little = (made(tiny_recipe, tmp_path, name, accumulated) for name in ("enough", "little"))
    enough.train()
    with little_memory(little, 2, place, error, first_step=3, skipped=batch) as failed:
        little.train()
    assert failed == [8, 4]
    assert little.smaller_batches.halvings == [(3, 2)]
    assert little.state.global_step == enough.state.global_step == 4
    assert_same_but_for_rounding(enough, little)
    assert little.train_accuracy() == enough.train_accuracy()
    assert little.train_accuracy_counts.seen == enough.train_accuracy_counts.seen == 19
    assert little.state.total_flos == enough.state.total_flos
    assert enough.smaller_batches.halvings == []


class Smaller(TrainerCallback):
    """Has a trainer divide its batches from a step on, without an error."""

    def __init__(self, trainer, step, rows):
        self.trainer, self.step, self.rows = trainer, step, rows

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.trainer.smaller_batches.rows = self.rows


VIT = {"name": "timm/vit_tiny_patch16_224", "pretrained": False,
       "args": {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2, "proj_drop_rate": 0.5}}  # fmt: skip
REPEATED = {
    "batch norm": {"model": {"freeze_batch_norm": False}},
    "dropout": {"model": VIT},
    "rows by loss": {"data": {"hard_examples": {"fraction": 0.9}, "augment": {"mixup": 0.0}}},
    "int8": {"training": {"quantization": {"begin": 0.0}}},
    "checkpointed batch norm": {"model": {"name": "hf_accel/cifar_airbench94", "args": {"widths": [8, 8, 8]},
                                          "pretrained": False, "freeze_batch_norm": False},
                                "training": {"gradient_checkpointing": True}},
    "accumulation": {"training": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", REPEATED)
def test_nothing_of_an_attempt_that_failed_is_left_and_a_resumed_run_goes_on_with_smaller_parts(
    what, tiny_recipe, tmp_path
):
    patch, rows = REPEATED[what], 2 if what == "accumulation" else 4
    divided = made(tiny_recipe, tmp_path, "divided", patch)
    divided.add_callback(Smaller(divided, 4, rows))
    divided.train()
    failed_once = made(tiny_recipe, tmp_path, "failed", patch)
    with little_memory(failed_once, rows, first_step=4):
        failed_once.train()
    assert not differing(weights(divided), failed_once.model.state_dict())
    assert losses(divided) == losses(failed_once)
    assert divided.train_accuracy() == failed_once.train_accuracy()
    assert failed_once.smaller_batches.halvings == [(4, rows)]

    resumed = made(tiny_recipe, tmp_path, "failed", patch)
    resumed.train(resume_from_checkpoint=str(tmp_path / "failed" / "checkpoint-4"))
    assert not differing(weights(divided), resumed.model.state_dict())
    assert losses(divided) == losses(resumed)
    assert resumed.smaller_batches.halvings == [(4, rows)]


@pytest.mark.slow
def test_it_is_in_the_log_and_in_the_report(tiny_recipe, monkeypatch):
    monkeypatch.setattr("hf_accel.training.build.build_trainer", with_little_memory(4, times=1))
    folder = train(tiny_recipe(ASKED, {"model": {"freeze_batch_norm": False}}))
    report, log = RunReport.load(folder), " ".join((folder / "log.txt").read_text("utf-8").split())
    assert report.train.out_of_memory == [[1, 4]]
    assert report.train.effective_batch_size == 8
    assert (report.train.steps, report.train.repeated_steps) == (6, 0)
    assert "since step 1 a forward pass has at most 4 of the 8 rows of a batch" in "".join(report.notes)
    assert "step 1: memory ran out (CUDA out of memory). The step was repeated with at most 4 of the 8 rows" in log
    assert "batch norm takes its statistics from 4 rows" in log


def with_little_memory(rows, **how):
    """`build_trainer` of a machine with little memory."""

    def build(*args, **kwargs):
        trainer = build_trainer(*args, **kwargs)
        trainer.little_memory = little_memory(trainer, rows, **how)  # which ends when nothing refers to it
        trainer.little_memory.__enter__()
        return trainer

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (True, "step 1: memory ran out with 1 row(s) in a forward pass (CUDA out of memory)"),
        (False, "memory ran out (CUDA out of memory)"),
    ],
)
def test_a_run_for_which_there_is_no_memory_ends_with_one_message(
    asked, message, tiny_recipe, tmp_path, monkeypatch, capsys
):
    recipe = tiny_recipe(ASKED, {"training": {"auto_find_batch_size": asked}})
    recipe.write(tmp_path / "recipe.yaml")
    monkeypatch.setattr("hf_accel.training.build.build_trainer", with_little_memory(0))
    assert run_command(main, ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.count(f"error: {message}") == 1
    assert "Traceback" not in error


@pytest.mark.slow
def test_another_error_is_not_taken_for_memory(tiny_recipe, monkeypatch):
    monkeypatch.setitem(ERRORS, "device", lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    trainer = build_trainer(tiny_recipe(ASKED))
    with little_memory(trainer, 4) as failed, pytest.raises(RuntimeError, match="cannot be multiplied"):
        trainer.train()
    assert failed == [8]


def test_parts_are_of_rows_and_share_the_rest():
    batch = {"labels": torch.arange(5), "pixels": torch.arange(10).view(5, 2), "side": 8, "scale": torch.tensor(2.0)}
    divided = list(parts(batch, 2))
    assert [part["labels"].tolist() for part in divided] == [[0, 1], [2, 3], [4]]
    assert [len(part["pixels"]) for part in divided] == [2, 2, 1]
    assert all(part["side"] == 8 and part["scale"] is batch["scale"] for part in divided)
    assert [part["labels"].tolist() for part in parts(batch, 5)] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("count", "rows", "sizes"), [(8, 2, [2] * 4), (3, 2, [3]), (5, 2, [3, 2]), (9, 4, [3, 3, 3]), (1, 4, [1])]
)
def test_no_part_has_a_single_row_where_batch_norm_needs_two(count, rows, sizes):
    assert [len(part["labels"]) for part in parts({"labels": torch.arange(count)}, rows, fewest=2)] == sizes


def test_it_is_refused_where_processes_wait_for_each_other_within_a_step():
    with pytest.raises(UserError, match="auto_find_batch_size repeats a step"):
        refuse_sharding(torch.nn.Linear(1, 1), None, [], False, repeats_steps=True)


TWO = """
import os, sys
from hf_accel.cli import run_and_exit
from hf_accel.train import main
from hf_accel.training import build
from tests.training.test_out_of_memory import with_little_memory
rows = int(sys.argv.pop(1))
if os.environ["RANK"] == "1":
    build.build_trainer = with_little_memory(rows, first_step=2)
run_and_exit(main)
"""


def in_two_processes(recipe, tmp_path, rows):
    """Train where the second process has memory for so many rows."""
    (tmp_path / "two.py").write_text(TWO)
    recipe.write(tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--main_process_port", "0", str(tmp_path / "two.py"), str(rows), "--recipe",
               str(tmp_path / "recipe.yaml"), "--output_dir", str(recipe.output_dir)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_two_processes_agree_and_their_run_is_that_of_one_with_enough_memory(tiny_recipe, tmp_path):
    even = apply_patch(ASKED, {"data": {"validation": 0.33}})  # 16 rows
    one = RunReport.load(train(tiny_recipe(even)))
    patch = {"training": {"per_device_train_batch_size": 4, "output_dir": str(tmp_path / "two")}}
    recipe = tiny_recipe(even, patch)
    done = in_two_processes(recipe, tmp_path, 2)
    assert done.returncode == 0, done.stderr[-3000:]
    two = RunReport.load(recipe.output_dir)
    assert two.train.world_size == 2
    assert two.train.out_of_memory == [[2, 2]]
    assert two.train.effective_batch_size == one.train.effective_batch_size == 8
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)


@pytest.mark.slow
def test_two_processes_end_together_with_one_message(tiny_recipe, tmp_path):
    patch = {"training": {"per_device_train_batch_size": 4, "output_dir": str(tmp_path / "two")}}
    done = in_two_processes(tiny_recipe(ASKED, patch), tmp_path, 0)
    assert done.returncode == 1
    assert done.stderr.count("error: step 2: memory ran out with 1 row(s) in a forward pass") == 1, done.stderr


@pytest.mark.gpu
def test_a_device_that_has_too_little_memory_is_enough(tiny_recipe):
    patch = {"training": {"auto_find_batch_size": True, "per_device_train_batch_size": 16, "max_steps": 3, "bf16": False},
             "data": {"image_size": 384}, "model": {"name": "timm/resnet50", "pretrained": False, "args": {}}}  # fmt: skip
    trainer = build_trainer(tiny_recipe(patch))
    trainer.model.to("cpu")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / total)
    try:
        trainer.model.to("cuda")
        trainer.train()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert trainer.state.global_step == 3
    assert trainer.smaller_batches.halvings
    assert 1 <= trainer.smaller_batches.rows < 16


def test_one_row_without_memory_is_said_after_the_step(monkeypatch):
    from accelerate import Accelerator

    from hf_accel.training.out_of_memory import SmallerBatches

    def train_rows(part, items):
        raise ERRORS["host"]()

    smaller = SmallerBatches(Accelerator(cpu=True), 4, list)
    with pytest.raises(RunError, match=r"step 7: memory ran out with 1 row\(s\).*Set a smaller data\.image_size"):
        smaller.train(torch.nn.Linear(1, 1), {"labels": torch.zeros(4)}, 4, 7, train_rows)
