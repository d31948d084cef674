"""The networks of airbench, and the recipes that train them."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from torch.nn import functional

import hf_accel.cifar_nets  # noqa: F401
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import ModelSettings
from hf_accel.models.airbench import BiasBatchNorm
from hf_accel.models.load import load_model, load_trained
from hf_accel.report.run_report import RunReport
from hf_accel.train import train

pytestmark = pytest.mark.slow

NAMES = {"cifar_airbench94": 1_971_640, "cifar_airbench96": 9_915_704}


@pytest.mark.parametrize("name", NAMES)
def test_they_have_the_published_sizes_and_the_methods_of_timm(name):
    model = timm.create_model(name, num_classes=10).eval()
    norms = [module for module in model.modules() if isinstance(module, BiasBatchNorm)]
    learned = sum(parameter.numel() for parameter in model.parameters())
    assert learned == NAMES[name]
    images = torch.randn(2, 3, 32, 32)
    features = model.forward_features(images)
    assert features.shape == (2, model.num_features, 3, 3)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    assert model(images).shape == (2, 10)
    assert len(norms) == (6 if name.endswith("94") else 9)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert model(images).shape == (2, model.num_features)


def test_a_block_starts_by_passing_its_input_on():
    block = timm.create_model("cifar_airbench94", widths=(24, 32, 32)).blocks[0].eval()
    images = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(block.conv1(images), images)
    expected = functional.gelu(functional.gelu(functional.max_pool2d(images, 2)))
    torch.testing.assert_close(block(images), expected)


def test_logits_are_small_at_the_start_whatever_the_width():
    head = timm.create_model("cifar_airbench94", num_classes=10).head
    torch.testing.assert_close(head.weight.std(), torch.tensor(1.0))
    torch.testing.assert_close(head(torch.eye(256)), head.weight.T / 256)
    head = timm.create_model("cifar_airbench96", num_classes=10).head
    torch.testing.assert_close(head(torch.eye(512)), head.weight.T / 9)


def test_batch_norm_learns_only_its_bias_and_follows_the_newest_batches():
    norm = BiasBatchNorm(4, momentum=0.4)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    images = torch.randn(8, 4, 5, 5) + 3
    norm(images)
    torch.testing.assert_close(norm.running_mean, 0.4 * images.mean((0, 2, 3)))
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_when_activations_are_computed_again(name):
    torch.manual_seed(0)
    model = timm.create_model(name, widths=(8, 8, 8)).train()
    images = torch.randn(4, 3, 16, 16)
    gradients = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        model(images).sum().backward()
        gradients.append(model.blocks[0].conv1.weight.grad.clone())
    torch.testing.assert_close(*gradients)


RELOAD = """
import json, sys
import torch
import hf_accel.cifar_nets
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()
print(json.dumps(model(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)).logits.tolist()))
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_is_the_same_in_a_fresh_process(name, tmp_path):
    settings = ModelSettings(f"hf_accel/{name}", pretrained=False, args={"widths": [8, 12, 16]})
    loaded = load_model(settings, ["a", "b"], image_size=16)
    with torch.no_grad():
        loaded.model.timm_model.blocks[0].norm1.weight.fill_(2.0)  # not what a new network has
    loaded.model.save_pretrained(tmp_path)
    done = subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], check=True, capture_output=True, text=True)
    images = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    logits = loaded.model.eval()(images).logits
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recipe", ["speedrun_cifar10_94", "speedrun_cifar10_96"])
def test_the_speedrun_trains_saves_loads_and_is_scored(recipe, photos, tmp_path):
    patch = {
        "model": {"args": {"widths": [8, 16, 16]}},
        "data": {"name": str(photos), "image_size": 32},
        "training": {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "num_train_epochs": 20,
                     "learning_rate": 0.05, "optim_args": "head_lr=1,bias_lr=0.1", "output_dir": str(tmp_path / "run")},
    }  # fmt: skip
    folder = train(load_recipe(recipe, overrides=patch))
    report = RunReport.load(folder)
    assert report.settings["optim"] == "muon"
    assert report.test.accuracy == 1.0  # red or blue
    assert not list(folder.glob("checkpoint-*"))
    loaded = load_trained(folder / "model")
    stem = loaded.model.timm_model.stem.weight
    assert torch.equal(stem[:12], -stem[12:])
