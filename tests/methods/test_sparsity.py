import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from hf_accel.config.sparsity_settings import SparsitySettings
from hf_accel.errors import UserError
from hf_accel.methods.sparsity import MagnitudePruning, layer_figures, masks_of, prunable_layers, share_at, smallest
from hf_accel.models.load import load_trained
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.pruning import pruning_figures
from tests.support.sharding import pretend_fsdp
from tests.support.two_processes import train_in_two_processes


def test_the_schedules_are_their_formulas():
    for progress in (0.0, 0.1, 0.5, 0.99, 1.0):
        step = round(100 * (0.2 + 0.5 * progress))
        between = {"final": 0.8, "begin": 0.2, "end": 0.7, "updates": 50}
        cubic = share_at(SparsitySettings(schedule="polynomial", **between), step, 100)
        cosine = share_at(SparsitySettings(schedule="one_cycle", **between), step, 100)
        done = math.floor(50 * (step / 100 - 0.2) / 0.5 + 1e-9) / 50
        assert cubic == pytest.approx(1 - (1 - done) ** 3, abs=0.03)  # a step may still belong to the update before it
        assert cosine == pytest.approx((1 - math.cos(math.pi * done)) / 2, abs=0.035)
    constant = SparsitySettings(final=0.8, schedule="constant", begin=0.5)
    assert [share_at(constant, step, 10) for step in (0, 4, 5, 10)] == [0, 0, 1, 1]


@pytest.mark.parametrize("schedule", ["constant", "polynomial", "one_cycle"])
@pytest.mark.parametrize("steps", [1, 7, 100, 390])
def test_a_schedule_rises_and_is_complete_at_its_end(schedule, steps):
    settings = SparsitySettings(final=0.8, schedule=schedule, begin=0.1, updates=7)
    shares = [share_at(settings, step, steps) for step in range(steps + 1)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert all(share == 1 for step, share in enumerate(shares) if step >= settings.last_update * steps)
    if schedule != "constant":
        assert len(set(shares)) <= 8  # the weights are chosen seven times


def test_exactly_as_many_scores_are_the_smallest_whatever_ties():
    scores = torch.randint(0, 4, (1000,), generator=torch.Generator().manual_seed(0)).float()
    for count in (0, 1, 250, 999, 1000):
        chosen = smallest(scores, count)
        expected = torch.zeros(1000, dtype=torch.bool)
        expected[scores.argsort(stable=True)[:count]] = True
        assert torch.equal(chosen, expected)


def test_weights_compete_within_their_scope():
    weights = {"a": torch.tensor([[5.0, -1.0, 6.0]]), "b": torch.tensor([[2.0, -3.0, 9.0]])}
    together = masks_of(weights, SparsitySettings(final=0.5), 1.0)
    assert {name: mask.tolist() for name, mask in together.items()} == {
        "a": [[False, True, False]],
        "b": [[True, True, False]],
    }
    each = masks_of(weights, SparsitySettings(final=0.34, scope="layer"), 1.0)
    assert {name: mask.tolist() for name, mask in each.items()} == {
        "a": [[False, True, False]],
        "b": [[True, False, False]],
    }


def test_a_pattern_prunes_the_smallest_of_consecutive_input_weights():
    linear = torch.tensor([[1.0, -4.0, 2.0, 3.0, 9.0, 8.0, -7.0, 7.0]])
    mask = masks_of({"a": linear}, SparsitySettings(pattern="2:4"), 1.0)["a"]
    assert mask.tolist() == [[True, False, True, False, False, False, True, True]]
    half = masks_of({"a": linear}, SparsitySettings(pattern="2:4"), 0.5)["a"]
    assert half.tolist() == [[True, False, True, False, False, False, False, False]]  # the group that loses less


@pytest.mark.parametrize(("pattern", "zeros", "size"), [("2:4", 2, 4), ("1:4", 3, 4), ("2:8", 6, 8)])
def test_a_pattern_runs_along_the_input_channels_of_a_convolution(pattern, zeros, size):
    weight = torch.randn(3, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = masks_of({"a": weight}, SparsitySettings(pattern=pattern), 1.0)["a"]
    for place in [(out, y, x) for out in range(3) for y in range(2) for x in range(2)]:
        channels = mask[place[0], :, place[1], place[2]]
        assert [int(group.sum()) for group in channels.split(size)] == [zeros] * (8 // size)
    assert weight.abs()[mask].mean() < weight.abs()[~mask].mean()


def test_a_mask_has_the_memory_layout_of_its_weight():
    weight = torch.randn(8, 4, 3, 3)
    contiguous, transposed = (
        masks_of({"a": value}, SparsitySettings(final=0.5), 1.0)["a"]
        for value in (weight, weight.contiguous(memory_format=torch.channels_last))
    )
    assert transposed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(contiguous, transposed)


def pruned(model, **settings):
    return list(prunable_layers(model, SparsitySettings(**{"final": 0.5, **settings}))[0])


def test_layers_are_excluded_by_rule_and_by_name(tiny_recipe):
    model = build_trainer(tiny_recipe()).model
    every = pruned(model, exclude=[])
    assert (every[0], every[-1]) == ("timm_model.conv1", "timm_model.fc")
    assert pruned(model) == every[1:-1]
    assert pruned(model, exclude=["layer2", "fc"]) == [name for name in every[:-1] if ".layer2." not in name]
    assert not any("downsample" in name for name in pruned(model, exclude=["downsample"]))
    model.timm_model.layer1.requires_grad_(False)
    assert pruned(model) == [name for name in every[1:-1] if ".layer1." not in name]
    for names, message in ((["layer9"], "called 'layer9'. Did you mean"), (["layer"], "called 'layer'"),
                           (["timm_model"], "nothing to prune")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            pruned(model, exclude=names)


def test_layers_that_do_not_fit_a_pattern_stay_dense(tiny_recipe):
    model = build_trainer(tiny_recipe({"model": {"args": {"depth": 8, "width": 6}}})).model
    assert all(model.get_submodule(name).weight.shape[1] % 4 == 0 for name in pruned(model, final=None, pattern="2:4"))
    assert len(pruned(model, final=None, pattern="2:4")) < len(pruned(model))


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(UserError, match="no linear layer or convolution called 'first'"):
        pruned(nn.Sequential(nn.BatchNorm1d(2)))


def test_a_weight_that_two_layers_share_is_pruned_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    assert pruned(model, exclude=["first"]) == ["1"]


def test_a_run_that_is_made_longer_does_not_become_denser(tiny_recipe):
    model = build_trainer(tiny_recipe()).model
    pruning = MagnitudePruning(model, SparsitySettings(final=0.5))
    pruning._choose(80, 100)
    assert pruning.may_be_kept()
    masks = pruning.masks
    resumed = MagnitudePruning(model, SparsitySettings(final=0.5))
    resumed.load_state_dict(pruning.state_dict())
    resumed.on_train_begin(None, TrainerState(global_step=80, max_steps=300), TrainerControl())
    resumed.on_optimizer_step(None, TrainerState(global_step=80, max_steps=300), TrainerControl())
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in masks.items())
    assert resumed.may_be_kept()


def test_a_run_that_begins_again_is_dense_again(tiny_recipe):
    pruning = MagnitudePruning(build_trainer(tiny_recipe()).model, SparsitySettings(final=0.5))
    pruning._choose(80, 100)
    pruning.on_train_begin(None, TrainerState(global_step=0, max_steps=200), TrainerControl())
    assert pruning.masks == {}
    assert not pruning.may_be_kept()


def test_early_stopping_waits_for_the_final_sparsity(tiny_recipe):
    training = {"sparsity": POLYNOMIAL, "early_stopping_patience": 1, "num_train_epochs": 8, "learning_rate": 0.0}
    trainer = build_trainer(tiny_recipe({"training": training, "data": {"validation": 0.3}}))
    trainer.train()  # nothing is learned, so that no epoch is better than one before it
    assert trainer.state.global_step > 0.75 * trainer.state.max_steps
    assert trainer.state.best_global_step >= 0.75 * trainer.state.max_steps


CONSTANT, POLYNOMIAL = {"final": 0.6, "schedule": "constant"}, {"final": 0.7}
SETTINGS = {
    "constant": CONSTANT,
    "polynomial": POLYNOMIAL,
    "polynomial, by layer": {"final": 0.9, "scope": "layer", "exclude": []},
    "one cycle": {"final": 0.729, "schedule": "one_cycle"},
    "2:4 at once": {"pattern": "2:4", "schedule": "constant"},
    "2:4 by layer": {"pattern": "2:4", "scope": "layer"},
}
CONDITIONS = {
    "plain": {},
    "accumulation": {"training": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}},
    "momentum and weight decay": {
        "training": {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true", "weight_decay": 0.1}
    },
    "AdamW": {"training": {"optim": "adamw_torch", "weight_decay": 0.1}},
    "average of weights": {"training": {"ema_decay": 0.9}},
    "bf16": {"training": {"bf16": True}, "model": {"channels_last": True}},
    "muon": {"training": {"optim": "muon", "optim_args": "head_lr=0.5,bias_lr=0.05"}},
    "frozen layers": {"model": {"freeze": 1}},
}


@pytest.fixture
def pruned_recipe(tiny_recipe):
    def make(settings, *patches):
        training = {"num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
        return tiny_recipe({"training": {**training, "sparsity": settings}}, *patches)

    return make


def zeros_are_as_asked(rows, settings):
    """Within one weight: of all layers, and of each for scope: layer or a pattern."""
    share = SparsitySettings(**settings).share
    each = settings.get("scope") == "layer" or "pattern" in settings
    parts = [(row["weights"], row["zeros"]) for row in rows]
    whole = [tuple(map(sum, zip(*parts, strict=True)))]
    return all(abs(zeros - share * weights) <= 1 for weights, zeros in (parts if each else whole))


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_trained_model_has_the_asked_zeros(settings, condition, pruned_recipe):
    trainer = build_trainer(pruned_recipe(settings, CONDITIONS[condition]))
    trainer.train()
    rows = layer_figures(trainer.methods[-1].layers)
    assert zeros_are_as_asked(rows, settings)
    logged = [entry["sparsity"] for entry in trainer.state.log_history if "sparsity" in entry]
    assert logged == sorted(logged)
    assert len(logged) == trainer.state.global_step
    zeros, weights = (sum(row[figure] for row in rows) for figure in ("zeros", "weights"))
    assert logged[-1] == pytest.approx(zeros / weights)


@pytest.mark.slow
def test_the_zeros_are_exact_in_a_compiled_network(pruned_recipe):
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    trainer = build_trainer(pruned_recipe(POLYNOMIAL, {"training": compiled}))
    trainer.train()
    assert trainer.compile_failure is None
    assert zeros_are_as_asked(layer_figures(trainer.methods[-1].layers), POLYNOMIAL)


@pytest.mark.slow
def test_weights_come_back_while_the_sparsity_rises_and_stay_pruned_afterwards(pruned_recipe, monkeypatch):
    trainer = build_trainer(pruned_recipe({"final": 0.5}, {"training": {"num_train_epochs": 6, "learning_rate": 0.1}}))
    seen, end = [], MagnitudePruning.on_step_end

    def keep(self, args, state, *others, **kwargs):
        seen.append((self.share, {name: mask.clone() for name, mask in self.masks.items()}))
        end(self, args, state, *others, **kwargs)

    monkeypatch.setattr(MagnitudePruning, "on_step_end", keep)
    trainer.train()
    came_back = [any((old[name] & ~new[name]).any() for name in old) for (_, old), (_, new) in pairwise(seen)]
    rising = [share < 1 for share, _ in seen[:-1]]
    assert any(came_back)
    assert not any(back for back, rose in zip(came_back, rising, strict=True) if not rose)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [{}, {"ema_decay": 0.9}], ids=["weights", "average"])
def test_the_saved_model_is_a_checkpoint_with_the_final_sparsity_and_keeps_its_zeros(ema, pruned_recipe):
    training = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 4, **ema}
    recipe = pruned_recipe(POLYNOMIAL, {"training": training, "data": {"validation": 0.3}})
    folder = train(recipe)
    report = RunReport.load(folder)
    loaded = load_trained(folder / "model").model
    layers = {row["name"]: loaded.get_submodule(row["name"]) for row in report.sparsity}
    assert layer_figures(layers) == report.sparsity
    assert zeros_are_as_asked(report.sparsity, POLYNOMIAL)
    figures, file = report.pruning, folder / "model" / "model.safetensors"
    assert figures.zeros == sum(row["zeros"] for row in report.sparsity)
    assert figures.share == pytest.approx(0.7, abs=1 / figures.weights)
    assert figures.file_bytes == file.stat().st_size
    assert 0 < figures.compressed_bytes < figures.file_bytes
    assert figures.images_per_second is None
    assert 0 < figures.flops_per_image < report.model.flops_per_image
    assert figures.history[-1] == [report.train.steps, figures.share]
    assert "sparsity_by_layer" in {path.stem for path in (folder / "plots").glob("*.svg")}
    assert 'id="sparsity"' in (folder / "report.html").read_text("utf-8")


def test_a_checkpoint_that_is_less_sparse_is_never_the_best_one(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {"sparsity": POLYNOMIAL}}))
    pruning = trainer.methods[-1]
    for share, is_best in ((0.0, False), (0.99, False), (1.0, True)):
        pruning.share = share
        assert trainer._determine_best_metric({"eval_accuracy": 0.9, "eval_loss": 1.0}, None) is is_best
        assert (trainer.state.best_global_step is not None) == is_best


def test_the_operations_of_a_pruned_layer_are_in_proportion_to_its_weights(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {"sparsity": {"final": 0.5, "exclude": []}}}))
    trainer.model.eval()
    with torch.no_grad():
        for layer in trainer.methods[-1].layers.values():
            layer.weight.zero_()
    assert pruning_figures(trainer, None)["pruning"].flops_per_image == 0
    assert pruning_figures(trainer, None)["pruning"].file_bytes is None


def test_a_peft_model_is_refused_by_name(tiny_recipe, monkeypatch):
    monkeypatch.setattr("hf_accel.methods.sparsity.is_peft", lambda model: True)
    with pytest.raises(UserError, match="cannot be combined with a PEFT model"):
        build_trainer(tiny_recipe({"training": {"sparsity": POLYNOMIAL}}))


def test_sharded_weights_are_refused(tiny_recipe, monkeypatch):
    pretend_fsdp(monkeypatch)
    with pytest.raises(UserError, match="sparsity compares whole weights"):
        build_trainer(tiny_recipe({"training": {"sparsity": POLYNOMIAL}}))


@pytest.mark.slow
def test_the_masks_of_two_processes_are_identical(pruned_recipe, tmp_path):
    training = {"save_strategy": "epoch", "output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 4}
    report = train_in_two_processes(pruned_recipe(POLYNOMIAL, {"training": training}), tmp_path / "two.yaml")
    assert zeros_are_as_asked(report.sparsity, POLYNOMIAL)
    (last,) = (tmp_path / "two").glob(f"checkpoint-{report.train.steps}")
    first, second = (
        torch.load(last / f"method_state_{rank}.pth", weights_only=True)["MagnitudePruning"]["masks"] for rank in (0, 1)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
