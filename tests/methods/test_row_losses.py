import math

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState

from hf_accel.config.sections import HardExamples
from hf_accel.methods.row_losses import RowLosses
from hf_accel.training.build import build_trainer

CPU = torch.device("cpu")


def record(method, rows, logits):
    method.before_forward(torch.tensor(rows), {})
    labels = torch.zeros(len(rows), dtype=torch.int64)
    return method.loss_sum(torch.tensor(logits), labels, torch.tensor(7.0))


def begin_epoch(method, epoch):
    method.on_epoch_begin(None, TrainerState(epoch=float(epoch)), TrainerControl())


def log1p_exp(value):  # the loss of the first class where logits are 0 and `value`
    return math.log1p(math.exp(value))


def test_the_loss_of_a_row_is_the_mean_of_its_epoch_averaged_with_the_one_before():
    method = RowLosses(HardExamples(), 3, 3, CPU)
    total = record(method, [0, 2], [[0.0, 1.0], [0.0, -1.0]])
    record(method, [0], [[0.0, 3.0]])
    assert total == 7.0  # the loss that trains is left as it is
    assert method.losses.isinf().all()  # the order of an epoch does not change within it
    begin_epoch(method, 1)
    first = [(log1p_exp(1.0) + log1p_exp(3.0)) / 2, math.inf, log1p_exp(-1.0)]
    assert method.losses.tolist() == pytest.approx(first)
    record(method, [0, 1], [[0.0, 0.0], [0.0, 0.0]])
    begin_epoch(method, 2)
    assert method.losses.tolist() == pytest.approx([(first[0] + math.log(2)) / 2, math.log(2), first[2]])


def test_a_loss_that_is_not_finite_is_not_remembered():
    method = RowLosses(HardExamples(), 2, 2, CPU)
    record(method, [0, 1], [[0.0, 0.0], [math.nan, 0.0]])
    begin_epoch(method, 1)
    assert method.losses.tolist() == pytest.approx([math.log(2), math.inf])


def test_the_warm_up_has_all_rows_in_turn_and_then_the_hardest_train_alone():
    method = RowLosses(HardExamples(strategy="hardest", fraction=0.5, warmup_epochs=2), 10, 5, CPU)
    method.losses[:] = torch.arange(10.0)
    warmup = [method.rows(0, epoch) for epoch in range(2)]
    assert sorted(np.concatenate(warmup)) == list(range(10))
    assert sorted(method.rows(0, 2)) == [5, 6, 7, 8, 9]


def test_a_run_that_starts_forgets_and_one_that_resumes_does_not():
    method = RowLosses(HardExamples(), 2, 2, CPU)
    method.losses[:] = 1.0
    method.on_train_begin(None, TrainerState(global_step=4), TrainerControl())
    assert method.losses.tolist() == [1.0, 1.0]
    method.on_train_begin(None, TrainerState(global_step=0), TrainerControl())
    assert method.losses.isinf().all()


def test_the_losses_of_a_run_on_other_rows_are_not_used():
    method, other = RowLosses(HardExamples(), 2, 2, CPU), RowLosses(HardExamples(), 3, 3, CPU)
    other.losses[:] = 1.0
    method.load_state_dict(other.state_dict())
    assert method.losses.tolist() == [math.inf, math.inf]


def drawn_rows(trainer):
    """Rows of each epoch of a training run."""
    epochs = []
    read = type(trainer.train_dataset).__getitems__

    class Watched(type(trainer.train_dataset)):
        def __getitems__(self, indices):
            batch = read(self, indices)
            epochs.extend(zip(batch["epochs"].tolist(), batch["rows"].tolist(), strict=True))
            return batch

    trainer.train_dataset.__class__ = Watched
    trainer.train()
    last = max(epoch for epoch, _ in epochs)
    return [[row for epoch, row in epochs if epoch == number] for number in range(last + 1)]


def recipe_with(tiny_recipe, hard, **training):
    fixed = {"learning_rate": 1e-3, "eval_strategy": "no", "save_strategy": "no", "per_device_train_batch_size": 4}
    return tiny_recipe({"data": {"hard_examples": hard}, "training": {**fixed, **training}})


@pytest.mark.slow
def test_rows_that_the_model_gets_wrong_are_drawn_more_often(tiny_recipe):
    """Wrong labels stand for hard images; without hard examples, the control, they train as often as the others."""

    def share_of_wrong(hard):
        trainer = build_trainer(recipe_with(tiny_recipe, hard, num_train_epochs=12, learning_rate=5e-3))
        labels = trainer.train_dataset.labels
        wrong = np.flatnonzero(labels == 1)[:3]
        labels[wrong] = 0
        epochs = drawn_rows(trainer)[4:]
        assert all(len(rows) == len(labels) for rows in epochs)
        rows = np.concatenate(epochs)
        return np.isin(rows, wrong).sum() / (len(rows) * len(wrong) / len(labels))

    assert share_of_wrong(None) == 1.0
    assert share_of_wrong({"strategy": "proportional", "fraction": 0.8}) > 1.5


@pytest.mark.slow
def test_an_epoch_of_the_hardest_rows_is_shorter_and_everything_counts_it_so(tiny_recipe):
    hard = {"strategy": "hardest", "fraction": 0.5, "warmup_epochs": 2}
    trainer = build_trainer(recipe_with(tiny_recipe, hard, num_train_epochs=4, logging_steps=1))
    epochs = drawn_rows(trainer)
    assert [len(rows) for rows in epochs] == [10, 10, 10, 10]
    assert sorted({*epochs[0], *epochs[1]}) == list(range(19))
    assert len(set(epochs[2])) == 10
    state = trainer.state
    assert (state.global_step, state.max_steps, state.epoch) == (12, 12, 4.0)  # 10 rows in batches of 4
    assert trainer.train_accuracy_counts.seen == 10
    assert trainer.num_examples(trainer.get_train_dataloader()) == 10
    assert trainer.num_examples(trainer.get_test_dataloader(trainer.train_dataset)) == 19  # as they are scored


@pytest.mark.slow
def test_max_steps_decides_how_many_of_the_shorter_epochs_there_are(tiny_recipe):
    trainer = build_trainer(recipe_with(tiny_recipe, {"strategy": "hardest", "fraction": 0.5}, max_steps=7))
    trainer.train()
    assert (trainer.state.global_step, trainer.state.num_train_epochs) == (7, 3)
    assert trainer.state.epoch == pytest.approx(7 / 3)
    assert any("the 10 of 19 rows with the highest losses train in an epoch" in note for note in trainer.notes)
