"""A run that failed does not count as finished: exit code 1, one message, nothing saved after the failure."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from hf_accel import cli, train
from hf_accel.errors import RunError
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.training import build
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer

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
    assert error in run.log.read_text()
    assert not run.is_finished
    assert not run.model.exists()
    assert [path.name for path in run.checkpoints()] == ["checkpoint-4", "checkpoint-2"] or len(run.checkpoints()) == 2
    assert run.last_checkpoint().name == "checkpoint-4"
    assert all(is_finite(checkpoint) for checkpoint in run.checkpoints())


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
    with pytest.raises(RunError, match="step 1 of 1 .* holds values that are not finite"):
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
