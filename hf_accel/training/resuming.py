"""Whether a run may start from a checkpoint: of the same model, of rows that are not tested now, with the same batches."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedModel

from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.models.head import known_labels
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import SETTING
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.recorded_data import changes, facts_of
from hf_accel.training.arguments import Arguments
from hf_accel.training.checkpointing import load_weights
from hf_accel.training.checks import count_batches


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


def keep_batch(checkpoint: Path, arguments: Arguments) -> None:
    """Let a run that resumes with another number of processes keep the rows of a step, by gradient accumulation.

    Raises:
        UserError: no number of micro-batches gives them.
    """
    facts, args = manifest.read(checkpoint) or {}, arguments.training
    processes, batch = facts.get("processes"), facts.get("batch")
    rows = args.train_batch_size * count_batches(args)
    if processes is None or batch in (None, rows * args.gradient_accumulation_steps):
        return
    if batch % rows:
        raise UserError(
            f"{checkpoint}: is of a run with {processes} processes and batches of {batch} rows. {args.world_size} processes with "
            f"{args.train_batch_size} each take {rows} at a time, which does not divide {batch}. Resume it with {processes} "
            "processes, add --overwrite to start from scratch, or choose another --output_dir."
        )
    asked, args.gradient_accumulation_steps = args.gradient_accumulation_steps, batch // rows
    arguments.changed["gradient_accumulation_steps"] = args.gradient_accumulation_steps
    arguments.notes.append(
        f"processes: {args.world_size} from {checkpoint.name} on, which is of {processes}; gradient_accumulation_steps: "
        f"{args.gradient_accumulation_steps} in place of {asked}, so a step keeps its {batch} rows. Rates and times are of the "
        "steps since then"
    )


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
