"""Training of several labels: it resumes bit for bit, micro-batches are one batch, and bf16 and two processes give the same."""

import numpy as np
import pytest
import torch

from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.label_sets import multi_label_recipe
from tests.support.trained import assert_same_but_for_rounding, assert_same_run, differing, losses, weights
from tests.support.two_processes import train_in_two_processes

pytestmark = pytest.mark.slow

SETTINGS = {
    "plain": {},
    "class weights": {"data": {"class_weights": "balanced"}},
    "label smoothing": {"training": {"label_smoothing_factor": 0.2}},
    "average": {"training": {"ema_decay": 0.9}},
    "linear probe": {"model": {"freeze": "backbone"}, "data": {"augment": {"flip": False}}},
    "layer decay": {"training": {"layer_decay": 0.8}},
    "adapters": {"model": {"lora": {"rank": 2}}},
    "sparsity": {"training": {"sparsity": {"final": 0.5}}},
}
STEPS, CHECKPOINT = 8, 6  # of two epochs: 32 rows in batches of 8; within the second epoch
LOGGED = {"training": {"num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no", "optim": "sgd"},
          "data": {"augment": {"crop": "none"}}}  # fmt: skip
SAVED = {"training": {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}}


@pytest.fixture
def make(tmp_path):
    def trainer(folder, *patches):
        output = {"training": {"output_dir": str(tmp_path / folder)}}
        return build_trainer(multi_label_recipe(tmp_path, LOGGED, output, *patches))

    return trainer


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_and_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(name, make, tmp_path):
    whole = make("run", SAVED, SETTINGS[name])
    before = weights(whole)
    whole.train()
    assert len(losses(whole)) == whole.state.global_step == STEPS
    trained = {name for name, parameter in whole.model.named_parameters() if parameter.requires_grad}
    assert trained <= differing(before, weights(whole))

    resumed = make("run", SAVED, SETTINGS[name])
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("name", ["plain", "class weights", "label smoothing"])
def test_micro_batches_are_one_batch(name, make):
    def trained(batch, steps):
        training = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_grad_norm": 0}
        trainer = make(f"of {batch}", {"training": training, "model": {"freeze_batch_norm": True}}, SETTINGS[name])
        trainer.train()
        return trainer

    big, small = trained(8, 1), trained(2, 4)
    assert big.state.global_step == STEPS
    assert_same_but_for_rounding(big, small)


def test_it_composes_with_bf16(make):
    trainer = make("run", {"training": {"bf16": True, "max_steps": 2}})
    before = weights(trainer)
    trainer.train()
    assert np.isfinite(losses(trainer)).all()
    assert differing(before, weights(trainer))
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert np.isfinite(trainer.evaluate(trainer.test_dataset)["eval_loss"])


def test_two_processes_give_what_one_gives_and_score_each_row_once(tmp_path):
    def recipe(folder, batch):
        training = {"per_device_train_batch_size": batch, "output_dir": str(tmp_path / folder), "eval_strategy": "epoch",
                    "save_strategy": "epoch"}  # fmt: skip
        return multi_label_recipe(tmp_path, LOGGED, {"training": training, "model": {"freeze_batch_norm": True}})

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    assert one.train.effective_batch_size == two.train.effective_batch_size == 8
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)
    assert two.thresholds == pytest.approx(one.thresholds, abs=1e-3)
    assert two.test.mean_average_precision == pytest.approx(one.test.mean_average_precision, abs=1e-3)
    assert [row["support"] for row in two.test.per_class] == [8, 8, 8]
