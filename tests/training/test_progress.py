"""The lines of a run: the expected time, and the mean loss of an epoch."""

import logging
import re

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.evaluation import TrainAccuracyCallback
from hf_accel.training.progress import BarCallback, evaluations_left


class Clock:
    def __init__(self, step_seconds):
        self.now, self.step_seconds = 0.0, step_seconds

    def __call__(self):
        self.now += self.step_seconds
        return self.now


def told_of(args, state, max_steps, caplog, step_seconds, scored_rows=(0, 0), begin=lambda bar: None):
    """What a run of so many steps says on its way."""
    control = TrainerControl()
    state.max_steps, state.num_train_epochs = max_steps, 10
    bar = BarCallback(lambda: None, Clock(step_seconds), scored_rows=scored_rows)
    bar.on_train_begin(args, state, control)
    with caplog.at_level(logging.INFO, "hf_accel"):
        begin(bar)
        for step in range(1, max_steps + 1):
            state.global_step, state.epoch = step, 10 * step / max_steps
            bar.on_step_end(args, state, control)
    bar.on_train_end(args, state, control)
    return caplog.messages


@pytest.mark.parametrize(
    ("step_seconds", "max_steps", "told"),
    [
        (2.0, 100, ["expected time: about 3 min 08 s for the rest of the run: 94 steps of 2.0 s, and the test"]),
        (0.1, 1000, ["expected time: about 1 min 37 s for the rest of the run: 967 steps of 100.0 ms, and the test"]),
        (0.1, 100, []),  # a few seconds more: not worth a line
        (60.0, 5, []),  # it ends before there is anything to measure
    ],
)
def test_the_expected_time_is_said_once_when_it_is_known(step_seconds, max_steps, told, caplog, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    assert told_of(args, TrainerState(), max_steps, caplog, step_seconds) == told


def test_the_expected_time_includes_evaluations_and_the_test(caplog, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=8, eval_strategy="epoch")
    (told,) = told_of(args, TrainerState(), 100, caplog, 2.4, scored_rows=(40, 80))
    # 94 steps of 2.4 s; a row of an evaluation takes a third of 2.4 / 8 s: 10 x 40 rows and 80 take 48 s
    assert (
        told
        == "expected time: about 4 min 34 s for the rest of the run: 94 steps of 2.4 s, 10 evaluations and the test"
    )


def test_an_evaluation_that_was_measured_counts_as_it_was(caplog, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=8, eval_strategy="epoch")
    state = TrainerState()

    def evaluate_at_the_start(bar):
        bar.on_prediction_step(args, state, TrainerControl(), eval_dataloader=[0])
        bar.on_evaluate(args, state, TrainerControl())

    (told,) = told_of(args, state, 100, caplog, 2.4, scored_rows=(24, 0), begin=evaluate_at_the_start)
    # 94 steps of 2.4 s, and 10 evaluations of 2.4 s, as long as the one at the start
    assert (
        told
        == "expected time: about 4 min 10 s for the rest of the run: 94 steps of 2.4 s, 10 evaluations and the test"
    )


@pytest.mark.parametrize(
    ("arguments", "state", "left"),
    [
        ({"eval_strategy": "no"}, {}, 0),
        ({"eval_strategy": "epoch"}, {"epoch": 0.2}, 3),
        ({"eval_strategy": "epoch"}, {"epoch": 2.7}, 1),
        ({"eval_strategy": "epoch", "eval_delay": 2}, {"epoch": 0.1}, 2),
        ({"eval_strategy": "steps"}, {"global_step": 6}, 4),
        ({"eval_strategy": "steps"}, {"global_step": 20}, 3),
        ({"eval_strategy": "steps", "eval_delay": 60}, {"global_step": 6}, 2),
    ],
)
def test_the_evaluations_that_are_left_are_counted(arguments, state, left, tmp_path):
    known = TrainerState(max_steps=90, num_train_epochs=3, eval_steps=20, **state)
    assert evaluations_left(TrainingArguments(str(tmp_path), use_cpu=True, **arguments), known) == left


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_line_of_an_epoch_has_its_mean_loss(accumulation, tiny_recipe, tmp_path, capsys):
    training = {"num_train_epochs": 2, "logging_steps": 1, "gradient_accumulation_steps": accumulation}
    trainer = build_trainer(tiny_recipe({"training": training}))
    trainer.train()
    epoch_steps = trainer.state.max_steps // 2
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    rows = [8 * accumulation] * epoch_steps
    rows[-1] = 19 - sum(rows[:-1])  # the last batch is smaller
    last = losses[epoch_steps:]
    expected = sum(loss * count for loss, count in zip(last, rows, strict=True)) / 19
    assert trainer.epoch_loss() == pytest.approx(expected, abs=1e-3)
    train(tiny_recipe({"training": {**training, "output_dir": str(tmp_path / "again")}}))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    shown = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in lines]
    assert shown[1] == pytest.approx(expected, abs=1e-3)


def test_the_sums_of_an_epoch_continue_from_a_checkpoint_and_older_checkpoints_have_no_loss():
    counts = TrainAccuracyCallback(torch.device("cpu"))
    counts.count(torch.tensor(1), torch.tensor(3.0), rows=2)
    resumed = TrainAccuracyCallback(torch.device("cpu"))
    resumed.load_state_dict(counts.state_dict())
    assert resumed.counts().tolist() == [1.0, 3.0, 2.0]
    resumed.load_state_dict({"correct": 1, "seen": 2, "epoch": 0})
    assert resumed.counts()[1].isnan()
