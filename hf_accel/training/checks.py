"""What a run needs of its model, its rows and its disk: refused before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_accel.config.optimizers import TimmOptimizer
from hf_accel.config.recipe import Recipe
from hf_accel.config.training import GRADUAL_UNFREEZING
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.methods import EvaluatedWeights
from hf_accel.methods.distillation import Distillation
from hf_accel.methods.finite import broken_tensor
from hf_accel.methods.quantization_aware import QuantizationAware
from hf_accel.methods.sparsity import MagnitudePruning
from hf_accel.methods.unfreezing import GradualUnfreezing
from hf_accel.models.given import is_peft
from hf_accel.models.loaded import Loaded
from hf_accel.models.lora import has_adapters
from hf_accel.models.plain import PlainClassifier
from hf_accel.models.trial import training_failure
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.output_place import writable_place
from hf_accel.tasks.image_inputs import ImageInputs
from hf_accel.tasks.text_classification import TextInputs
from hf_accel.training.supported import OwnOptimizer


def require_usable_model(recipe: Recipe, args: TrainingArguments, loaded: Loaded) -> None:
    """Refuse a model that cannot be trained as asked, or whose checkpoints do not fit on the disk; raises UserError."""
    require_finite_weights(recipe, loaded.model)
    require_checkpointing(recipe, args, loaded.model)
    require_known_layers(recipe, loaded.model)
    require_space(recipe.output_dir, args, loaded.parameters)


def require_checkpointing(recipe: Recipe, args: TrainingArguments, model: PreTrainedModel) -> None:
    """Refuse gradient checkpointing with a model that does not support it.

    Raises:
        UserError: it is asked for, and the model cannot compute its activations again.
    """
    if args.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"{recipe.name}: training.gradient_checkpointing is true, and {type(model).__name__} of "
            f"{recipe.model.name} cannot compute its activations again. Set it to false, or take a timm model."
        )


def require_known_layers(recipe: Recipe, model: PreTrainedModel) -> None:
    """Refuse what acts by layer for a network of the caller's own, whose layers have no known order.

    Raises:
        UserError: it is asked for, and the model is wrapped by PEFT or is a plain torch.nn.Module.
    """
    settings = [name for name in ("layer_decay", "head_learning_rate") if recipe.training.get(name) not in (None, 1)]
    settings += [GRADUAL_UNFREEZING] if recipe.training.get(GRADUAL_UNFREEZING) is not None else []
    if settings and (is_peft(model) or isinstance(model, PlainClassifier)):
        raise UserError(
            f"{recipe.name}: training.{settings[0]} needs a model of transformers or timm, whose layers are known. Leave it out, "
            "or give the Trainer an optimizer of your own."
        )


def refuse_sharding(
    model: nn.Module,
    own_optimizer: OwnOptimizer | None,
    methods: Sequence[Any],
    leaves_steps_to_deepspeed: bool,
    repeats_steps: bool = False,
) -> None:
    """Refuse what needs whole tensors, or the parameters that learn from the start, under FSDP and DeepSpeed.

    Args:
        leaves_steps_to_deepspeed: whether steps are to be left out, and DeepSpeed makes them.
        repeats_steps: whether a step is to be repeated when memory runs out.
    Raises:
        UserError: something of this run cannot be sharded.
    """
    sharding = "and FSDP and DeepSpeed shard them. Launch without them, or"
    optim = f"timm/{own_optimizer.name}" if isinstance(own_optimizer, TimmOptimizer) else "muon"
    problems = [
        (
            any(isinstance(method, EvaluatedWeights) for method in methods),
            f"training.ema_decay averages whole weights, {sharding} leave ema_decay out.",
        ),
        (
            any(isinstance(method, MagnitudePruning) for method in methods),
            f"training.sparsity compares whole weights, {sharding} leave sparsity out.",
        ),
        (
            any(isinstance(method, QuantizationAware) for method in methods),
            f"training.quantization rounds whole weights, {sharding} leave quantization out.",
        ),
        (
            any(isinstance(method, Distillation) for method in methods),
            "model.teacher is a whole model in every process, and FSDP and DeepSpeed shard what is loaded. Launch without them, "
            "or leave teacher out.",
        ),
        (
            any(isinstance(method, GradualUnfreezing) for method in methods),
            "training.gradual_unfreezing changes which parameters learn, and FSDP and DeepSpeed must know them at the start. "
            "Launch without them, or leave gradual_unfreezing out.",
        ),
        (
            own_optimizer is not None,
            f"training.optim: {optim} needs whole weights, {sharding} choose another training.optim.",
        ),
        (
            has_adapters(model),
            f"model.lora merges adapters into whole weights, {sharding} leave lora out.",
        ),
        (
            isinstance(model, PlainClassifier),
            f"model: a network of your own is saved by its whole tensors, {sharding} give a transformers or timm model.",
        ),
        *_problems_of_steps(leaves_steps_to_deepspeed, repeats_steps),
    ]
    for is_found, problem in problems:
        if is_found:
            raise UserError(problem)


def _problems_of_steps(leaves_steps_to_deepspeed: bool, repeats_steps: bool) -> list[tuple[bool, str]]:
    return [
        (
            leaves_steps_to_deepspeed,
            "training.on_nan is 'skip', but DeepSpeed makes the optimizer's step itself. Leave on_nan out, or launch without "
            "DeepSpeed.",
        ),
        (
            repeats_steps,
            "training.auto_find_batch_size repeats a step in the process that ran out of memory, and under FSDP and DeepSpeed "
            "the others wait for it within the step. Launch without them, or leave auto_find_batch_size out.",
        ),
    ]


def require_steps(recipe: Recipe, args: TrainingArguments, rows: int) -> None:
    """Refuse a run in which no batch is full and only full batches are trained on: it would score untrained weights.

    Args:
        rows: of the training split.
    Raises:
        UserError: not one step would be made.
    """
    batches, processes = rows // args.train_batch_size, count_batches(args)
    if not args.dataloader_drop_last or batches >= processes:
        return
    each = "" if processes == 1 else f" for each of the {processes} processes"
    fix = "leave dataloader_drop_last out"
    if rows >= processes:
        fix = f"set training.per_device_train_batch_size to at most {rows // processes}, or {fix}"
    raise UserError(
        f"{recipe.name}: training.dataloader_drop_last is true, and {rows} training images make no batch of "
        f"{args.train_batch_size}{each}, so no step would be made. To train, {fix}."
    )


def require_batches_that_train(
    recipe: Recipe, args: TrainingArguments, rows: int, inputs: ImageInputs | TextInputs, model: PreTrainedModel
) -> None:
    """Refuse a batch of one image where the model cannot be trained on it, as with batch norm over a vector.

    Args:
        rows: of the training split.
    Raises:
        UserError: a forward pass of one image fails in training mode.
    """
    if smallest_batch(args, rows) > 1:
        return
    failure = training_failure(model, inputs.smallest_batch(model, rows=1))
    if failure is None:
        return
    size = args.train_batch_size
    others = [other for other in range(size - 1, 1, -1) if rows % other != 1]
    if rows == 1:
        what, fix = "there is 1 training image", "Add images."
    elif size == 1:
        what, fix = "training.per_device_train_batch_size is 1", "Set it to 2 or more."
    else:
        what = (
            f"training.per_device_train_batch_size is {size}, which leaves one of the {rows} training images for the last batch "
            "of each epoch"
        )
        other = f", or per_device_train_batch_size: {others[0]}" if others else ""
        fix = f"Set training.dataloader_drop_last: true{other}."
    raise UserError(
        f"{recipe.name}: {what}, and {recipe.model.name} cannot be trained on a single image ({failure}). {fix}"
    )


def smallest_batch(args: TrainingArguments, rows: int) -> int:
    """Images of the smallest batch that a process trains on."""
    size = args.train_batch_size
    if _sharing(args).split_batches:
        size = max(1, size // args.world_size)
    rest = rows % size
    return size if rest == 0 or args.dataloader_drop_last else rest


def _sharing(args: TrainingArguments) -> AcceleratorConfig:
    """How batches are shared among the processes."""
    assert isinstance(args.accelerator_config, AcceleratorConfig)  # upstream makes it one of what it was given
    return args.accelerator_config


def count_batches(args: TrainingArguments) -> int:
    """Batches of `train_batch_size` that one step takes, one per process."""
    return 1 if _sharing(args).split_batches else args.world_size


def require_finite_weights(recipe: Recipe, model: PreTrainedModel) -> None:
    """Refuse to train weights that are broken already.

    Raises:
        UserError: a weight is not finite; the message names its tensor.
    """
    name = broken_tensor(model)
    if name is not None:
        raise UserError(
            f"{recipe.name}: model.name is {recipe.model.name}, whose {name} holds values that are not finite, so it cannot be "
            "trained. Expected a sound model: take another one, or an earlier checkpoint."
        )


def require_space(folder: Path, args: TrainingArguments, parameters: int) -> None:
    """Refuse a run whose checkpoints will not fit on the disk, before anything is written.

    Raises:
        UserError: fewer bytes are free than the model and its checkpoints (weights and two moments each) take.
    """
    kept = args.save_total_limit + 1 if args.save_total_limit else 2  # the newest is written before the oldest goes
    checkpoints = 0 if args.save_strategy == "no" else kept
    needed = 4 * parameters * (1 + checkpoints * (1 if args.save_only_model else 3))
    # what an unfinished or overwritten run left here makes room as this one writes
    left = sum(
        path.stat().st_size for kept in RunFolder(folder).checkpoints.all() for path in kept.glob("*") if path.is_file()
    )
    free = shutil.disk_usage(writable_place(folder)).free
    if free + left < needed:
        raise UserError(
            f"{folder}: no space left for this run: it needs about {format_bytes(needed)} for the model and {checkpoints} "
            f"checkpoints, and {format_bytes(free)} are free. Free some, choose another --output_dir, or keep fewer checkpoints "
            "(--save_strategy no, --save_only_model true)."
        )
