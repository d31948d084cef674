"""Refuses a run for which the model or the disk is not enough, before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import PreTrainedModel, TrainingArguments

from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.models.head import known_labels
from hf_accel.runs.checkpoints import SETTING
from hf_accel.runs.folder import RunFolder, writable_place
from hf_accel.runs.recorded_data import changes, facts_of
from hf_accel.training.trainer import load_weights


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


def require_same_model(checkpoint: Path, model: PreTrainedModel) -> None:
    """Refuse to start from a checkpoint of another model. The model has the checkpoint's weights afterwards.

    Args:
        model: as this run would train it, its classes included.
    Raises:
        UserError: another architecture, other classes, or tensors of other names or shapes.
    """
    where = f"--{SETTING} {checkpoint}"
    try:
        values = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        architecture = (values.get("architectures") or ["an unnamed architecture"])[0]
        config = type(model.config).from_dict(values)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: its config.json cannot be read ({error}). Choose another checkpoint.") from None
    if architecture != type(model).__name__:
        raise UserError(
            f"{where}: is of {architecture}, and this run trains {type(model).__name__}. Give its model.name."
        )
    saved, ours = known_labels(config), known_labels(model.config)
    if saved != ours:
        differing = [name for name in (*saved, *ours) if (name in saved) != (name in ours)]
        what = f"{differing[0]!r} is a class of one of the two only" if differing else "they are in another order"
        raise UserError(
            f"{where}: is of {len(saved)} classes, and this data has {len(ours)}: {what}. To train its weights for other "
            f"classes, give it as --model.name."
        )
    try:
        load_weights(model, checkpoint)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{where}: its weights do not fit {model.config.name_or_path or 'the model'}: {reason}"
        ) from None


def continued_data_notes(checkpoint: Path, splits: Splits) -> list[str]:
    """What a report says of the data of a run that starts from the checkpoint of another run.

    Raises:
        UserError: test rows may have been trained on there, because they are drawn from data that has changed.
    """
    begin, before = f"{SETTING}: training began from {checkpoint}", RunFolder(checkpoint.parent).data
    if not before:
        return [f"{begin}, which does not say which rows it was trained on"]
    changed = changes(before, facts_of(splits))
    if "test" in changed and "test" in splits.held_out:
        raise UserError(
            f"--{SETTING} {checkpoint}: is of a run on other data (test: {changed['test']}). The test rows are drawn from the "
            "train split, so that run may have been trained on some of those drawn now. Use its data, or data with a test "
            "split, or give the checkpoint as --model.name."
        )
    return [begin, *(f"{role} is not what that checkpoint's run had ({what})" for role, what in changed.items())]
