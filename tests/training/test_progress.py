"""The lines of a run: the expected time, and the mean loss of an epoch."""

import logging
import re

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.evaluation import TrainAccuracyCallback
from hf_accel.training.progress import BarCallback


class Clock:
    def __init__(self, step_seconds):
        self.now, self.step_seconds = 0.0, step_seconds

    def __call__(self):
        self.now += self.step_seconds
        return self.now


@pytest.mark.parametrize(
    ("step_seconds", "max_steps", "told"),
    [
        (2.0, 100, ["expected time: 3 min 08 s for the other 94 steps, 2.0 s each; evaluations come on top"]),
        (0.1, 1000, ["expected time: 1 min 37 s for the other 967 steps, 100.0 ms each; evaluations come on top"]),
        (0.1, 100, []),  # a few seconds more: not worth a line
        (60.0, 5, []),  # it ends before there is anything to measure
    ],
)
def test_the_expected_time_is_said_once_when_it_is_known(step_seconds, max_steps, told, caplog, tmp_path):
    args, state, control = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(), TrainerControl()
    state.max_steps = max_steps
    bar = BarCallback(lambda: None, Clock(step_seconds))
    bar.on_train_begin(args, state, control)
    with caplog.at_level(logging.INFO, "hf_accel"):
        for step in range(1, max_steps + 1):
            state.global_step = step
            bar.on_step_end(args, state, control)
    bar.on_train_end(args, state, control)
    assert caplog.messages == told


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
    counts.count(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), torch.tensor(3.0))
    resumed = TrainAccuracyCallback(torch.device("cpu"))
    resumed.load_state_dict(counts.state_dict())
    assert resumed.counts().tolist() == [1.0, 3.0, 2.0]
    resumed.load_state_dict({"correct": 1, "seen": 2, "epoch": 0})
    assert resumed.counts()[1].isnan()
