"""What a run needs of its model, its rows and its disk, refused before anything is written; and how a run failed."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import PreTrainedModel, TrainingArguments

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.methods.finite import BadStep
from hf_accel.runs.folder import RunFolder, writable_place


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
        path.stat().st_size for kept in RunFolder(folder).checkpoints() for path in kept.glob("*") if path.is_file()
    )
    free = shutil.disk_usage(writable_place(folder)).free
    if free + left < needed:
        raise UserError(
            f"{folder}: no space left for this run: it needs about {format_bytes(needed)} for the model and {checkpoints} "
            f"checkpoints, and {format_bytes(free)} are free. Free some, choose another --output_dir, or keep fewer checkpoints "
            "(--save_strategy no, --save_only_model true)."
        )


def failed_at(bad: BadStep, args: TrainingArguments, max_steps: int) -> str:
    """The message for a run that a bad step ends: where, why, what is kept and what to try."""
    checkpoint = RunFolder(args.output_dir).last_checkpoint()
    kept = "no checkpoint was saved before" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    tips = [f"a training.learning_rate below {args.learning_rate:g}"]
    if args.fp16:
        tips.append("training.bf16: true instead of fp16")
    if args.max_grad_norm > 0:
        tips.append(f"a training.max_grad_norm below {args.max_grad_norm:g}")
    else:
        tips.append("training.max_grad_norm: 1, which clips gradients")
    fresh = "" if checkpoint is None else ", with --overwrite to start from scratch"
    return (
        f"step {bad.step} of {max_steps} (learning rate {bad.learning_rate:g}): {bad.reason}. The run ends, nothing of this "
        f"step is saved, and {kept}. Try {', '.join(tips[:-1])} or {tips[-1]}{fresh}."
    )
