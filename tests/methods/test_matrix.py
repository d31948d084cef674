"""Every method through the same tests: it trains, resumes bit for bit, and composes with accumulation, bf16 and ranks.

A new method is a line of METHODS. A comparison that a method cannot pass is listed there, with the reason; settings with
which it cannot work are refused by name.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_accel.methods.cpu_kernels import CpuKernels
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.evaluation import TrainAccuracyCallback
from tests.support.saved_models import save_timm
from tests.support.trained import assert_same_but_for_rounding, assert_same_run, differing, losses, weights
from tests.support.two_processes import train_in_two_processes

pytestmark = pytest.mark.slow

AIRBENCH = {"name": "hf_accel/cifar_airbench94", "args": {"widths": [8, 8, 8]}}
VIT_ARGS = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
VIT = {"name": "timm/vit_tiny_patch16_224", "args": VIT_ARGS}
MUON = {"optim": "muon", "learning_rate": 0.05, "optim_args": "head_lr=0.5,bias_lr=0.05"}


CHAIN = [
    {"color_jitter": {"brightness": 0.2}},
    {"rotation": {"degrees": 15}},
    {"affine": {"translate": [0.1, 0.1]}},
    {"perspective": {}},
    {"elastic": {"sigma": 1}},
    {"solarize": {}},
    {"invert": {}},
]
AUGMENTATIONS = {
    "rotation": {"rotation": {"degrees": 15}},
    "affine": {"affine": {"translate": [0.1, 0.1], "scale": [0.9, 1.1], "shear": 10}},
    "perspective": {"perspective": {}},
    "elastic": {"elastic": {"sigma": 1}},
    "solarize": {"solarize": {}},
    "invert": {"invert": {}},
    "grayscale": {"grayscale": {"p": 0.5}},
    "blur": {"blur": {"kernel_size": 3}},
    "cutout": {"cutout": {}},
    "chain": {"chain": {"operations": CHAIN}},
    "TrivialAugment": {"trivial_augment": {}},
    "AugMix": {"augmix": {}},
}


@dataclass(frozen=True)
class Method:
    """A patch on the tiny recipe, and why its micro-batches cannot be compared, if so."""

    patch: dict
    not_one_batch: str | None = None  # why k micro-batches are not one batch, beyond rounding
    has_teacher: bool = False
    has_weights: bool = False  # those of a network that was trained for other classes


METHODS = {
    "class weights": Method({"data": {"class_weights": [0.5, 2.0]}}),
    "label smoothing": Method({"training": {"label_smoothing_factor": 0.2}}),
    "mixup": Method({"data": {"augment": {"mixup": 0.5}}}),
    "cutmix": Method({"data": {"augment": {"cutmix": 1.0}}}),
    "focal loss": Method({"training": {"focal_gamma": 2.0}}),
    "generalised cross-entropy": Method({"training": {"generalized_cross_entropy": 0.7}}),
    "average of weights": Method({"training": {"ema_decay": 0.9}}),
    "sparsity": Method({"training": {"sparsity": {"final": 0.6, "updates": 4}}}),
    "constant sparsity": Method({"training": {"sparsity": {"final": 0.6, "schedule": "constant", "begin": 0.3}}}),
    "2:4 sparsity of the average": Method(
        {"training": {"sparsity": {"pattern": "2:4", "schedule": "one_cycle"}, "ema_decay": 0.9}}
    ),
    "int8 in training": Method({"training": {"quantization": {"begin": 0.3}}}),
    "int8 of a transformer": Method({"model": VIT, "training": {"quantization": {"begin": 0.0}}}),
    "int8 with sparsity and an average": Method(
        {"training": {"quantization": {}, "sparsity": {"final": 0.6, "updates": 4}, "ema_decay": 0.9}}
    ),
    "learning rates by layer": Method({"training": {"layer_decay": 0.5, "head_learning_rate": 0.1}}),
    "fitted classifier": Method({"model": {"fit_head": True}}, has_weights=True),
    "frozen layers": Method({"model": {"freeze": 1}}),
    "frozen backbone": Method({"model": {"freeze": "backbone"}}),
    "linear probe": Method({"model": {"freeze": "backbone"}, "data": {"augment": {"flip": False}}}),
    "gradual unfreezing": Method({"training": {"gradual_unfreezing": 0.8}}),
    "low-rank adapters": Method({"model": {"lora": {"rank": 2}}}),
    "low-rank adapters of a transformer": Method({"model": {**VIT, "lora": {"rank": 2, "dropout": 0.0}}}),
    "muon": Method({"training": MUON}),
    "timm optimizer": Method({"training": {"optim": "timm/lamb"}}),
    "timm lookahead": Method({"training": {"optim": "timm/lookahead_adamw"}}),
    "one-cycle schedule": Method({"training": {"lr_scheduler_type": "one_cycle"}}),
    "trapezoid schedule": Method({"training": {"lr_scheduler_type": "trapezoid"}}),
    "whitening": Method({"model": {**AIRBENCH, "whiten_stem": True}}),
    "steps that may be repeated": Method({"training": {"auto_find_batch_size": True}}),
    "checkpointed batch norm": Method(
        {"model": AIRBENCH, "training": {"gradient_checkpointing": True}},
        not_one_batch="batch norm takes the statistics of the micro-batch",
    ),
    "kernels": Method({"model": {**VIT, "kernels": "auto"}}),
    "progressive resizing": Method({"data": {"progressive_resizing": {"start": 8, "full_at": 1.0}}}),
    "letterbox": Method({"data": {"resize": "letterbox"}}),
    "grey images": Method({"data": {"channels": 1}}),
    "test-time augmentation": Method({"data": {"test_time_augmentation": "flip"}}),
    "alternating flip": Method({"data": {"augment": {"flip": "alternating"}}}),
    **{name: Method({"data": {"augment": augment}}) for name, augment in AUGMENTATIONS.items()},
    "balanced sampling": Method({"data": {"sampling": "balanced", "augment": {"cutmix": 1.0}}}),
    "rows by loss": Method({"data": {"hard_examples": {"strategy": "proportional", "fraction": 0.9}}}),
    # 17 of 19 rows: as many steps as with all
    "hardest rows": Method({"data": {"hard_examples": {"strategy": "hardest", "fraction": 0.9}}}),
    "distillation": Method({"training": {"distillation_temperature": 3.0}}, has_teacher=True),
    "distillation of a sparse model": Method(
        {"training": {"sparsity": {"final": 0.6, "updates": 4}}}, has_teacher=True
    ),
    "distillation with mixup": Method({"data": {"augment": {"mixup": 0.5}}}, has_teacher=True),
}
STEPS = 6  # of two epochs: 19 rows in batches of 8
CHECKPOINT = 4  # within the second epoch


@pytest.fixture
def method_recipe(tiny_recipe, tmp_path):
    def make(method, folder, *patches):
        # no crop: resizing rounds differently in frames of different size, which is not what is compared here
        fixed = {"data": {"augment": {"crop": "none"}}, "model": {"pretrained": False, "channels_last": False}}
        fixed["training"] = {"num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no",
                             "optim": "sgd", "output_dir": str(tmp_path / folder)}  # fmt: skip
        if METHODS[method].has_teacher:
            fixed["model"]["teacher"] = str(save_teacher(tmp_path / "teacher"))
        if METHODS[method].has_weights:
            fixed["model"] |= {"name": str(save_teacher(tmp_path / "weights", ["a", "b", "c"])), "pretrained": True}
        return tiny_recipe(fixed, METHODS[method].patch, *patches)

    return make


def save_teacher(folder, labels=("red", "blue")):
    """One saved network for all runs of a test."""
    return folder if folder.is_dir() else save_timm(folder, "cifar_resnet20", list(labels), depth=8, width=4)


SAVED = {"training": {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}}


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(method, method_recipe, tmp_path):
    whole = build_trainer(method_recipe(method, "run", SAVED))
    before = weights(whole)
    whole.train()
    assert len(losses(whole)) == whole.state.global_step == STEPS
    assert np.isfinite(losses(whole)).all()
    trained = {name for name, parameter in whole.model.named_parameters() if parameter.requires_grad}
    assert trained <= set(differing(before, whole.model.state_dict()))

    resumed = build_trainer(method_recipe(method, "run", SAVED))
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert_same_run(whole, resumed)
    first, second = (trainer.evaluate(trainer.test_dataset)["eval_loss"] for trainer in (whole, resumed))
    assert first == second


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.not_one_batch is None])
def test_micro_batches_are_one_batch(method, method_recipe):
    def trained(batch, steps):
        training = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_grad_norm": 0}
        patch = {"training": training, "model": {"freeze_batch_norm": True}}
        trainer = build_trainer(method_recipe(method, f"of {batch}", patch))
        trainer.train()
        return trainer

    big, small = trained(8, 1), trained(2, 4)
    assert big.state.global_step == STEPS
    assert_same_but_for_rounding(big, small)


def test_checkpointed_batch_norm_composes_with_accumulation_as_batch_norm_does(method_recipe):
    """Its micro-batches are not one batch, see METHODS; but activations computed again change nothing."""

    def trained(is_checkpointed):
        training = {"gradient_checkpointing": is_checkpointed, "per_device_train_batch_size": 4,
                    "gradient_accumulation_steps": 2}  # fmt: skip
        trainer = build_trainer(method_recipe("checkpointed batch norm", str(is_checkpointed), {"training": training}))
        trainer.train()
        return weights(trainer)

    torch.testing.assert_close(trained(True), trained(False))


@pytest.mark.parametrize("method", METHODS)
def test_it_composes_with_bf16(method, method_recipe):
    trainer = build_trainer(method_recipe(method, "run", {"training": {"bf16": True, "max_steps": 2}}))
    seen = set()
    head = [module for module in trainer.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    head.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    before = weights(trainer)
    trainer.train()
    assert torch.bfloat16 in seen
    assert np.isfinite(losses(trainer)).all()
    assert differing(before, trainer.model.state_dict())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert np.isfinite(trainer.evaluate(trainer.test_dataset)["eval_loss"])
    if trainer.args.device.type == "cpu":
        has_kernels = any(isinstance(entry, CpuKernels) for entry in trainer.methods)
        assert has_kernels is not trainer.args.gradient_checkpointing


DROPOUT = {"model": {**VIT, "args": {**VIT_ARGS, "proj_drop_rate": 0.5}}}


@pytest.mark.parametrize(
    ("fault", "patch"),
    [(None, DROPOUT), ("_load_rng_state", DROPOUT), ("_load_optimizer_and_scheduler", {"training": MUON})],
)
def test_the_comparison_of_a_resumed_run_finds_a_state_that_was_not_loaded(
    fault, patch, method_recipe, tmp_path, monkeypatch
):
    """Negative controls: with the fault the weights must differ, without it they must not."""
    whole = build_trainer(method_recipe("mixup", "run", SAVED, patch))
    whole.train()
    if fault is not None:
        monkeypatch.setattr(Trainer, fault, lambda *args: None)
    resumed = build_trainer(method_recipe("mixup", "run", SAVED, patch))
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert bool(differing(weights(whole), resumed.model.state_dict())) == (fault is not None)


class CountedSteps(AbstractContextManager):
    """A method that remembers something."""

    def __init__(self):
        self.steps = torch.zeros(())
        self.forwards = 0

    def __exit__(self, *_):
        self.steps += 1

    def after_forward(self):
        self.forwards += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@pytest.mark.parametrize("is_loaded", [True, False])
def test_the_state_of_a_method_travels_with_a_checkpoint(is_loaded, method_recipe, tmp_path, monkeypatch):
    whole = build_trainer(method_recipe("mixup", "run", SAVED))
    whole.methods.append(CountedSteps())
    whole.train()
    assert (whole.methods[-1].steps, whole.methods[-1].forwards) == (STEPS, STEPS)
    if not is_loaded:
        for stateful in (CountedSteps, TrainAccuracyCallback):
            monkeypatch.setattr(stateful, "load_state_dict", lambda *args: None)
    resumed = build_trainer(method_recipe("mixup", "run", SAVED))
    resumed.methods.append(CountedSteps())
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert resumed.methods[-1].steps == (STEPS if is_loaded else STEPS - CHECKPOINT)
    assert resumed.methods[-1].forwards == STEPS - CHECKPOINT
    counted = [trainer.train_accuracy_counts.seen for trainer in (whole, resumed)]
    assert counted == ([19, 19] if is_loaded else [19, 19 - 8])


TOGETHER = (
    {"model": {**AIRBENCH, "whiten_stem": True, "kernels": "auto", "freeze_batch_norm": True, "pretrained": False},
     "data": {"class_weights": [0.5, 2.0], "test_time_augmentation": "flip", "validation": 0.33,
              "progressive_resizing": {"start": 12, "full_at": 1.0},
              "augment": {"crop": "none", "mixup": 0.5, "flip": "alternating", "chain": {"operations": CHAIN}, "augmix": {}}},
     "training": {**MUON, "label_smoothing_factor": 0.2, "gradient_checkpointing": True, "bf16": True,
                  "num_train_epochs": 2, "logging_steps": 1}},
)  # fmt: skip
# epochs enough for the losses of both processes to choose rows
EVEN = {"model": {"freeze_batch_norm": True}, "data": {"validation": 0.33},
        "training": {"num_train_epochs": 2, "logging_steps": 1, "optim": "sgd"}}  # fmt: skip
IN_TWO = {
    "many": TOGETHER,
    "balanced sampling, teacher and average": (EVEN, {"data": {"sampling": "balanced"}, "training": {"ema_decay": 0.9}}),
    "steps that may be repeated": (EVEN, {"training": {"auto_find_batch_size": True}}),
    "rows by loss": (EVEN, {"data": {"hard_examples": {"fraction": 0.9}}}),
    "int8 with sparsity": (EVEN, {"training": {"quantization": {"begin": 0.3}, "sparsity": {"final": 0.6, "updates": 4}}}),
    "hardest rows": (EVEN, {"data": {"hard_examples": {"strategy": "hardest", "fraction": 0.5}},
                            "training": {"num_train_epochs": 4}}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("methods", IN_TWO)
def test_methods_give_in_two_processes_what_they_give_in_one(methods, tiny_recipe, tmp_path):
    def recipe(folder, batch):
        training = {"per_device_train_batch_size": batch, "output_dir": str(tmp_path / folder)}
        patch = {"training": training}
        if "teacher" in methods:
            patch["model"] = {"teacher": str(save_teacher(tmp_path / "teacher"))}
        return tiny_recipe(*IN_TWO[methods], patch)

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    assert one.train.world_size == 1
    assert one.train.effective_batch_size == two.train.effective_batch_size == 8
    assert one.train.steps == two.train.steps == 4
    # bf16 rounds the gradients of each rank before they are averaged
    tolerance = 2e-2 if methods == "many" else 1e-4
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=tolerance)
    assert two.test.loss == pytest.approx(one.test.loss, rel=tolerance)
    ranks = sorted(path.name for path in (tmp_path / "two").glob("checkpoint-4/method_state_*"))
    assert ranks == ["method_state_0.pth", "method_state_1.pth"]


@pytest.mark.slow
def test_two_processes_that_resume_within_an_epoch_end_bit_for_bit_as_uninterrupted_ones(tiny_recipe, tmp_path):
    def recipe(folder, **training):
        training |= {"per_device_train_batch_size": 4, "output_dir": str(tmp_path / folder)}
        return tiny_recipe(*IN_TWO["rows by loss"], SAVED, {"training": training | {"save_steps": 1}})

    whole = train_in_two_processes(recipe("whole"), tmp_path / "whole.yaml")
    within = str(tmp_path / "whole" / "checkpoint-3")
    resumed = train_in_two_processes(recipe("resumed", resume_from_checkpoint=within), tmp_path / "resumed.yaml")
    assert resumed.train.steps == whole.train.steps == 4
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]
    assert resumed.test.loss == whole.test.loss
