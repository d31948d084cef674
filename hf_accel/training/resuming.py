"""Whether a run may start from a checkpoint: it must be one of the same model, and of rows that are not tested now."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedModel

from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.models.head import known_labels
from hf_accel.runs.checkpoints import SETTING
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.recorded_data import changes, facts_of
from hf_accel.training.checkpointing import load_weights


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
