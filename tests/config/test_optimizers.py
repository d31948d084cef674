import subprocess
import sys

import pytest
import timm.optim

from hf_accel.config.optimizers import TimmOptimizer, timm_optimizers
from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError


def test_the_names_in_timms_source_are_those_of_its_list():
    assert set(timm_optimizers()) == set(timm.optim.list_optimizers())
    needing = {name for name, needs_graph in timm_optimizers().items() if needs_graph}
    assert needing == {name for name in timm_optimizers() if timm.optim.get_optimizer_info(name).second_order}


def test_arguments_are_read_as_yaml_reads_them():
    text = "beta1=0.9, beta2=0.99,grad_averaging=false,k=3,eps=1e-6,mode=fast"
    assert TimmOptimizer.parse("here", "timm/lookahead_lamb", text) == TimmOptimizer(
        "lookahead_lamb",
        {"beta1": 0.9, "beta2": 0.99, "grad_averaging": False, "k": 3, "eps": 1e-6, "mode": "fast"},
    )


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"optim": "timm/lmab"}, "'timm/lmab', and timm has no such optimizer. Did you mean timm/lamb"),
        ({"optim": "timm/lookahead_lmab"}, "timm has no such optimizer"),
        ({"optim": "lamb"}, "'lamb', which is not an optimizer. Did you mean timm/lamb?"),
        ({"optim": "adamw_torhc"}, "Did you mean adamw_torch"),
        ({"optim": "muno"}, "Did you mean muon"),
        ({"optim": "timm/adahessian"}, "gradients of gradients"),
        ({"optim": "timm/lamb", "optim_args": "beta1"}, "beta1= cannot be read"),
        ({"optim": "timm/lamb", "optim_args": "eps=[1;2]"}, "cannot be read, expected names and values"),
        ({"optim": "timm/lamb", "optim_args": "betas=0.9"}, "betas is given. Set beta1=..., beta2=... instead"),
        ({"optim": "timm/lamb", "optim_args": "lr=0.1"}, "Set training.learning_rate instead"),
        ({"optim": "timm/lamb", "adam_beta1": 0.8}, "training.adam_beta1 has no effect with timm/lamb. Set training.optim_args"),
    ],
)  # fmt: skip
def test_an_optimizer_that_cannot_be_is_refused_with_the_recipe(training, words):
    with pytest.raises(UserError) as caught:
        load_recipe("digits", overrides={"training": training})
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_names_are_checked_without_torch():
    code = """
import sys
from hf_accel.config.recipe import load_recipe
load_recipe("digits", overrides={"training": {"optim": "timm/lamb", "lr_scheduler_type": "one_cycle"}})
assert not {"torch", "timm", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("recipe", ["resnet50_cifar10", "resnet50_cifar100", "resnet50_imagenet"])
def test_resnet50_has_three_optimizers_each_with_settings_of_its_own(recipe):
    chosen = {name: load_recipe(recipe, name).training for name in ("adam", "adamw", "sgd_nesterov")}
    assert {name: training["optim"] for name, training in chosen.items()} == {
        "adam": "timm/adam", "adamw": "adamw_torch_fused", "sgd_nesterov": "sgd",
    }  # fmt: skip
    assert "nesterov=true" in chosen["sgd_nesterov"]["optim_args"]
    assert len({training["learning_rate"] for training in chosen.values()}) == 3
    assert len({training["weight_decay"] for training in chosen.values()}) == 3
    assert chosen["adam"].get("optim_args") is None
    assert len({training["num_train_epochs"] for training in chosen.values()}) == 1
