"""The optimizer Muon: its steps by hand, its groups, and its place in the Trainer."""

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from hf_accel.errors import UserError
from hf_accel.methods.muon import Muon, MuonSettings, build_muon, orthogonalize
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.sharding import pretend_fsdp

pytestmark = pytest.mark.slow

AIRBENCH = {"name": "hf_accel/cifar_airbench94", "pretrained": False, "args": {"widths": [8, 12, 12]}}
VIT = {
    "name": "timm/vit_tiny_patch16_224",
    "pretrained": False,
    "args": {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2},
}


def muon(**training):
    fixed = {"optim": "muon", "learning_rate": 0.1, "max_grad_norm": 0, "label_smoothing_factor": 0}
    return {**fixed, "optim_args": "head_lr=0.5,bias_lr=0.05", **training}


@pytest.mark.parametrize("shape", [(16, 144), (144, 16)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_come_near_one_whatever_the_scale(shape, scale, dtype):
    torch.manual_seed(0)
    matrix = scale * torch.randn(shape)
    result = orthogonalize(matrix, steps=3, dtype=dtype)
    assert result.dtype == dtype
    values = torch.linalg.svdvals(result.float())
    assert 0.5 < values.min() <= values.max() < 1.3


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_step_is_that_of_the_singular_values_computed_by_hand():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    before = weight.detach().clone()
    gradients = torch.randn(2, 4, 3, 2, 2)
    optimizer = Muon([{"params": [weight]}], lr=0.1, momentum=0.6)
    expected = before
    momentum = torch.zeros(4, 12)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        flat = gradient.reshape(4, 12)
        momentum = 0.6 * momentum + flat
        u, s, v = torch.linalg.svd(flat + 0.6 * momentum, full_matrices=False)
        s = s / s.square().sum().sqrt()
        for _ in range(3):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        expected = expected * 2 / expected.square().sum().sqrt()  # 2 is the root of 4 filters
        expected = expected - 0.1 * (u @ s.diag() @ v).reshape(4, 3, 2, 2)
    torch.testing.assert_close(weight.detach(), expected)


def test_weights_of_linear_layers_and_unasked_convolutions_are_not_normalised():
    weights = [nn.Parameter(torch.full((4, 3), 2.0)), nn.Parameter(torch.full((4, 3, 1, 1), 2.0))]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    Muon([{"params": weights, "normalize_weights": False}], lr=0.1).step()
    Muon([{"params": weights[:1]}], lr=0.1).step()
    assert all(torch.equal(weight, torch.full_like(weight, 2.0)) for weight in weights)


def test_the_other_groups_take_the_steps_of_torch_sgd():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    group = {"params": [ours], "orthogonal": False, "momentum": 0.85, "lr": 0.3, "weight_decay": 0.01}
    optimizers = [
        Muon([group], lr=1.0),
        torch.optim.SGD([theirs], lr=0.3, momentum=0.85, nesterov=True, weight_decay=0.01),
    ]
    for _ in range(4):
        ours.grad = torch.randn(5)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_the_inner_weights_are_orthogonalised_and_the_rest_takes_sgd(tiny_recipe):
    trainer = build_trainer(
        tiny_recipe({"model": {**AIRBENCH, "whiten_stem": True}, "training": muon(weight_decay=4e-3)})
    )
    inner, head, rest = trainer.create_optimizer().param_groups
    names = {id(parameter): name.removeprefix("timm_model.") for name, parameter in trainer.model.named_parameters()}
    assert {names[id(p)] for p in inner["params"]} == {f"blocks.{b}.conv{c}.weight" for b in range(3) for c in (1, 2)}
    assert [names[id(p)] for p in head["params"]] == ["head.weight"]
    assert all(names[id(p)].endswith(".bias") for p in rest["params"])
    assert len(rest["params"]) == 1 + 6  # of the stem and of the batch norms
    assert [group["lr"] for group in (inner, head, rest)] == [0.1, 0.5, 0.05]
    assert [group["lr"] * group["weight_decay"] for group in (inner, head, rest)] == pytest.approx([0, 4e-3, 4e-3])


def test_the_head_and_the_embeddings_of_a_transformer_are_not_orthogonalised():
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                       image_size=16, patch_size=4)  # fmt: skip
    model = ViTForImageClassification(config)
    inner, head, rest = build_muon(model, MuonSettings(), learning_rate=0.1, weight_decay=0.0).param_groups
    assert [p is model.classifier.weight for p in head["params"]] == [True]
    assert len(inner["params"]) == 1 + 6  # patches; query, key, value, output and two of the MLP
    kept = {id(p) for p in rest["params"]}
    assert {id(model.vit.embeddings.cls_token), id(model.vit.embeddings.position_embeddings)} <= kept
    assert sum(len(group["params"]) for group in (inner, head, rest)) == len(list(model.parameters()))


@pytest.mark.parametrize(("model", "head_lr"), [(AIRBENCH, 20), (VIT, 0.5)], ids=["airbench", "vit"])
def test_it_learns_and_the_schedule_multiplies_all_rates_alike(tiny_recipe, model, head_lr):
    training = muon(num_train_epochs=8, logging_steps=1, lr_scheduler_type="linear", warmup_steps=0)
    training["optim_args"] = f"head_lr={head_lr},bias_lr=0.05"
    trainer = build_trainer(tiny_recipe({"model": model, "training": training}))
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert all(not torch.equal(parameter, before[name]) for name, parameter in trainer.model.named_parameters())
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0, 0, 0]
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates[0] == pytest.approx(0.1)


def test_an_interrupted_run_resumes_with_the_same_momentum_and_the_same_stem(tiny_recipe, tmp_path):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise KeyboardInterrupt

    def recipe(name):
        training = muon(num_train_epochs=3, output_dir=str(tmp_path / name))
        return tiny_recipe({"model": {**AIRBENCH, "whiten_stem": True, "channels_last": True}, "training": training})

    whole = train(recipe("whole"))
    cut = recipe("cut")
    trainer = build_trainer(cut)
    trainer.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    cut.write(tmp_path / "cut" / "recipe.yaml")
    assert RunFolder.claim(cut).checkpoint.name == "checkpoint-3"
    train(cut)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, tmp_path / "cut")]
    assert weights[0] == weights[1]
    assert RunReport.load(whole).settings["optim"] == "muon"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentun=0.5", "muon takes no 'momentun'. Did you mean momentum"),
        ("head_lr=fast", "head_lr is 'fast', expected a number from 0"),
        ("bias_lr=-1", "bias_lr is '-1'"),
        ("momentum=1", "expected a number from 0 to below 1"),
        ("ns_steps=0", "expected a whole number from 1"),
        ("normalize_weights=1", "expected true or false"),
        ("momentum", "momentum is ''"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(tiny_recipe, text, message):
    with pytest.raises(UserError, match=message):
        build_trainer(tiny_recipe({"training": muon(optim_args=text)}))


def test_arguments_are_read_in_the_format_of_the_trainer():
    settings = MuonSettings.parse("r", "momentum=0.9, head_lr=1340,ns_steps=5,normalize_weights=false")
    assert settings == MuonSettings(momentum=0.9, head_lr=1340.0, ns_steps=5, normalize_weights=False)
    assert MuonSettings.parse("r", None) == MuonSettings()


def test_sharded_weights_are_refused(tiny_recipe, monkeypatch):
    pretend_fsdp(monkeypatch)
    with pytest.raises(UserError, match="muon needs whole weights"):
        build_trainer(tiny_recipe({"training": muon()}))
