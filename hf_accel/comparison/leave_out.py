"""`compare --leave_out`: a recipe, and the same recipe without each of its techniques in turn.

A variant adds one technique to the stock settings; a technique that is left out shows what it gives to a recipe that has
all the others. Both need to know how a technique is switched off, and that is the table below: a technique is on where
one of its settings has another value. Settings that a recipe does not name count with the value that a run gives them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError, did_you_mean

PREFIX = "minus_"
# Technique -> its settings, with the values that switch it off. Those of _techniques.yaml have the names of its variants.
OFF: dict[str, dict[str, Any]] = {
    "amp": {"training.bf16": False, "training.fp16": False},
    "channels_last": {"model.channels_last": False},
    "compile": {"training.torch_compile": False},
    "cached": {"data.cache": "none"},
    "device_transforms": {"data.transforms": "loader"},
    "progressive_resizing": {"data.progressive_resizing": None},
    "pin": {"training.dataloader_pin_memory": False},
    "workers": {"training.dataloader_num_workers": 0},
    "keep_freed_memory": {"training.keep_freed_memory": False},
    "cpu_kernels": {"model.kernels": "library"},
    "fused_optimizer": {"training.optim": "adamw_torch"},
    "checkpointing": {"training.gradient_checkpointing": False},
    "accumulation": {"training.gradient_accumulation_steps": 1},
    "crop": {"data.augment.crop": "none"},
    "flip": {"data.augment.flip": False},
    "color_jitter": {"data.augment.color_jitter": None},
    "randaugment": {"data.augment.randaugment": None},
    "trivial_augment": {"data.augment.trivial_augment": None},
    "augmix": {"data.augment.augmix": None},
    "rotation": {"data.augment.rotation": None},
    "affine": {"data.augment.affine": None},
    "perspective": {"data.augment.perspective": None},
    "elastic": {"data.augment.elastic": None},
    "solarize": {"data.augment.solarize": None},
    "invert": {"data.augment.invert": None},
    "grayscale": {"data.augment.grayscale": None},
    "blur": {"data.augment.blur": None},
    "chain": {"data.augment.chain": None},
    "cutout": {"data.augment.cutout": None},
    "random_erasing": {"data.augment.random_erasing": 0},
    "mixup": {"data.augment.mixup": 0},
    "cutmix": {"data.augment.cutmix": 0},
    "label_smoothing": {"training.label_smoothing_factor": 0},
    "weight_decay": {"training.weight_decay": 0},
    "dropout": {"model.dropout": None},
    "drop_path": {"model.drop_path": None},
    "freeze": {"model.freeze": "none"},
    "gradual_unfreezing": {"training.gradual_unfreezing": None},
    "lora": {"model.lora": None},
    "distillation": {
        "model.teacher": None,
        "training.distillation_weight": None,
        "training.distillation_temperature": None,
    },
    "sparsity": {"training.sparsity": None},
    "quantization": {"training.quantization": None},
    "sampling": {"data.sampling": "uniform"},
    "hard_examples": {"data.hard_examples": None},
    "freeze_batch_norm": {"model.freeze_batch_norm": False},
    "fit_head": {"model.fit_head": False},
    "whiten_stem": {"model.whiten_stem": False},
    "ema": {"training.ema_decay": 0},
    "layer_decay": {"training.layer_decay": 1},
    "head_learning_rate": {"training.head_learning_rate": None},  # off: the learning rate of the other layers
    "focal_loss": {"training.focal_gamma": 0},
    "generalized_cross_entropy": {"training.generalized_cross_entropy": 0},
    "class_weights": {"data.class_weights": None},
    "schedule": {"training.lr_scheduler_type": "constant_with_warmup"},
    "warmup": {"training.warmup_steps": 0},
    "gradient_clipping": {"training.max_grad_norm": 0},
    "test_time_augmentation": {"data.test_time_augmentation": "none"},
}
# The values of a run whose recipe does not name the setting, where these are not the ones that switch it off.
UNSET = {
    "training.dataloader_pin_memory": True,
    "training.keep_freed_memory": True,
    "training.optim": "adamw_torch_fused",
    "training.lr_scheduler_type": "linear",
    "training.max_grad_norm": 1.0,
}


@dataclass(frozen=True)
class LeftOut:
    """A technique that a recipe switches on, and the settings that switch it off: dotted name -> value."""

    technique: str
    settings: dict[str, Any]

    @property
    def row_name(self) -> str:
        return PREFIX + self.technique

    def replace_in(self, flags: dict[str, str]) -> dict[str, str]:
        """Flags of `train` that also switch the technique off.

        Args:
            flags: those of the whole recipe; a flag for the same setting, or for a part of it, gives way.
        """
        off = {name.removeprefix("training."): as_flag(value) for name, value in self.settings.items()}
        kept = {
            flag: text
            for flag, text in flags.items()
            if not any(f"{flag.removeprefix('training.')}.".startswith(f"{name}.") for name in off)
        }
        return kept | off


def techniques_of(recipe: Recipe) -> list[LeftOut]:
    """The techniques that a recipe switches on, in the order of the table.

    >>> from hf_accel.config.recipe import load_recipe
    >>> [one.technique for one in techniques_of(load_recipe("resnet20_cifar10", "baseline"))]
    ['crop', 'flip', 'weight_decay', 'schedule', 'warmup']
    """
    values = recipe.to_dict()
    found = []
    for technique, off in OFF.items():
        changed = {name: value for name, value in off.items() if _is_on(name, _value(values, name), value)}
        if changed:
            found.append(LeftOut(technique, changed | _together(technique, recipe)))
    return found


def chosen_techniques(recipe: Recipe, asked: Sequence[str]) -> list[LeftOut]:
    """The techniques to leave out.

    Args:
        asked: names of techniques; empty: all that the recipe switches on.
    Raises:
        UserError: an unknown technique, one that the recipe does not switch on, or none at all.
    """
    on = {left_out.technique: left_out for left_out in techniques_of(recipe)}
    for name in asked:
        if name not in OFF:
            raise UserError(f"--leave_out {name}: there is no such technique. {did_you_mean(name, OFF)}")
        if name not in on:
            raise UserError(
                f"--leave_out {name}: {recipe.name} does not switch it on. It has {', '.join(on) or 'none'}."
            )
    if not on:
        raise UserError(f"--leave_out: {recipe.name} switches no technique on, so there is nothing to leave out")
    return [on[name] for name in dict.fromkeys(asked)] if asked else list(on.values())


def why_without_effect(
    technique: str, recipe: Recipe, device: str | None, no_mixed_precision: str | None
) -> str | None:
    """Why a technique changes nothing on this machine, so that leaving it out measures nothing; None where it may.

    Args:
        device: "cpu", or the name of an accelerator.
        no_mixed_precision: why no 16-bit format is fast here; None where one is.
    """
    if technique == "amp" and recipe.training.get("bf16") == "auto" and no_mixed_precision is not None:
        return f"bf16: auto is fp32 on this device: {no_mixed_precision}"
    if technique == "cpu_kernels" and (device != "cpu" or no_mixed_precision is not None):
        return "it replaces bf16 operations of a CPU, and this run has none"
    if technique == "pin" and device == "cpu":
        return "memory is pinned for an accelerator, and this machine has none"
    if technique == "keep_freed_memory" and device != "cpu":
        return "it changes the allocator of a CPU, and this run is on an accelerator"
    return None


def as_flag(value: Any) -> str:
    """A value as `overrides_from_flags` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_on(name: str, value: Any, off: Any) -> bool:
    if name == "training.optim":  # of optimizers, only the fused form of AdamW is a technique
        return value == "adamw_torch_fused"
    if name == "training.lr_scheduler_type" and value == "constant":
        return False
    return value is not None and value != off


def _value(values: dict[str, Any], name: str) -> Any:
    """The value of a dotted setting; None where neither the recipe nor the table of unset values has one."""
    node: Any = values
    for key in name.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return UNSET.get(name) if node is None else node


def _together(technique: str, recipe: Recipe) -> dict[str, Any]:
    """Settings that change with a technique: a step keeps its rows, and a head takes the rate of the other layers."""
    training = recipe.training
    if technique == "accumulation":
        rows = training.get("per_device_train_batch_size", 8) * training["gradient_accumulation_steps"]
        return {"training.per_device_train_batch_size": rows}
    if technique == "head_learning_rate":
        return {"training.head_learning_rate": training.get("learning_rate", 5e-5)}
    return {}
