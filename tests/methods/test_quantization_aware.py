import json

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from hf_accel.config.quantization_settings import QuantizationSettings
from hf_accel.errors import UserError
from hf_accel.methods.quantization_aware import (
    FROZEN,
    LEARNS,
    OFF,
    RANGES,
    QuantizationAware,
    as_int8,
    averaged,
    load_ranges,
    phase_at,
    rounded_layers,
    rounded_weight,
    roundings,
    save_ranges,
    widest,
)
from hf_accel.models.load import load_trained
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.sharding import pretend_fsdp


@pytest.fixture
def rounded_recipe(tiny_recipe):
    def make(*patches):
        training = {"num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
        return tiny_recipe({"training": {**training, "quantization": {"begin": 0.3}}}, *patches)

    return make


def the_method(trainer):
    return next(method for method in trainer.methods if isinstance(method, QuantizationAware))


def test_a_weight_has_at_most_255_values_per_channel_and_keeps_its_zeros_and_its_largest_magnitude():
    weight = torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    weight[:, ::2] = 0
    weight[3] = 0
    rounded = rounded_weight(weight)
    assert max(len(torch.unique(channel)) for channel in rounded) <= 255
    assert (rounded[weight == 0] == 0).all()
    largest = weight.abs().flatten(1).amax(1)
    torch.testing.assert_close(rounded.abs().flatten(1).amax(1), largest)
    assert ((rounded - weight).abs() <= (largest / 127 / 2 + 1e-7)[:, None, None, None]).all()


def test_batch_norm_that_is_folded_changes_no_rounded_weight():
    """Why training does not fold it: the factor of a channel goes into its scale."""
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([2.0, -0.5, 1.0, 0.25, -4.0, 8.0])[:, None, None, None]  # exact in floating point
    assert torch.equal(rounded_weight(weight * factors), rounded_weight(weight) * factors)


def test_the_gradient_passes_through_the_rounding():
    weight = torch.randn(3, 5, requires_grad=True)
    rounded_weight(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 5))


def test_zero_is_a_value_of_every_range():
    ranges = torch.tensor([[0.1, 2.0], [-3.0, -1.0], [-0.7, 1.1], [0.0, 0.0]])
    scales, zeros = roundings(ranges)
    rounded = [
        torch.fake_quantize_per_tensor_affine(torch.zeros(1), scale, zero, 0, 255)
        for scale, zero in zip(scales, zeros, strict=True)
    ]
    assert all(value == 0 for value in rounded)
    assert zeros.tolist()[:2] == [0, 255]


def test_the_range_of_a_batch_is_that_of_its_parts():
    parts = torch.tensor([[[0.0, 2.0], [-1.0, 1.0]], [[-0.5, 1.0], [0.0, 3.0]]])  # (2 parts, 2 layers, 2)
    assert widest(parts).tolist() == [[-0.5, 2.0], [-1.0, 3.0]]


def test_a_range_moves_by_the_constant_and_never_to_a_value_that_is_not_finite():
    first = averaged(torch.tensor([[torch.inf, -torch.inf]]), torch.tensor([[-1.0, 2.0]]), 1.0)
    assert first.tolist() == [[-1.0, 2.0]]
    assert averaged(first, torch.tensor([[-2.0, 4.0]]), 0.5).tolist() == [[-1.5, 3.0]]
    assert averaged(first, torch.tensor([[torch.nan, torch.inf]]), 0.5).tolist() == first.tolist()


def test_the_phases_begin_at_their_shares_of_the_steps():
    settings = QuantizationSettings(begin=0.2, freeze=1.0)
    assert [phase_at(settings, step, 10) for step in (0, 1, 2, 9, 10)] == [OFF, OFF, LEARNS, LEARNS, FROZEN]


def test_layers_of_other_kinds_stay_as_they_are_and_a_network_without_layers_is_refused():
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), nn.Linear(1, 1), computed)
    assert list(rounded_layers(model)) == ["0", "2"]
    with pytest.raises(UserError, match="no linear layer and no convolution"):
        rounded_layers(nn.Sequential(nn.ReLU()))


def test_layers_compute_with_rounded_input_and_weight_and_are_themselves_again_afterwards():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    model, x = nn.Sequential(layer), torch.randn(5, 4)
    before, names = layer.weight, list(model.state_dict())
    with as_int8(model, {"0": (-1.0, 1.0)}):
        got = model(x)
    (scale,), (zero,) = roundings(torch.tensor([[-1.0, 1.0]]))
    rounded = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
    assert torch.equal(got, nn.functional.linear(rounded, rounded_weight(layer.weight), layer.bias))
    assert layer.weight is before
    assert list(model.state_dict()) == names
    assert "forward" not in vars(layer)
    assert torch.equal(model(x), nn.functional.linear(x, before, layer.bias))


def test_a_failed_forward_pass_leaves_the_layers_as_they_were():
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(RuntimeError), as_int8(model, {"0": (-1.0, 1.0)}):
        model(torch.randn(5, 7))
    assert not {"weight", "forward"} & vars(model[0]).keys()


def test_the_ranges_are_read_back_from_the_folder_of_a_model(tmp_path):
    ranges = {"stem": (-1.0, 1.55), "head.fc": (0.0, 5.1)}
    save_ranges(tmp_path, ranges)
    read = load_ranges(tmp_path)
    assert {name: pytest.approx(values) for name, values in ranges.items()} == read
    written = json.loads((tmp_path / RANGES).read_text("utf-8"))["inputs"]["stem"]
    assert (written["scale"], written["zero_point"]) == (pytest.approx(0.01), 100)
    assert load_ranges(tmp_path / "other") is None


def test_a_run_that_is_made_longer_keeps_its_phase_and_one_that_begins_again_does_not(rounded_recipe):
    trainer = build_trainer(rounded_recipe())
    method, args, control = the_method(trainer), trainer.args, TrainerControl()
    method.load_state_dict({"phase": FROZEN, "steps": 3, "ranges": method.ranges + 1, "known": [0]})
    method.on_train_begin(args, TrainerState(global_step=8, max_steps=80), control)
    assert (method.phase, method.steps, method.known) == (FROZEN, 3, {0})
    assert method.may_be_kept()
    method.on_train_begin(args, TrainerState(global_step=0, max_steps=80), control)
    assert (method.phase, method.steps, method.known) == (OFF, 0, set())
    assert not method.may_be_kept()


def test_a_peft_model_and_sharded_weights_are_refused_by_name(rounded_recipe, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("hf_accel.methods.quantization_aware.is_peft", lambda model: True)
        with pytest.raises(UserError, match="quantization cannot be combined with a PEFT model"):
            build_trainer(rounded_recipe())
    pretend_fsdp(monkeypatch)
    with pytest.raises(UserError, match="quantization rounds whole weights"):
        build_trainer(rounded_recipe())


@pytest.mark.slow
def test_ranges_learn_between_begin_and_freeze_and_weights_and_batch_norm_until_the_end(rounded_recipe, monkeypatch):
    trainer = build_trainer(rounded_recipe({"training": {"quantization": {"begin": 0.3, "freeze": 0.7}}}))
    method, seen, end = the_method(trainer), [], QuantizationAware.on_step_end

    def keep(self, args, state, *others, **kwargs):
        end(self, args, state, *others, **kwargs)
        network = trainer.model.timm_model
        learned = network.bn1.running_mean.clone(), network.conv1.weight.detach().clone()
        seen.append((self.phase, self.ranges.clone(), *learned))

    monkeypatch.setattr(QuantizationAware, "on_step_end", keep)
    trainer.train()
    assert trainer.state.max_steps == 6
    assert [phase for phase, *_ in seen] == [OFF, LEARNS, LEARNS, LEARNS, FROZEN, FROZEN]  # after each step
    assert not seen[1][1].isfinite().any()  # the first step that rounds has none yet
    before, last = seen[-2], seen[-1]
    assert before[1].isfinite().all()
    assert torch.equal(before[1], last[1])
    assert not torch.equal(seen[2][1], seen[3][1])
    assert not torch.equal(before[2], last[2])
    assert not torch.equal(before[3], last[3])
    assert method.phase == OFF


@pytest.mark.slow
def test_an_evaluation_during_training_rounds(rounded_recipe, monkeypatch):
    trainer, modes = (
        build_trainer(rounded_recipe({"training": {"eval_strategy": "epoch"}, "data": {"validation": 0.3}})),
        [],
    )
    monkeypatch.setattr(
        "hf_accel.methods.quantization_aware.rounded_weight",
        lambda weight: modes.append(trainer.model.training) or rounded_weight(weight),
    )
    trainer.train()
    assert set(modes) == {True, False}
    modes.clear()
    trainer.evaluate()  # of the saved weights
    assert not modes


@pytest.mark.slow
def test_the_saved_model_has_plain_weights_and_the_ranges_next_to_them(rounded_recipe):
    training = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 4}
    recipe = rounded_recipe({"training": training, "data": {"validation": 0.3}})
    folder = train(recipe)
    report, ranges = RunReport.load(folder), load_ranges(folder / "model")
    loaded = load_trained(folder / "model")
    layers = rounded_layers(loaded.model)
    assert list(ranges) == list(layers)
    assert report.quantization.layers == len(layers)
    assert 0 <= report.quantization.test_accuracy <= 1
    assert not torch.equal(rounded_weight(layers["timm_model.conv1"].weight), layers["timm_model.conv1"].weight)


def test_a_checkpoint_whose_ranges_are_not_final_is_never_the_best_one(rounded_recipe):
    trainer = build_trainer(
        rounded_recipe({"training": {"eval_strategy": "epoch", "save_strategy": "epoch"}, "data": {"validation": 0.3}})
    )
    for phase, is_best in ((OFF, False), (LEARNS, False), (FROZEN, True)):
        the_method(trainer).phase = phase
        assert trainer._determine_best_metric({"eval_accuracy": 0.9, "eval_loss": 1.0}, None) is is_best
