"""A run that failed does not count as finished: exit code 1, one message, nothing saved after the failure."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import get_worker_info
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_accel import cli, evaluate, train
from hf_accel.errors import RunError, UserError
from hf_accel.inputs.batches import ImageBatches
from hf_accel.predict import main as predict_main
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.training import build
from hf_accel.training.build import build_trainer
from hf_accel.training.checks import require_steps, smallest_batch
from hf_accel.training.trainer import ImageTrainer
from tests.support.two_processes import launch

pytestmark = pytest.mark.slow

SAVED = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}

OVERFLOWING = {"learning_rate": 1e6, "weight_decay": 1e35, "optim": "sgd", "lr_scheduler_type": "constant"}


@pytest.fixture
def losses(monkeypatch):
    """Add to the training loss of chosen steps: `losses({5: math.nan})`; steps from 1."""

    def make(added):
        original = ImageTrainer.loss

        def loss(self, *args, **kwargs):
            value = original(self, *args, **kwargs)
            step = self.state.global_step + 1
            return value * added[step] if self.model.training and step in added else value

        monkeypatch.setattr(ImageTrainer, "loss", loss)

    return make


def run_of(recipe, tmp_path):
    """The exit code of `hf-accel train` of a recipe."""
    recipe.write(tmp_path / "recipe.yaml")
    return cli.run(train.main, ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", str(recipe.output_dir)])


def is_finite(checkpoint):
    return all(bool(value.isfinite().all()) for value in load_file(checkpoint / "model.safetensors").values())


@pytest.mark.parametrize("added", [math.nan, math.inf])
@pytest.mark.parametrize("every", [1, 50])
def test_a_loss_that_is_not_finite_ends_the_run_with_one_message_and_nothing_saved(
    added, every, losses, tiny_recipe, tmp_path, capsys, monkeypatch
):
    """Reading 50 steps together is what happens on CUDA: there, before the checkpoint of step 6."""
    losses({5: added})
    original = build.ImageTrainer.__init__

    def init(self, **kwargs):
        original(self, **kwargs)
        self.finite_steps.every = every

    monkeypatch.setattr(build.ImageTrainer, "__init__", init)
    recipe = tiny_recipe({"training": {**SAVED, "lr_scheduler_type": "constant", "max_grad_norm": 0.5}})
    assert run_of(recipe, tmp_path) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    run = RunFolder(recipe.output_dir)
    assert f"step 5 of 9 (learning rate 0.01): the loss is {added}" in error
    assert f"the last good checkpoint is {run.path / 'checkpoint-4'}" in error
    assert "Try a training.learning_rate below 0.01 or a training.max_grad_norm below 0.5, with --overwrite" in error
    assert error.removeprefix("error: ") in run.log.read_text()
    assert not run.is_finished
    assert not run.model.exists()
    assert {path.name for path in run.checkpoints.all()} == {"checkpoint-2", "checkpoint-4"}
    assert all(is_finite(checkpoint) for checkpoint in run.checkpoints.all())


def test_without_a_checkpoint_the_message_says_so(tiny_recipe, tmp_path, capsys):
    """Nothing is injected: the first update overflows the weights, so the second loss is NaN."""
    training = {**OVERFLOWING, "max_grad_norm": 0.0}
    recipe = tiny_recipe({"training": training})
    assert run_of(recipe, tmp_path) == 1
    error = capsys.readouterr().err
    assert "step 2 of 3 (learning rate 1e+06): the loss is nan" in error
    assert (
        "no checkpoint was saved before. Try a training.learning_rate below 1e+06 or training.max_grad_norm: 1" in error
    )
    assert "Traceback" not in error
    left = {path.name for path in recipe.output_dir.iterdir()}
    assert left.isdisjoint({"model", "report.json", "report.html"})
    assert not any(name.startswith("checkpoint") for name in left)


def test_an_update_that_overflows_in_the_last_step_is_found_before_it_is_scored(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {**OVERFLOWING, "max_steps": 1}}))
    with pytest.raises(RunError, match=r"step 1 of 1 .* holds values that are not finite"):
        trainer.train()
    assert "eval_loss" not in str(trainer.state.log_history)


MUON = {"optim": "muon", "learning_rate": 0.1, "optim_args": "head_lr=0.05"}


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, MUON,
                                  {"gradient_checkpointing": True}])  # fmt: skip
def test_a_step_that_is_left_out_changes_nothing_but_the_count(more, losses, tiny_recipe, tmp_path):
    """Three good steps and a bad one, by a constant rate, end where the three good ones do."""
    if "gradient_checkpointing" in more:
        more = {**more, "num_train_epochs": 1}
    model = {"name": "timm/resnet10t", "args": {"channels": [8, 8, 16, 16]}}
    training = {"lr_scheduler_type": "constant", "on_nan": "skip", "logging_steps": 1, "max_steps": 3, **more}
    three = build_trainer(tiny_recipe({"model": model, "training": training}))
    three.train()
    assert three.finite_steps.skipped == 0
    losses({4: math.nan})
    four = build_trainer(tiny_recipe({"model": model, "training": {**training, "max_steps": 4}}))
    four.train()
    assert four.finite_steps.skipped == 1
    expected, got = three.model.state_dict(), four.model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0, msg=name)
    logged = [entry["loss"] for entry in four.state.log_history if "loss" in entry]
    assert len(logged) == 3
    assert all(math.isfinite(loss) for loss in logged)


def test_pixels_that_are_nan_do_not_stay_in_batch_norm_and_the_report_counts_the_step(tiny_recipe, monkeypatch):
    original = ImageTrainer._prepare_inputs

    def poisoned(self, inputs):
        batch = original(self, inputs)
        if self.model.training and self.state.global_step == 1:
            batch["pixel_values"][0, 0, 0, 0] = math.nan
        return batch

    monkeypatch.setattr(ImageTrainer, "_prepare_inputs", poisoned)
    folder = train.train(tiny_recipe({"training": {"on_nan": "skip", "num_train_epochs": 2, "logging_steps": 2}}))
    report = json.loads((folder / "report.json").read_text())
    assert (report["train"]["steps"], report["train"]["skipped_steps"]) == (6, 1)
    assert all(row["loss"] is not None for row in report["history"] if row["step"] in (2, 4, 6))
    assert report["train"]["final_loss"] > 0
    assert is_finite(folder / "model")
    assert any("on_nan" in note for note in report["notes"])


def test_a_run_without_a_bad_step_says_that_none_was_left_out(tiny_recipe):
    assert RunReport.load(train.train(tiny_recipe())).train.skipped_steps == 0


def test_too_many_bad_steps_end_a_run_that_leaves_them_out(losses, tiny_recipe, tmp_path, capsys):
    losses(dict.fromkeys(range(3, 40), math.nan))
    recipe = tiny_recipe({"training": {**SAVED, "num_train_epochs": 10, "on_nan": "skip"}})
    assert run_of(recipe, tmp_path) == 1
    error = capsys.readouterr().err
    assert "step 12 of 30" in error
    assert "the loss is nan, as in the 9 steps before, which were left out" in error
    assert not (recipe.output_dir / "model").exists()


def test_a_resumed_run_counts_the_steps_left_out_before(losses, tiny_recipe, tmp_path):
    losses({1: math.nan, 5: math.nan})
    recipe = tiny_recipe({"training": {**SAVED, "on_nan": "skip"}})
    whole = build_trainer(recipe)
    whole.train()
    resumed = build_trainer(recipe)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert resumed.finite_steps.skipped == whole.finite_steps.skipped == 2
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 20},
         "19 training images make no batch of 20, so no step would be made. To train, set "
         "training.per_device_train_batch_size to at most 19, or leave dataloader_drop_last out"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 64, "max_steps": 5}, "make no batch of 64"),
        ({"max_steps": 0}, "training.max_steps is 0, expected a number above 0"),
        ({"num_train_epochs": 0.0}, "training.num_train_epochs is 0.0, expected a number from 1e-06"),
    ],
)  # fmt: skip
def test_a_run_without_a_step_is_refused_before_anything_is_written(training, message, photos, tmp_path, capsys):
    model = ["--model.name", "timm/resnet10t", "--model.pretrained", "false", "--data.image_size", "16"]
    flags = [word for name, value in training.items() for word in (f"--{name}", str(value).lower())]
    argv = [
        "--data.name",
        str(photos),
        "--data.validation",
        "0.2",
        *model,
        "--output_dir",
        str(tmp_path / "run"),
        *flags,
    ]
    assert cli.run(train.main, argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "training",
    [
        {"dataloader_drop_last": True, "per_device_train_batch_size": 19, "gradient_accumulation_steps": 4},
        {"num_train_epochs": 1e-6},
        {"per_device_train_batch_size": 64},
    ],
)
def test_the_shortest_run_there_is_makes_one_step(training, tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": training}))
    trainer.train()
    assert trainer.state.global_step == 1


def test_with_several_processes_a_batch_for_each_is_needed(tiny_recipe):
    class TwoProcesses:
        dataloader_drop_last, train_batch_size, world_size = True, 8, 2
        accelerator_config = AcceleratorConfig()

    recipe = tiny_recipe()
    require_steps(recipe, TwoProcesses, 16)
    with pytest.raises(
        UserError, match=r"15 training images make no batch of 8 for each of the 2 processes.* at most 7"
    ):
        require_steps(recipe, TwoProcesses, 15)
    assert smallest_batch(TwoProcesses, 17) == 8
    TwoProcesses.dataloader_drop_last = False
    assert smallest_batch(TwoProcesses, 17) == 1
    TwoProcesses.accelerator_config = AcceleratorConfig(split_batches=True)
    assert smallest_batch(TwoProcesses, 19) == 3  # of 4


LCNET = {"name": "timm/lcnet_035", "args": {}}


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_needs_two(tiny_recipe):
    """19 training rows: batches of 8 leave 3, of 9 and 18 leave 1; at 32 px the last maps have one pixel."""
    for size, other in ((18, 17), (9, 8), (3, 2)):
        recipe = tiny_recipe(
            {"model": LCNET, "data": {"image_size": 32}, "training": {"per_device_train_batch_size": size}}
        )
        with pytest.raises(UserError, match="Expected more than 1 value per channel") as caught:
            build_trainer(recipe)
        if size != 3:
            assert f"is {size}, which leaves one of the 19 training images for the last batch" in str(caught.value)
            assert f"dataloader_drop_last: true, or per_device_train_batch_size: {other}." in str(caught.value)
        assert not recipe.output_dir.exists()


@pytest.mark.parametrize(
    "patch",
    [
        {"training": {"per_device_train_batch_size": 9, "dataloader_drop_last": True}},
        {"training": {"per_device_train_batch_size": 8}},
        {"training": {"per_device_train_batch_size": 9}, "data": {"image_size": 64}},
        {"training": {"per_device_train_batch_size": 9}, "model": {"freeze_batch_norm": True}},
    ],
)
def test_batches_that_the_model_can_be_trained_on_are_not_refused(patch, tiny_recipe):
    trainer = build_trainer(tiny_recipe({"model": LCNET, "data": {"image_size": 32}}, patch))
    trainer.train()
    assert trainer.state.global_step >= 2


def test_the_smallest_images_of_a_run_are_tried(tiny_recipe):
    data = {"image_size": 64, "progressive_resizing": {"start": 32, "full_at": 1.0}}
    training = {"per_device_train_batch_size": 9, "num_train_epochs": 2}
    with pytest.raises(UserError, match="leaves one of the 19 training images"):
        build_trainer(tiny_recipe({"model": LCNET, "data": data, "training": training}))


def test_a_batch_size_of_one_is_refused_for_such_a_model(tiny_recipe):
    training = {"per_device_train_batch_size": 1}
    with pytest.raises(UserError, match=r"per_device_train_batch_size is 1, and .* Set it to 2 or more"):
        build_trainer(tiny_recipe({"model": LCNET, "data": {"image_size": 32}, "training": training}))


def test_trying_one_image_leaves_the_run_as_it_would_be(tiny_recipe, monkeypatch):
    """19 rows in batches of 9, of a model that takes single images: statistics and random numbers are untouched."""
    model = {"name": "timm/resnet10t", "args": {"drop_rate": 0.5, "channels": [8, 8, 16, 16]}}
    training = {"per_device_train_batch_size": 9}
    recipe = tiny_recipe({"model": model, "data": {"image_size": 64}, "training": training})
    tried = build_trainer(recipe)
    tried.train()
    monkeypatch.setattr(build, "require_batches_that_train", lambda *args: None)
    plain = build_trainer(recipe)
    plain.train()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(tried.model.state_dict()[name], value, rtol=0, atol=0)


@pytest.fixture
def broken(tiny_recipe, tmp_path):
    """A finished run whose saved classifier holds NaN."""
    folder = train.train(tiny_recipe())
    file = folder / "model" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[0] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    RunFolder(folder).seal_model()
    return folder, name


def test_a_model_with_broken_weights_is_neither_scored_nor_used_nor_trained(broken, photos, tmp_path, capsys):
    folder, name = broken
    capsys.readouterr()
    for main, argv in ((evaluate.main, [str(folder)]), (predict_main, [str(folder), str(photos / "test")])):
        assert cli.run(main, argv) == 1
        shown = capsys.readouterr()
        assert f"{name} holds values that are not finite" in shown.err
        assert shown.out == ""
    argv = ["--model.name", str(folder / "model"), "--data.name", str(photos), "--output_dir", str(tmp_path / "again")]
    assert cli.run(train.main, argv) == 2
    assert f"{name} holds values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_scores_of_logits_that_are_nan_are_not_reported(tiny_recipe, monkeypatch):
    """Finite weights are not enough: half precision can overflow within the network."""
    original = ImageTrainer.prediction_step

    def prediction_step(self, model, inputs, *args, **kwargs):
        loss, (top_ids, confidence, losses, rows), labels = original(self, model, inputs, *args, **kwargs)
        return loss, (top_ids, confidence * math.nan, losses, rows), labels

    monkeypatch.setattr(ImageTrainer, "prediction_step", prediction_step)
    recipe = tiny_recipe()
    with pytest.raises(RunError, match="5 of 5 rows got logits that are not finite"):
        train.train(recipe)
    assert not (recipe.output_dir / "report.json").exists()


RANK_1_FAILS = """
import os, sys
from hf_accel import cli, train
from hf_accel.training.trainer import ImageTrainer
loss, init = ImageTrainer.loss, ImageTrainer.__init__

def broken(self, *args, **kwargs):
    value = loss(self, *args, **kwargs)
    is_bad = os.environ["RANK"] == "1" and self.model.training and self.state.global_step == 1
    return value + float("inf") if is_bad else value  # the gradients stay finite, so rank 0 cannot see it in them

def reads_late(self, **kwargs):
    init(self, **kwargs)
    self.finite_steps.every = int(sys.argv[1])
    assert self.args.world_size == 2

ImageTrainer.loss, ImageTrainer.__init__ = broken, reads_late
cli.run_and_exit(lambda argv: train.main(["--recipe", sys.argv[2], "--output_dir", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    ("every", "on_nan"),
    [(1, "stop"), pytest.param(50, "stop", marks=pytest.mark.slow), pytest.param(1, "skip", marks=pytest.mark.slow)],
)
def test_a_loss_of_one_process_counts_for_both(every, on_nan, tiny_recipe, tmp_path):
    """Rank 1 alone has an infinite loss, in the first of two micro-batches of step 2."""
    recipe = tiny_recipe(
        {"training": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "on_nan": on_nan}}
    )
    recipe.write(tmp_path / "recipe.yaml")
    (tmp_path / "fails.py").write_text(RANK_1_FAILS)
    done = launch(tmp_path / "fails.py", every, tmp_path / "recipe.yaml", recipe.output_dir)
    if on_nan == "skip":
        assert done.returncode == 0, done.stderr[-3000:]
        assert RunReport.load(recipe.output_dir).train.skipped_steps == 1
        return
    assert done.returncode == 1
    assert "error: step 2 of 3 (learning rate" in done.stderr
    assert "error (process 1)" not in done.stderr
    assert "the loss is inf" in done.stderr
    assert not (recipe.output_dir / "model").exists()
    assert not (recipe.output_dir / "report.json").exists()


def killed_once(monkeypatch, marker):
    """The first process of a DataLoader that reads a batch is killed, as the system does when memory runs out."""
    original = ImageBatches.__getitems__

    def getitems(self, rows):
        if get_worker_info() is not None and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, rows)

    monkeypatch.setattr(ImageBatches, "__getitems__", getitems)


def test_a_killed_data_loading_process_is_one_message_and_the_run_can_be_resumed(
    tiny_recipe, tmp_path, monkeypatch, capsys
):
    recipe = tiny_recipe({"data": {"cache": "none"}, "training": {"dataloader_num_workers": 1}})
    killed_once(monkeypatch, tmp_path / "killed")
    assert run_of(recipe, tmp_path) == 1
    error = capsys.readouterr().err
    assert "error: a data-loading process " in error
    assert "Traceback" not in error
    run = RunFolder(recipe.output_dir)
    assert "Traceback" in run.log.read_text()  # for whoever wants to know
    assert not run.is_finished
    assert run_of(recipe, tmp_path) == 0
    assert run.is_finished
    (tmp_path / "killed").unlink()
    capsys.readouterr()
    assert cli.run(evaluate.main, [str(run.path), "--dataloader_num_workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "error: a data-loading process " in error
    assert "Traceback" not in error


def test_a_saved_model_that_differs_from_the_trained_one_ends_the_run_with_one_message(
    tiny_recipe, tmp_path, monkeypatch, capsys
):
    original = ImageTrainer.save_model

    def save(self, output_dir=None, **kwargs):
        original(self, output_dir, **kwargs)
        file = RunFolder(self.args.output_dir).model / "model.safetensors"
        if output_dir == str(file.parent):
            tensors = load_file(file)
            save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, {"format": "pt"})

    monkeypatch.setattr(ImageTrainer, "save_model", save)
    recipe = tiny_recipe()
    assert run_of(recipe, tmp_path) == 1
    error = capsys.readouterr().err
    assert f"error: {recipe.output_dir / 'model'}: the saved model differs from the trained one in " in error
    assert "this folder must not be used" in error
    assert "Traceback" not in error
    assert not RunFolder(recipe.output_dir).is_finished


SMALL_FILES = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); sys.argv.pop(1); "
)


@pytest.mark.parametrize("largest", [1_000, 30_000])
def test_a_disk_that_is_full_while_a_run_saves_is_one_message(largest, tiny_recipe, tmp_path):
    """A limit on the size of files fails where a full disk does: in the checkpoint's weights, or in the optimizer's state."""
    recipe = tiny_recipe({"data": {"cache": "none"}})
    recipe.write(tmp_path / "recipe.yaml")
    words = ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", str(recipe.output_dir)]
    code = SMALL_FILES + "from hf_accel.train import main; from hf_accel.cli import run_and_exit; run_and_exit(main)"
    done = subprocess.run([sys.executable, "-c", code, str(largest), *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: no space left on the device. What was saved before stays" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert not RunFolder(recipe.output_dir).is_finished
