"""What `training:` may hold: TrainingArguments, name for name, and what this package adds to it.

Names and types are read from the source of the installed transformers without importing it, because importing takes
seconds and a typing mistake should be answered at once.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model

from hf_accel.config.fields import Whole
from hf_accel.config.quantization_settings import QuantizationSettings
from hf_accel.config.sparsity_settings import SparsitySettings

# Arguments of transformers.EarlyStoppingCallback, under their own names, next to those of TrainingArguments.
EARLY_STOPPING = {"early_stopping_patience": "int", "early_stopping_threshold": "float"}
# On a CPU: freed memory stays with the process, which saves the kernel's work at every step.
KEEP_FREED_MEMORY = "keep_freed_memory"
# Threads of PyTorch's operations on the CPU; unset: PyTorch's own choice.
CPU_THREADS = "cpu_threads"
# What a loss or a gradient that is not finite does: end the run, or leave out its step.
ON_NAN = "on_nan"
# Methods of this package, each off at its default.
FOCAL_GAMMA, GENERALIZED_CROSS_ENTROPY = "focal_gamma", "generalized_cross_entropy"
EMA_DECAY, LAYER_DECAY, HEAD_LEARNING_RATE = "ema_decay", "layer_decay", "head_learning_rate"
DISTILLATION_WEIGHT, DISTILLATION_TEMPERATURE = "distillation_weight", "distillation_temperature"
GRADUAL_UNFREEZING = "gradual_unfreezing"
# Methods whose setting is a mapping.
SPARSITY, QUANTIZATION = "sparsity", "quantization"
MAPPINGS: dict[str, type] = {SPARSITY: SparsitySettings, QUANTIZATION: QuantizationSettings}
OWN_METHODS = {
    FOCAL_GAMMA: "float",
    GENERALIZED_CROSS_ENTROPY: "float",
    EMA_DECAY: "float",
    LAYER_DECAY: "float",
    HEAD_LEARNING_RATE: "float",
    DISTILLATION_WEIGHT: "float",
    DISTILLATION_TEMPERATURE: "float",
    GRADUAL_UNFREEZING: "float",
}

# Set whatever the recipe says: the package does not work otherwise.
FIXED = {
    "remove_unused_columns": (False, "batches carry pixels, which the Trainer would delete as unknown columns"),
    "push_to_hub": (False, "the push comes last, so that a Hub outage cannot stop the run"),
    "label_names": (["labels"], "the one label column of a batch"),
    "enable_jit_checkpoint": (False, "SIGTERM saves a checkpoint anyway, and upstream's way of it counts as finished"),
}
# Set unless the recipe says otherwise.
DEFAULTS = {
    "logging_nan_inf_filter": (False, "it asks the device for the loss at every micro-batch, a synchronisation"),
    "logging_steps": (0.02, "50 points on the learning curve, whatever the length of the run"),
    "report_to": ("none", "trackers are asked for by name"),
    "save_total_limit": (2, "the best and the last checkpoint"),
}

_RANGES = {
    "num_train_epochs": Field(ge=1e-6, le=1e9),
    "learning_rate": Field(ge=0, le=1e6),
    "per_device_train_batch_size": Field(ge=1, le=10**9),
    "per_device_eval_batch_size": Field(ge=1, le=10**9),
    "gradient_accumulation_steps": Field(ge=1, le=10**9),
    "dataloader_num_workers": Field(ge=0, le=4096),
    "label_smoothing_factor": Field(ge=0, le=0.999),
    "early_stopping_patience": Field(ge=1, le=10**9),
    FOCAL_GAMMA: Field(ge=0, le=100),
    GENERALIZED_CROSS_ENTROPY: Field(ge=0, le=1),
    EMA_DECAY: Field(ge=0, lt=1),
    LAYER_DECAY: Field(gt=0, le=1),
    HEAD_LEARNING_RATE: Field(gt=0, le=1e6),
    DISTILLATION_WEIGHT: Field(ge=0, le=1),
    DISTILLATION_TEMPERATURE: Field(gt=0, le=1000),
    GRADUAL_UNFREEZING: Field(gt=0, le=1),
    "weight_decay": Field(ge=0, le=1e36),
    "adam_beta1": Field(ge=0, lt=1),
    "adam_beta2": Field(ge=0, lt=1),
    "adam_epsilon": Field(ge=0, le=1e6),
    CPU_THREADS: Field(ge=1, le=4096),
    "max_grad_norm": Field(ge=0, le=1e9),
    "seed": Field(ge=0, le=2**32 - 1),
}
_PLAIN_TYPES = {
    "bool": StrictBool,
    "int": Annotated[StrictInt, Whole],
    "float": Annotated[float, Field(strict=True)],
    "list": list,
    "dict": dict,
    "Any": Any,
    "Literal": Literal,
}


class _Names(dict[str, Any]):
    """Names in annotations -> types that YAML can hold; an enum of transformers is text, and names its own choices."""

    def __missing__(self, name: str) -> Any:
        return StrictStr


@cache
def training_types() -> dict[str, str]:
    """Names of TrainingArguments of the installed transformers, each with its annotation as text."""
    names = {
        n.target.id: ast.unparse(n.annotation).strip("'\"")
        for n in _class_body("training_args.py", "TrainingArguments")
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    return {
        **names,
        **EARLY_STOPPING,
        **OWN_METHODS,
        KEEP_FREED_MEMORY: "bool",
        CPU_THREADS: "int",
        ON_NAN: "Literal['stop', 'skip']",
        **dict.fromkeys(MAPPINGS, "dict"),
    }


def enum_values(file: str, name: str) -> list[str]:
    """The values of an enum of the installed transformers, in a file of its folder."""
    assigned = (n.value for n in _class_body(file, name) if isinstance(n, ast.Assign))
    return [str(value.value) for value in assigned if isinstance(value, ast.Constant)]


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    package = importlib.util.find_spec(name)
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0])


@cache
def _class_body(file: str, name: str) -> list[ast.stmt]:
    tree = ast.parse((package_folder("transformers") / file).read_text("utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name).body


@cache
def training_settings() -> type[BaseModel]:
    """A model of `training:`, made to check the values that are given; defaults are upstream's."""
    settings: Any = {name: (_field_type(name, annotation), None) for name, annotation in training_types().items()}
    return create_model("TrainingSettings", __config__=ConfigDict(extra="forbid"), **settings)


def _field_type(name: str, annotation: str) -> Any:
    if name == "bf16":
        return StrictBool | Literal["auto"]
    if name in MAPPINGS:
        return MAPPINGS[name] | None
    if name == "resume_from_checkpoint":  # true and false are what its help says, and what is said on the command line
        return StrictBool | StrictStr | None
    found = eval(annotation, {"__builtins__": {}}, _Names(_PLAIN_TYPES))
    # the range belongs inside, next to the type, so that the JSON Schema has it as well
    if name not in _RANGES:
        return found
    if annotation == "int":
        return Annotated[StrictInt, _RANGES[name], Whole]
    return Annotated[found, _RANGES[name]]
