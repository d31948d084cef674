import pytest
import torch
from torch import nn

from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError
from hf_accel.methods.learning_rates import layer_rates, split_groups
from hf_accel.training.build import build_trainer

NUMBERS = {"stem": 0, "first": 1, "second": 2, "head": 3}


def test_rates_fall_towards_the_input():
    assert layer_rates(NUMBERS, 0.8, layer_decay=0.5) == {"stem": 0.1, "first": 0.2, "second": 0.4, "head": 0.8}


def test_the_classifier_has_its_own_rate():
    assert layer_rates(NUMBERS, 0.1, head_learning_rate=1.0) == {"stem": 0.1, "first": 0.1, "second": 0.1, "head": 1.0}


def test_groups_keep_their_other_settings_and_every_parameter():
    parameters = {name: nn.Parameter(torch.ones(2)) for name in NUMBERS}
    decayed, plain = [parameters["stem"], parameters["head"]], [parameters["first"], parameters["second"]]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=0.8
    )
    split_groups(optimizer, parameters, layer_rates(NUMBERS, 0.8, layer_decay=0.5))
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in parameters.items()
        if any(parameter is other for other in group["params"])
    }
    assert found == {"stem": (0.1, 0.1), "first": (0.2, 0.0), "second": (0.4, 0.0), "head": (0.8, 0.1)}
    assert optimizer.param_groups[0]["lr"] == 0.8  # the one that is logged


def test_a_step_of_sgd_moves_each_layer_by_its_own_rate(tiny_recipe):
    training = {"optim": "sgd", "learning_rate": 0.1, "layer_decay": 0.5, "head_learning_rate": 1.0, "max_grad_norm": 0,
                "lr_scheduler_type": "constant", "weight_decay": 0.0}  # fmt: skip
    trainer = build_trainer(tiny_recipe({"training": training}))
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    head = [rate for name, rate in rates.items() if "head" in name or "fc" in name or "classifier" in name]
    assert set(head) == {1.0}
    assert min(rates.values()) < 0.1
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rates[name]))


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"training": {"optim": "muon", "head_learning_rate": 0.1}}, "optim_args: head_lr"),
        ({"training": {"optim": "muon", "layer_decay": 0.5}}, "cannot be combined with optim: muon"),
        ({"training": {"layer_decay": 0}}, "layer_decay"),
        ({"training": {"focal_gamma": 2, "generalized_cross_entropy": 0.7}}, "at most one"),
        ({"training": {"ema_decay": 1.0}}, "ema_decay"),
    ],
)
def test_settings_that_cannot_be_combined_are_refused_with_the_recipe(patch, words):
    with pytest.raises(UserError, match=words):
        load_recipe("digits", overrides=patch)
