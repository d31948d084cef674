"""`training:` of a recipe -> TrainingArguments, and every argument that this package adds, with its reason."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.optimizers import MUON, PREFIX, TimmOptimizer
from hf_accel.config.quantization_settings import QuantizationSettings
from hf_accel.config.recipe import Recipe
from hf_accel.config.schedules import Schedule, own_schedule
from hf_accel.config.selection import Reasons, plateau_kwargs, selection_defaults
from hf_accel.config.sparsity_settings import SparsitySettings
from hf_accel.config.training import (
    CPU_THREADS,
    DEFAULTS,
    EARLY_STOPPING,
    FIXED,
    KEEP_FREED_MEMORY,
    MAPPINGS,
    ON_NAN,
    OWN_METHODS,
    QUANTIZATION,
    SPARSITY,
)
from hf_accel.errors import UserError, did_you_mean
from hf_accel.machine.precision import native_bf16
from hf_accel.models.lora import require_peft
from hf_accel.ranks import join_after_restart
from hf_accel.training.supported import OwnOptimizer, refuse_unbuildable, refuse_unsupported

logger = logging.getLogger(__name__)

# Left out where a recipe only scores a trained model.
ONLY_FOR_TRAINING = ("early_stopping_", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_", "do_",
                     "metric_for_best_model", "greater_is_better", "load_best_model_at_end", "lr_scheduler_",
                     "resume_from_checkpoint", "optim")  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """TrainingArguments of a run, with what was chosen for the user and why."""

    training: TrainingArguments
    early_stopping: dict[str, Any]
    changed: dict[str, Any]  # every argument that differs from TrainingArguments' own default
    keep_freed_memory: bool  # see machine/allocator.py
    own_optimizer: OwnOptimizer | None  # takes the place of the optimizer that TrainingArguments names
    notes: list[str] = field(default_factory=list)
    skips_bad_steps: bool = False  # see methods/finite.py
    methods: dict[str, float] = field(default_factory=dict)  # settings of this package's methods, those that are set
    schedule: Schedule | None = None  # takes the place of the schedule that TrainingArguments names
    sparsity: SparsitySettings | None = None  # see methods/sparsity.py
    quantization: QuantizationSettings | None = None  # see methods/quantization_aware.py
    cpu_threads: int | None = None  # see machine/threads.py


def training_arguments(
    recipe: Recipe, has_validation: bool, has_own_metrics: bool = False, has_standard_metrics: bool = True
) -> Arguments:
    """Build TrainingArguments from a recipe.

    Args:
        recipe: its `training` may hold any TrainingArguments name, `bf16: auto`, `optim: muon` or `timm/NAME`,
            `lr_scheduler_type: one_cycle` or `trapezoid`, `keep_freed_memory`, `cpu_threads`, `on_nan`, `sparsity`,
            `quantization` and other methods, and the two arguments of EarlyStoppingCallback.
        has_validation: whether there are rows to select the best checkpoint by.
        has_own_metrics: whether the caller computes metrics, which may have any name.
        has_standard_metrics: whether ours are computed; False: the loss alone.
    Raises:
        UserError: a value that TrainingArguments refuses, a precision that this device cannot run, or a missing package.
    """
    asked = {name: value for name, value in recipe.training.items() if name != "hub_token"}  # checkpoints pickle it
    require_peft(recipe.model)
    refuse_missing_trackers(recipe.name, asked.get("report_to"))
    refuse_unknown_compiler(recipe.name, asked)
    asked.setdefault("disable_tqdm", False)  # its own default follows the verbosity of transformers' logs
    refuse_unsupported(recipe.name, asked)
    has = (has_validation, has_own_metrics, has_standard_metrics)
    selection = selection_defaults(recipe.name, asked, *has, recipe.model.task)
    selection |= _score_at_start(recipe, asked, selection)
    early_stopping = {name: asked.pop(name) for name in EARLY_STOPPING if name in asked}
    keep_freed_memory, cpu_threads = asked.pop(KEEP_FREED_MEMORY, True), asked.pop(CPU_THREADS, None)
    skips = asked.pop(ON_NAN, "stop") == "skip"
    methods = {name: value for name in OWN_METHODS if (value := asked.pop(name, None)) is not None}
    mappings = _mappings(asked)
    values, reasons = _own_values(asked, selection)
    device = accelerator_type() if not asked.get("use_cpu") else "cpu"
    placed = _device_arguments(asked, device)
    values |= {"output_dir": str(recipe.output_dir)} | {name: value for name, (value, _) in placed.items()}
    reasons |= {name: reason for name, reason in placed.items() if name != "dataloader_pin_memory" or asked.get(name)}
    precision, why = choose_precision(recipe.name, asked, device)
    values |= precision
    notes = [f"precision: {why}"]
    own_optimizer, schedule = _own_optimizer(recipe.name, values), own_schedule(values)
    join_after_restart(values.get("ddp_timeout", TrainingArguments.ddp_timeout))
    arguments = _construct(recipe.name, values, own_optimizer, schedule)
    if arguments.n_gpu > 1:  # the Trainer would wrap the model in nn.DataParallel, and multiply an exact loss by n_gpu
        notes.append(f"1 of {arguments.n_gpu} GPUs is used: `accelerate launch -m hf_accel.train` uses all")
        arguments._n_gpu = 1
    notes += [f"{name}: {value!r} ({why})" for name, (value, why) in reasons.items()]
    if skips:
        notes.append("on_nan: 'skip' (steps whose loss or gradient norm is not finite are left out)")
    return Arguments(
        arguments,
        early_stopping,
        changed_arguments(values),
        keep_freed_memory and device == "cpu",
        own_optimizer,
        notes,
        skips,
        methods,
        schedule,
        mappings[SPARSITY],
        mappings[QUANTIZATION],
        cpu_threads,
    )


def _score_at_start(recipe: Recipe, asked: dict[str, Any], selection: Reasons) -> Reasons:
    """A fitted classifier is scored before the first step, if anything is scored."""
    chosen = {**{name: value for name, (value, _) in selection.items()}, **asked}
    if (
        not (recipe.model.fit_head and recipe.model.pretrained)
        or chosen["eval_strategy"] == "no"
        or "eval_on_start" in asked
    ):
        return {}
    return {"eval_on_start": (True, "shows what the fitted classifier gives")}


def _mappings(asked: dict[str, Any]) -> dict[str, Any]:
    """Methods whose setting is a mapping -> their settings, which are taken out of what was asked for; None: off."""
    given = {name: asked.pop(name, None) for name in MAPPINGS}
    return {name: None if values is None else MAPPINGS[name](**values) for name, values in given.items()}


def _own_values(asked: dict[str, Any], selection: Reasons) -> tuple[dict[str, Any], Reasons]:
    """The arguments that were asked for, completed by those of this package, and the reasons of the latter."""
    values = asked | {name: value for name, (value, _) in FIXED.items()}
    reasons = {name: (value, why) for name, (value, why) in FIXED.items() if asked.get(name, value) != value}
    reasons.pop("push_to_hub", None)  # the push does come, only later
    defaults = DEFAULTS | selection
    if asked.get("save_strategy") == "no":
        defaults.pop("save_total_limit")
    chosen = {name: reason for name, reason in defaults.items() if name not in asked}
    if asked.get("dataloader_num_workers", 0) and "dataloader_persistent_workers" not in asked:
        chosen["dataloader_persistent_workers"] = (True, "workers start once, not every epoch")
    values |= {name: value for name, (value, _) in chosen.items()}
    kwargs = plateau_kwargs(asked, values.get("greater_is_better", True))
    if kwargs is not None:
        chosen["lr_scheduler_kwargs"] = (kwargs, f"the schedule follows {values['metric_for_best_model']}")
        values["lr_scheduler_kwargs"] = kwargs
    return values, reasons | chosen


def _device_arguments(asked: dict[str, Any], device: str) -> dict[str, tuple[Any, str]]:
    """The arguments that follow from the device: argument -> (value, why)."""
    if device == "cpu":
        return {
            "use_cpu": (True, "no accelerator on this machine, or not asked for"),
            "dataloader_pin_memory": (False, "memory is pinned for an accelerator, and this run has none"),
        }
    if asked.get("dataloader_pin_memory", True) and "accelerator_config" not in asked:
        return {"accelerator_config": ({"non_blocking": True}, "a pinned batch is copied while the device computes")}
    return {}


def _own_optimizer(where: str, values: dict[str, Any]) -> OwnOptimizer | None:
    optim, text = values.get("optim", ""), values.get("optim_args")
    if optim == MUON:
        return MuonSettings.parse(where, text)
    return TimmOptimizer.parse(where, optim, text) if optim.startswith(PREFIX) else None


def _construct(
    where: str, values: dict[str, Any], own_optimizer: OwnOptimizer | None, schedule: Schedule | None
) -> TrainingArguments:
    # TrainingArguments does not know ours, and those that it names instead are never built
    stand_ins: dict[str, Any] = {} if own_optimizer is None else {"optim": "sgd"}
    stand_ins |= {} if schedule is None else {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            arguments = TrainingArguments(**values | stand_ins)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{where}: training: {' '.join(str(error).split())}") from None
    except ImportError as error:
        raise UserError(f"{where}: training: a package is missing: {' '.join(str(error).split())}") from None
    refuse_unbuildable(where, arguments, own_optimizer)
    return arguments


def for_scoring(training: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a recipe that matter when a trained model is only scored."""
    return {name: value for name, value in training.items() if not name.startswith(ONLY_FOR_TRAINING)}


def refuse_missing_trackers(where: str, report_to: str | list[str] | None) -> None:
    """Refuse a tracker that is not installed, for which the Trainer's constructor raises RuntimeError.

    Raises:
        UserError: a tracker is unknown or not installed.
    """
    names = [report_to] if isinstance(report_to, str) else report_to or []
    for name in names:
        if name in ("none", "all") or name in get_available_reporting_integrations():
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"{where}: training.report_to is {name!r}. {did_you_mean(name, INTEGRATION_TO_CALLBACK)}")
        raise UserError(f"{where}: training.report_to is {name!r}, which is not installed: pip install {name}")


def refuse_unknown_compiler(where: str, asked: dict[str, Any]) -> None:
    """Refuse a compiler for which Accelerate or torch.compile would raise after the output folder was made.

    Raises:
        UserError: torch_compile_backend or torch_compile_mode is not one that they know.
    """
    known: dict[str, set[str]] = {}
    if asked.get("torch_compile_backend") is not None:
        installed = set(torch._dynamo.list_backends(exclude_tags=()))
        known["torch_compile_backend"] = installed & {backend.value.lower() for backend in DynamoBackend}
    if asked.get("torch_compile_mode") is not None:
        known["torch_compile_mode"] = set(torch._inductor.list_mode_options())
    for name, names in known.items():
        if asked[name] not in names:
            raise UserError(f"{where}: training.{name} is {asked[name]!r}. {did_you_mean(asked[name], sorted(names))}")


def accelerator_type() -> str:
    """cuda, mps, xpu... or cpu."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator is not None else "cpu"


def choose_precision(where: str, asked: dict[str, Any], device: str) -> tuple[dict[str, bool], str]:
    """Resolve `bf16: auto` and refuse a precision that cannot run.

    bf16 where the device multiplies it natively, else fp16 on CUDA, else fp32: a CPU without bf16 instructions trains
    1.8-2.5 times slower in it, and neither PyTorch nor the Trainer says so.

    Returns:
        The arguments fp16 and bf16, and the reason in words.
    """
    native, reason = native_bf16(device)
    if asked.get("fp16"):
        if device != "cuda":
            raise UserError(
                f"{where}: training.fp16 needs a CUDA device for its loss scaling, and this run is on {device}. Use "
                "training.bf16: auto, which takes bf16 where it is fast and fp32 elsewhere."
            )
        return {"fp16": True, "bf16": False}, "fp16, as asked"
    bf16 = asked.get("bf16", False)
    if bf16 == "auto":
        if native:
            return {"fp16": False, "bf16": True}, f"bf16 ({reason})"
        if device == "cuda":
            return {"fp16": True, "bf16": False}, f"fp16 ({reason})"
        return {"fp16": False, "bf16": False}, f"fp32 ({reason})"
    if bf16 and not native:
        slower = f"{reason}, so training is slower than in fp32 (1.8-2.5 times on such CPUs)"
        logger.warning("bf16: %s", slower)
        return {"fp16": False, "bf16": True}, f"bf16, as asked; warning: {slower}"
    return {"fp16": False, "bf16": bool(bf16)}, "bf16, as asked" if bf16 else "fp32"


def changed_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments that differ from TrainingArguments' own defaults, paths and secrets left out."""
    private = {"output_dir", "resume_from_checkpoint"}
    defaults = {
        f.name: f.default if f.default is not dataclasses.MISSING else None
        for f in dataclasses.fields(TrainingArguments)
    }
    return {
        name: value if not isinstance(value, Path) else str(value)
        for name, value in sorted(values.items())
        if name not in private and defaults.get(name) != value
    }
