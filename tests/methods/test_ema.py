import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from hf_accel.methods.ema import WeightAverage, decay_after
from hf_accel.models.load import load_trained
from hf_accel.training.build import build_trainer


def after_step(average, step):
    average.on_step_end(None, TrainerState(global_step=step), TrainerControl())


def test_the_average_is_the_recurrence_of_its_definition():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    average = WeightAverage(model, decay=0.5)
    average.on_train_begin(None, TrainerState(), TrainerControl())
    expected = 2.0
    for step, value in enumerate([4.0, -1.0, 3.0], start=1):
        nn.init.constant_(model.weight, value)
        after_step(average, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.average["weight"].item() == pytest.approx(expected)
    with average.in_place():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_the_decay_grows_to_its_setting():
    decays = [decay_after(step, 0.99) for step in range(1, 2000)]
    assert decays == sorted(decays)
    assert decays[0] < 0.2
    assert decays[-1] == 0.99


def test_running_statistics_are_averaged_and_counters_copied():
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.5)
    average.on_train_begin(None, TrainerState(), TrainerControl())
    model.running_mean.fill_(1.0)
    model.num_batches_tracked.fill_(7)
    after_step(average, 1000)
    assert average.average["running_mean"].item() == 0.5
    assert average.average["num_batches_tracked"].item() == 7


def test_weights_that_two_layers_share_come_back_after_an_evaluation():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = WeightAverage(model, decay=0.5)
    average.on_train_begin(None, TrainerState(), TrainerControl())
    nn.init.ones_(model[0].weight)
    after_step(average, 1000)
    before = model[0].weight.clone()
    with average.in_place():
        assert not torch.equal(model[1].weight, before)
    assert torch.equal(model[1].weight, before)


@pytest.mark.slow
def test_what_is_evaluated_and_saved_is_the_average_and_a_checkpoint_trains_on_the_weights(tiny_recipe, tmp_path):
    training = {"ema_decay": 0.9, "output_dir": str(tmp_path / "run"), "num_train_epochs": 2, "eval_strategy": "epoch",
                "save_strategy": "epoch", "load_best_model_at_end": True, "save_total_limit": 9, "optim": "sgd"}  # fmt: skip
    trainer = build_trainer(tiny_recipe({"training": training, "data": {"validation": 0.3}}))
    trainer.train()
    best = trainer.state.best_model_checkpoint
    state = torch.load(f"{best}/method_state_0.pth", weights_only=True)["WeightAverage"]["average"]
    ours = trainer.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.items())
    raw = load_trained(best).model.state_dict()
    assert any(not torch.equal(value, raw[name]) for name, value in ours.items())
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    again = trainer.evaluate()["eval_loss"]
    assert min(abs(again - value) for value in logged) < 1e-6  # the epoch that was selected by the averaged weights
