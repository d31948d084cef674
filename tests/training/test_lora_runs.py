"""Runs with low-rank adapters: what they leave, and with which settings they work together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_accel.errors import UserError
from hf_accel.models.lora import FILE, base_checksum, has_adapters, merged_state
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.resuming import require_same_model
from tests.support.given_rows import pictures, small_network
from tests.support.two_processes import train_in_two_processes

pytest.importorskip("peft", reason='needs peft: pip install "hf_accel[lora]"')
pytestmark = pytest.mark.slow

VIT = {"name": "timm/vit_tiny_patch16_224", "pretrained": False, "lora": {"rank": 2},
       "args": {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}}  # fmt: skip


@pytest.fixture
def recipe(tiny_recipe, tmp_path):
    def make(folder="run", *patches):
        training = {
            "output_dir": str(tmp_path / folder),
            "num_train_epochs": 2,
            "logging_steps": 1,
            "learning_rate": 0.05,
        }
        return tiny_recipe({"model": VIT, "training": training, "data": {"validation": 0.33}}, *patches)

    return make


def test_the_model_of_a_run_is_plain_and_so_is_that_of_a_checkpoint(recipe):
    path = train(recipe())
    report = RunReport.load(path)
    plain = AutoModelForImageClassification.from_pretrained(path / "model")
    assert report.model.parameters == sum(parameter.numel() for parameter in plain.parameters())
    assert any(note.startswith("lora: rank 2, alpha 16 in 8 layers; 1,") for note in report.notes)
    assert not (path / "model" / FILE).exists()
    checkpoint = sorted(path.glob("checkpoint-*"))[-1]
    whole, learned = load_file(checkpoint / "model.safetensors"), load_file(checkpoint / FILE)
    assert whole.keys() == plain.state_dict().keys()
    assert sum(value.numel() for value in learned.values()) < sum(value.numel() for value in whole.values()) / 3
    assert "peft" not in json.dumps(json.loads((path / "model" / "config.json").read_text("utf-8")))


def test_the_best_adapters_are_kept_and_the_frozen_weights_are_those_of_before(recipe):
    trainer = build_trainer(recipe("best", {"training": {"save_total_limit": 9}}))
    before = base_checksum(trainer.model)
    trainer.train()
    assert base_checksum(trainer.model) == before
    best = Path(trainer.state.best_model_checkpoint)
    state = trainer.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_file(best / FILE).items())
    saved = load_file(best / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in merged_state(trainer.model).items())
    assert has_adapters(trainer.model)


def test_another_run_can_begin_from_its_checkpoint_and_one_with_other_adapters_cannot(recipe):
    path = train(recipe())
    checkpoint = sorted(path.glob("checkpoint-*"))[-1]
    require_same_model(checkpoint, build_trainer(recipe("second")).model)
    with pytest.raises(UserError, match=r"is of other adapters than model\.lora asks for"):
        require_same_model(checkpoint, build_trainer(recipe("third", {"model": {"lora": {"rank": 3}}})).model)


@pytest.mark.parametrize(
    "patch",
    [
        {"model": {"freeze": 1, "kernels": "library"},
         "training": {"ema_decay": 0.9, "gradient_checkpointing": True, "bf16": True}},
        {"training": {"layer_decay": 0.5, "head_learning_rate": 0.1, "optim": "timm/lamb", "gradual_unfreezing": 0.5}},
        {"training": {"torch_compile": True, "torch_compile_backend": "eager"}},
        {"model": {"name": "hf_accel/cifar_resnet20", "args": {"depth": 8, "width": 4}, "channels_last": True,
                   "lora": {"rank": 2, "dropout": 0.1}}},
    ],
    ids=["freeze, average, checkpointing, bf16", "rates, lamb, unfreezing", "compile", "convolutions"],
)  # fmt: skip
def test_it_works_together_with(patch, recipe):
    report = RunReport.load(train(recipe("run", patch)))
    assert report.train.compiled in (None, True)
    losses = [entry["loss"] for entry in report.history if entry["loss"] is not None]
    assert min(losses[2:]) < losses[0]


def test_two_processes_give_what_one_gives(recipe, tmp_path):
    def batches(size):
        return {"training": {"per_device_train_batch_size": size, "gradient_checkpointing": True}}

    one = RunReport.load(train(recipe("one", batches(8))))
    two = train_in_two_processes(recipe("two", batches(4)), tmp_path / "two.yaml")
    assert one.train.world_size == 1
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)


def test_a_given_network_whose_layers_are_not_known_is_refused(recipe):
    with pytest.raises(UserError, match=r"model\.lora: adapters are put into a classifier of transformers or timm"):
        build_trainer(recipe(), pictures(), model=small_network())
