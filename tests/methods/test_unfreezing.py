import pytest
import torch
from transformers import TrainerCallback

from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.methods.unfreezing import GradualUnfreezing, unfrozen
from hf_accel.models.layers import layer_numbers
from hf_accel.models.load import load_model
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.two_processes import train_in_two_processes

VIT = {"img_size": 16, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2}


def test_layers_join_in_equal_intervals():
    joined = [unfrozen(step, 100, 0.6, 3) for step in range(100)]
    assert joined == sorted(joined)
    assert [joined.index(count) for count in range(4)] == [0, 20, 40, 60]


@pytest.mark.parametrize(("steps", "share", "layers"), [(1, 1.0, 13), (3, 0.1, 2), (7, 0.5, 30), (1000, 1.0, 1)])
def test_none_learns_before_the_first_step_and_all_after_the_share(steps, share, layers):
    assert unfrozen(0, steps, share, layers) == 0
    assert unfrozen(-(-steps * share // 1), steps, share, layers) == layers


class Watch(TrainerCallback):
    """What learns, and what acts as in training, in each step."""

    def __init__(self, model):
        self.model, self.numbers = model, layer_numbers(model)
        self.learning, self.training, self.before = [], [], None

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def on_optimizer_step(self, args, state, control, **kwargs):
        moved = {self.numbers[name] for name, value in self.model.named_parameters()
                 if not torch.equal(value, self.before[name])}  # fmt: skip
        self.learning.append(moved)
        self.training.append({name for name, module in self.model.named_modules() if module.training})


def test_layers_that_have_not_joined_stay_as_they_are_and_act_as_in_evaluation(tiny_recipe):
    model = {"name": "timm/vit_tiny_patch16_224", "pretrained": False, "args": VIT, "dropout": 0.1}
    training = {"gradual_unfreezing": 0.75, "max_steps": 8, "optim": "timm/lookahead_adamw", "warmup_steps": 0,
                "lr_scheduler_type": "constant", "weight_decay": 0.1}  # fmt: skip
    trainer = build_trainer(tiny_recipe({"model": model, "training": training, "data": {"validation": 0}}))
    watch = Watch(trainer.model)
    trainer.add_callback(watch)
    trainer.train()
    # four layers join: three blocks, and the stem last, at steps 1.5, 3, 4.5 and 6
    expected = [{4}, {4}, {4, 3}, {4, 3, 2}, {4, 3, 2}, {4, 3, 2, 1}, {4, 3, 2, 1, 0}, {4, 3, 2, 1, 0}]
    assert watch.learning == expected
    for step, learning in enumerate(watch.learning):
        for block in range(3):
            is_training = f"timm_model.blocks.{block}.attn" in watch.training[step]
            assert is_training == (block + 1 in learning)
    assert any(
        "gradual_unfreezing: 0.75 (the classifier learns from the start, and 4 layers" in note for note in trainer.notes
    )
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_frozen_layers_never_join():
    settings = ModelSettings(name="timm/vit_tiny_patch16_224", pretrained=False, args=VIT, freeze=1)
    model = load_model(settings, ["cat", "dog"]).model
    method = GradualUnfreezing(model, 0.5)
    assert method.count == 2
    method._let_learn(method.count)
    numbers = layer_numbers(model)
    assert {numbers[name] for name, value in model.named_parameters() if value.requires_grad} == {2, 3, 4}


def test_a_network_whose_layers_are_all_frozen_is_refused(tiny_recipe):
    model = {"name": "timm/vit_tiny_patch16_224", "pretrained": False, "args": VIT, "freeze": 3}
    with pytest.raises(UserError, match="all layers before the classifier are frozen"):
        build_trainer(tiny_recipe({"model": model, "training": {"gradual_unfreezing": 0.5}}))


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"model": {"freeze": "backbone"}}, "no layer could join"),
        ({"training": {"torch_compile": True}}, "cannot be combined with torch_compile: true"),
        ({"training": {"ddp_static_graph": True}}, "ddp_static_graph: true"),
        ({"training": {"ddp_find_unused_parameters": False}}, "ddp_find_unused_parameters: false"),
        ({"training": {"gradual_unfreezing": 0}}, "expected a number above 0, at most 1"),
    ],
)
def test_settings_with_which_it_cannot_work_are_refused_with_the_recipe(patch, words):
    training = {"gradual_unfreezing": 0.5, **patch.get("training", {})}
    with pytest.raises(UserError, match=words):
        load_recipe("digits", overrides={**patch, "training": training})


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tiny_recipe, tmp_path):
    def recipe(folder, batch):
        training = {"gradual_unfreezing": 0.75, "per_device_train_batch_size": batch, "num_train_epochs": 2, "logging_steps": 1,
                    "gradient_checkpointing": True, "output_dir": str(tmp_path / folder), "optim": "timm/lamb"}  # fmt: skip
        model = {"name": "timm/vit_tiny_patch16_224", "pretrained": False, "args": VIT}
        return tiny_recipe({"model": model, "training": training, "data": {"validation": 0.33}})

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    assert one.train.world_size == 1
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)
