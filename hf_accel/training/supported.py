"""What becomes of each argument of TrainingArguments: it has an effect, or it is refused with the reason.

A flag that is accepted and does nothing misleads. tests/training/test_arguments.py goes through every argument of the
installed transformers, so a new one has to be entered here.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, get_scheduler

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.optimizers import TimmOptimizer
from hf_accel.errors import UserError, did_you_mean
from hf_accel.methods.timm_optimizers import refuse_unbuildable_optimizer

OwnOptimizer = MuonSettings | TimmOptimizer


@dataclass(frozen=True)
class Refused:
    """An argument of which only some values can be honoured."""

    allowed: tuple[Any, ...]
    reason: str


# Only the values listed here have an effect.
REFUSED: dict[str, Refused] = {
    "average_tokens_across_devices": Refused((True,), "the loss is the mean over the images of all processes"),
    "batch_eval_metrics": Refused((False,), "F1 is computed from all rows of a split together"),
    "bf16_full_eval": Refused(
        (False,), "it rounds the weights that are saved; training.bf16 evaluates in bf16 already"
    ),
    "do_eval": Refused((True, None), "to leave the scores out set training.eval_strategy: no, or data.validation: 0"),
    "do_predict": Refused((True, None), "the test rows are always scored, once, at the end"),
    "do_train": Refused((True, None), "train always trains; `hf-accel evaluate FOLDER` only scores"),
    "eval_do_concat_batches": Refused((True,), "F1 is computed from all rows of a split together"),
    "fp16_full_eval": Refused(
        (False,), "it rounds the weights that are saved; training.fp16 evaluates in fp16 already"
    ),
    "include_for_metrics": Refused(([], None), "the figures of the report need neither inputs nor losses"),
    "include_num_input_tokens_seen": Refused((False, "no"), "the report counts images, or texts, and not tokens"),
    "length_column_name": Refused(("length",), "the length of a text is the number of its tokens"),
    "liger_kernel_config": Refused((None,), "Liger has kernels for language models only"),
    "neftune_noise_alpha": Refused(
        (None,), "noise on token embeddings is made for language models, and images have none"
    ),
    "parallelism_config": Refused((None,), "it is a Python object; describe it in the file of accelerate config"),
    "prediction_loss_only": Refused((False,), "the report needs the predictions of every row"),
    "train_sampling_strategy": Refused(
        ("random", "group_by_length"), "each epoch goes through the rows in an order that depends on the seed alone"
    ),
    "use_cache": Refused((False,), "it is for models that generate text"),
    "use_liger_kernel": Refused((False,), "Liger has kernels for language models only"),
}
UPSTREAM = "passed to the Trainer"
WORKERS = "dataloader_num_workers"
# What each of the other arguments does: see docs/arguments.md.
EFFECT: dict[str, str] = {
    **dict.fromkeys(
        [
            "per_device_train_batch_size",
            "num_train_epochs",
            "learning_rate",
            "warmup_steps",
            "weight_decay",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "gradient_accumulation_steps",
            "max_grad_norm",
            "tf32",
            "activation_checkpointing",
            "gradient_checkpointing",
            "torch_compile",
            "torch_empty_cache_steps",
            "logging_strategy",
            "logging_first_step",
            "log_on_each_node",
            "log_level",
            "log_level_replica",
            "disable_tqdm",
            "eval_delay",
            "per_device_eval_batch_size",
            "eval_on_start",
            "eval_use_gather_object",
            "eval_accumulation_steps",
            "save_only_model",
            "save_on_each_node",
            "ignore_data_skip",
            "restore_callback_states_from_checkpoint",
            "full_determinism",
            "seed",
            "ddp_bucket_cap_mb",
            "ddp_broadcast_buffers",
            "ddp_static_graph",
            "ddp_backend",
            "ddp_timeout",
            "deepspeed",
            "debug",
            "skip_memory_metrics",
            "dataloader_num_workers",
            "torch_compile_backend",
            "torch_compile_mode",
        ],
        UPSTREAM,
    ),
    **dict.fromkeys(
        [
            "eval_strategy",
            "eval_steps",
            "save_strategy",
            "save_steps",
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
            "lr_scheduler_kwargs",
        ],
        "passed to the Trainer; if it is not given, it follows from the other arguments of scoring and saving",
    ),
    **dict.fromkeys(
        ["logging_nan_inf_filter", "logging_steps", "save_total_limit", "report_to"],
        "passed to the Trainer; the default is one of this package",
    ),
    **dict.fromkeys(["bf16", "fp16"], "the precision of training and evaluation; one that the device lacks is refused"),
    **dict.fromkeys(
        ["remove_unused_columns", "label_names", "enable_jit_checkpoint"],
        "set by this package whatever is asked, with a note",
    ),
    **dict.fromkeys(
        ["push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_revision", "hub_strategy"],
        "the upload of the finished run",
    ),
    **dict.fromkeys(
        ["early_stopping_patience", "early_stopping_threshold"], "passed to transformers.EarlyStoppingCallback"
    ),
    "auto_find_batch_size": "a step in which memory runs out is repeated with half as many rows in each forward pass; the "
    "effective batch stays, and the run does not begin again, as it does upstream",
    "cpu_threads": "the number of threads of PyTorch's operations on the CPU",
    "keep_freed_memory": "on a CPU, freed memory stays with the process for the next step",
    "on_nan": "ends the run, or leaves out the step, when a loss or gradient norm is not finite",
    "focal_gamma": "focal loss in training; validation and test are scored with the cross-entropy",
    "generalized_cross_entropy": "a loss for noisy labels in training; validation and test are scored with the cross-entropy",
    "ema_decay": "a moving average of the weights, which is what is evaluated and saved",
    "sparsity": "weights of small magnitude become zero in training; the saved model has the asked share of zeros",
    "quantization": "layers compute with int8 weights and activations in training; saved are fp32 weights that suit an int8 file",
    "layer_decay": "factor of each layer's learning rate over that of the layer after it",
    "head_learning_rate": "learning rate of the classifier",
    "distillation_weight": "share of the loss that is the distance from the answers of `model.teacher`; default 0.5",
    "distillation_temperature": "divides the logits of student and teacher in that share of the loss; default 2",
    "gradual_unfreezing": "the classifier learns first; the layers before it join one by one over this share of the steps",
    "label_smoothing_factor": "the loss of training; validation and test are scored without smoothing",
    "hub_always_push": "there is one upload, after the run, so none is skipped",
    "optim_args": "passed to the Trainer; refused with an optimizer, a name or a value that has no effect",
    "optim": "passed to the Trainer; `muon` is an optimizer of this package, `timm/NAME` is one of timm's; one whose package is "
    "missing is refused",
    "lr_scheduler_type": "passed to the Trainer; `one_cycle` and `trapezoid` are schedules of this package",
    "accelerator_config": "passed to the Trainer; `dispatch_batches: true` is refused, and `even_batches` has no effect in "
    "training: every row trains once",
    "output_dir": "the folder of the run; default `outputs/RECIPE/VARIANT`",
    "use_cpu": "passed to the Trainer; `true` where there is no accelerator",
    "dataloader_pin_memory": "passed to the Trainer; `false` without an accelerator, with a note",
    "dataloader_drop_last": "drops the last incomplete batch of training; every validation and test row is scored",
    "data_seed": "the order of the training rows; default: `seed`",
    "ddp_find_unused_parameters": "passed to the Trainer; by default, unused parameters are searched only where there are any",
    "resume_from_checkpoint": "a checkpoint, or `true` to train a finished run longer; an interrupted run resumes without it",
    "max_steps": "passed to the Trainer; 0 is refused",
    "local_rank": "set by the launcher; another value is refused",
    "fsdp": "passed to accelerate; refused in a single process",
    # each of these needs another one: see NEEDS
    **dict.fromkeys(
        [
            "dataloader_persistent_workers",
            "dataloader_prefetch_factor",
            "dataloader_multiprocessing_context",
            "dataloader_in_order",
            "gradient_checkpointing_kwargs",
            "activation_checkpointing_kwargs",
            "fsdp_config",
            "optim_target_modules",
            "run_name",
            "project",
            "trackio_space_id",
            "trackio_bucket_id",
            "trackio_static_space_id",
        ],
        "passed to the Trainer with the argument that it belongs to",
    ),
}
# An argument, the default with which it does nothing, and the arguments of which it needs one.
NEEDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "dataloader_persistent_workers": (False, (WORKERS,)),
    "dataloader_prefetch_factor": (None, (WORKERS,)),
    "dataloader_multiprocessing_context": (None, (WORKERS,)),
    "dataloader_in_order": (True, (WORKERS,)),
    "gradient_checkpointing_kwargs": (None, ("gradient_checkpointing", "activation_checkpointing")),
    "activation_checkpointing_kwargs": (None, ("activation_checkpointing", "gradient_checkpointing")),
    "fsdp_config": (None, ("fsdp",)),
    "run_name": (None, ("report_to",)),
    "project": ("huggingface", ("report_to",)),
    "trackio_space_id": (None, ("report_to",)),
    "trackio_bucket_id": (None, ("report_to",)),
    "trackio_static_space_id": (None, ("report_to",)),
}
DDP_BACKENDS = ("nccl", "gloo", "mpi", "ccl", "xccl", "hccl", "cncl", "mccl")
TARGETED_OPTIMIZERS = ("galore_", "apollo_")  # they need optim_target_modules, and no other optimizer reads it


def refuse_unsupported(where: str, asked: dict[str, Any]) -> None:
    """Refuse arguments that would have no effect here, or end in a traceback later.

    Args:
        where: the recipe, for the message.
        asked: the `training:` of the recipe.
    Raises:
        UserError: an argument that cannot be honoured; the message says why.
    """
    for name, rule in REFUSED.items():
        if name in asked and asked[name] not in rule.allowed:
            expected = " or ".join("null" if v is None else str(v).lower() for v in rule.allowed)
            raise UserError(f"{where}: training.{name} is {asked[name]!r}, expected {expected}: {rule.reason}.")
    for name, (default, others) in NEEDS.items():
        if name in asked and asked[name] != default and not any(_is_on(asked.get(other)) for other in others):
            raise UserError(
                f"{where}: training.{name} is {asked[name]!r}, which has no effect without training.{others[0]}. Set that, or "
                f"leave {name} out."
            )
    steps = asked.get("max_steps", -1)
    if steps == 0 or steps < -1:
        raise UserError(f"{where}: training.max_steps is {steps}, expected a number above 0, or -1 for whole epochs.")
    if "optim_target_modules" in asked and not str(asked.get("optim", "")).startswith(TARGETED_OPTIMIZERS):
        raise UserError(
            f"{where}: training.optim_target_modules has no effect with this optimizer. Expected it with training.optim: "
            "galore_* or apollo_*."
        )
    sharing = asked.get("accelerator_config")
    if isinstance(sharing, dict) and sharing.get("dispatch_batches"):
        raise UserError(
            f"{where}: training.accelerator_config.dispatch_batches is true, and each process reads its own batches. Leave it "
            "out."
        )
    _refuse_without_launcher(where, asked)


def refuse_unbuildable(where: str, arguments: TrainingArguments, own_optimizer: OwnOptimizer | None) -> None:
    """Ask the Trainer for its optimizer and schedule now: it builds them after the output folder was made.

    Args:
        own_optimizer: the one that takes the place of the Trainer's.
    Raises:
        UserError: a package is missing, or an argument of the optimizer or the schedule is wrong.
    """
    if isinstance(own_optimizer, TimmOptimizer):
        refuse_unbuildable_optimizer(where, own_optimizer)
    try:
        if own_optimizer is None:
            made, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
            if made.__module__.startswith("torch.optim."):
                made([torch.nn.Parameter(torch.zeros(1))], **settings)
    except (ImportError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: training.optim: {' '.join(str(error).split())}") from None
    kwargs = arguments.lr_scheduler_kwargs or {}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            1,
            100,
            scheduler_specific_kwargs=dict(kwargs),  # type: ignore[arg-type]  # JSON text has been read by now
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: training.lr_scheduler_kwargs: {' '.join(str(error).split())}") from None


def _is_on(value: Any) -> bool:
    return bool(value) and value not in ("none", ["none"])


def _refuse_without_launcher(where: str, asked: dict[str, Any]) -> None:
    if asked.get("fsdp") and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise UserError(
            f"{where}: training.fsdp is {asked['fsdp']!r}, but this is one process, so there is nothing to share. Start it with "
            "`accelerate launch --num_processes N -m hf_accel.train`, or leave fsdp out."
        )
    backend = asked.get("ddp_backend")
    if backend is not None and backend.lower() not in DDP_BACKENDS:
        raise UserError(f"{where}: training.ddp_backend is {backend!r}. {did_you_mean(backend, list(DDP_BACKENDS))}")
    if asked.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"{where}: training.deepspeed needs DeepSpeed, which is not installed: pip install deepspeed")
    rank = asked.get("local_rank", -1)
    if rank != -1 and str(rank) != os.environ.get("LOCAL_RANK"):
        raise UserError(
            f"{where}: training.local_rank is {rank}, which a launcher sets. Use `accelerate launch -m hf_accel.train`."
        )
