import io

import pytest
import torch
from timm.optim import Lamb, Lookahead
from torch import nn
from transformers import Trainer

from hf_accel.config.optimizers import TimmOptimizer, timm_optimizers
from hf_accel.errors import UserError
from hf_accel.methods.timm_optimizers import build_timm_optimizer
from hf_accel.training.arguments import training_arguments
from hf_accel.training.build import build_trainer

ELSEWHERE = ("fused", "bnb")  # of apex and bitsandbytes
COMPILED = ("kron",)  # torch.compile runs at its first steps
SAME_CLASS = ("kronc", "kronw")  # as kron, with other arguments
NAMES = [
    name
    for name, needs_graph in timm_optimizers().items()
    if not (needs_graph or name.startswith(ELSEWHERE) or name in SAME_CLASS)
]


def network():
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(4, 3))


def steps(model, optimizer, numbers):
    for number in numbers:
        draw = torch.Generator().manual_seed(number)
        logits = model(torch.randn(4, 3, 8, 8, generator=draw))
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum':UserWarning")
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow if name in COMPILED else []) for name in NAMES), "lookahead_lamb"],
)
def test_every_optimizer_learns_and_continues_bit_for_bit(name):
    def made():
        model = network()
        return model, build_timm_optimizer(model, TimmOptimizer(name), 1e-2, 0.1, ["0.weight", "5.weight"])

    model, optimizer = made()
    before = {key: value.clone() for key, value in model.named_parameters()}
    steps(model, optimizer, range(4))
    assert all(torch.isfinite(value).all() for value in model.parameters())
    assert all(not torch.equal(value, before[key]) for key, value in model.named_parameters())
    kept = io.BytesIO()
    random = torch.get_rng_state()  # which the Trainer keeps, too
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, kept)
    steps(model, optimizer, range(4, 10))

    resumed, optimizer = made()
    kept.seek(0)
    state = torch.load(kept, weights_only=True)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(random)
    steps(resumed, optimizer, range(4, 10))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["lamb", "lookahead_lamb", "muon", "adafactorbv"])
def test_a_scaled_loss_gives_the_steps_of_the_loss_itself_and_an_overflow_none(name):
    def stepped(scale):
        model = network()
        optimizer = build_timm_optimizer(model, TimmOptimizer(name), 1e-2, 0.1, ["0.weight", "5.weight"])
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for factor in (1.0, float("inf"), 1.0):
            before = [value.clone() for value in model.parameters()]
            logits = model.eval()(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
            loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
            scaler.scale(loss * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            is_same = all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
            assert is_same == (factor != 1.0)
        return list(model.parameters())

    torch.testing.assert_close(stepped(2.0**10), stepped(1.0))


@pytest.fixture
def optimizer_of(tiny_recipe):
    """A Trainer, and the optimizer that it makes: `optimizer_of(optim="timm/lamb")`."""

    def make(**training):
        trainer = build_trainer(tiny_recipe({"training": training}))
        return trainer, trainer.create_optimizer()

    return make


def test_the_groups_are_the_trainers(optimizer_of):
    trainer, ours = optimizer_of(optim="timm/lamb", weight_decay=0.1, optim_args="beta1=0.8")
    _, theirs = optimizer_of(optim="adamw_torch", weight_decay=0.1)
    assert isinstance(ours, Lamb)

    def shapes(optimizer):
        return [(group["weight_decay"], [p.shape for p in group["params"]]) for group in optimizer.param_groups]

    assert shapes(ours) == shapes(theirs)
    assert {group["lr"] for group in ours.param_groups} == {trainer.args.learning_rate}
    assert {group["betas"] for group in ours.param_groups} == {(0.8, 0.999)}


def test_learning_rates_by_layer_and_frozen_layers_compose(tiny_recipe):
    training = {"optim": "timm/lookahead_lamb", "layer_decay": 0.5, "head_learning_rate": 1.0, "weight_decay": 0.1}
    trainer = build_trainer(tiny_recipe({"training": training, "model": {"freeze": 1}}))
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, Lookahead)
    learning = {id(p) for p in trainer.model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == learning
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == 1.0
    assert len(rates) > 2


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"optim": "timm/lamb", "optim_args": "gard_averaging=true"}, "takes no 'gard_averaging'. Did you mean grad_averaging"),
        ({"optim": "timm/lamb", "optim_args": "beta3=0.9"}, "takes no 'beta3'. Did you mean"),
        ({"optim": "timm/sgd", "optim_args": "beta1=0.9"}, "timm/sgd takes no 'beta1'"),
        ({"optim": "timm/lion", "optim_args": "beta1=2"}, "Invalid beta"),
        ({"optim": "timm/bnblion"}, "timm/bnblion: CUDA required"),
    ],
)  # fmt: skip
def test_an_optimizer_that_cannot_be_built_is_refused_before_the_data(training, words, tiny_recipe):
    if torch.cuda.is_available() and "bnb" in training["optim"]:
        pytest.skip("on CUDA it is the package that is missing, or nothing")
    with pytest.raises(UserError) as caught:
        training_arguments(tiny_recipe({"training": training}), True)
    assert words in str(caught.value)


def test_it_is_refused_where_weights_are_sharded(tiny_recipe, monkeypatch):
    start = Trainer.create_accelerator_and_postprocess

    def start_sharded(trainer):
        start(trainer)
        trainer.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", start_sharded)
    with pytest.raises(UserError, match=r"training.optim: timm/lamb needs whole weights"):
        build_trainer(tiny_recipe({"training": {"optim": "timm/lamb"}}))
