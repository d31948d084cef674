"""Which checkpoint a run starts from: what `--resume_from_checkpoint` asks for, and whether that is one.

Without the flag the same command resumes an interrupted run. `true` insists on a checkpoint in the output folder and
lets a run be made longer, a finished one too; a path continues that checkpoint, mostly in another folder; `false`
insists on a start from scratch.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError

SETTING = "resume_from_checkpoint"
TRAINER_STATE = "trainer_state.json"  # which the Trainer writes last
LENGTH = ("num_train_epochs", "max_steps")  # what may differ when a run is made longer
DEFAULT_EPOCHS = 3.0  # of TrainingArguments
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model_fsdp_0", "latest")  # the last: DeepSpeed
OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt")  # of a checkpoint whose weights are one model.safetensors
# Settings that the state of an optimizer and its schedule holds, so that a checkpoint's values stay in force.
KEPT_BY_OPTIMIZER = tuple(
    f"training.{name}"
    for name in ("learning_rate", "head_learning_rate", "layer_decay", "weight_decay", "optim", "optim_args", "adam_beta1",
                 "adam_beta2", "adam_epsilon")
)  # fmt: skip


def asked_checkpoint(recipe: Recipe) -> bool | Path | None:
    """What `training.resume_from_checkpoint` means: true, false, a path, or None where nothing is asked."""
    value = recipe.training.get(SETTING)
    words = {"true": True, "false": False}
    if value is None or isinstance(value, bool):
        return value
    return words.get(str(value).lower(), Path(value))


def lies_in(asked: bool | Path | None, folder: Path) -> bool:
    """Whether a checkpoint of this very folder is asked for."""
    return asked is True or (isinstance(asked, Path) and asked.resolve().parent == folder.resolve())


def recorded(recipe: Recipe) -> Recipe:
    """The recipe as a run keeps it: with the checkpoint of another folder it began from, and without secrets.

    How a run is resumed in its own folder does not belong to what it is.
    """
    if isinstance(asked := asked_checkpoint(recipe), Path) and not lies_in(asked, recipe.output_dir):
        return recipe.without_secrets()
    training = {name: value for name, value in recipe.training.items() if name != SETTING}
    return replace(recipe, training=training).without_secrets()


def of_same_length(recipe: Recipe) -> Recipe:
    """The recipe less what may differ when a run is made longer."""
    return replace(recipe, training={name: value for name, value in recipe.training.items() if name not in LENGTH})


def require_checkpoint(path: Path) -> Path:
    """The folder of a checkpoint, whole as far as its file names tell.

    Raises:
        UserError: it does not exist, or is not a checkpoint of the Trainer.
    """
    where = f"--{SETTING} {path}"
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(
            f"{where}: {what}. Expected the folder of a checkpoint, as outputs/digits/default/checkpoint-100."
        )
    missing = [name for name in (TRAINER_STATE, "config.json") if not (path / name).is_file()]
    missing += [] if any((path / name).exists() for name in WEIGHTS) else [WEIGHTS[0]]
    missing += missing_optimizer(path)
    if missing:
        inside = ", ".join(sorted(inner.name for inner in path.glob("checkpoint-*"))[:3])
        advice = f"It holds {inside}: name one." if inside else "Name another, or give it as --model.name."
        raise UserError(f"{where}: has no {', '.join(missing)}, so it is not a complete checkpoint. {advice}")
    return path


def missing_optimizer(checkpoint: Path) -> list[str]:
    """Files without which the Trainer, silently, begins with a new optimizer and schedule."""
    if not (checkpoint / WEIGHTS[0]).is_file():  # sharded: the state lies elsewhere
        return []
    return [name for name in OPTIMIZER_FILES if not (checkpoint / name).is_file()]


def require_steps_left(recipe: Recipe, checkpoint: Path) -> None:
    """Refuse to resume a checkpoint from which nothing is left to train.

    Raises:
        UserError: it has reached the recipe's last step or epoch, or cannot be read.
    """
    where = f"--{SETTING} {checkpoint}"
    try:
        state: dict[str, Any] = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
        step, epoch = int(state["global_step"]), float(state["epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: its {TRAINER_STATE} cannot be read ({error!r}). Choose another checkpoint."
        ) from None
    most_steps = recipe.training.get("max_steps", -1)
    epochs = recipe.training.get("num_train_epochs", DEFAULT_EPOCHS)
    if most_steps > 0:
        asked, is_done = f"--max_steps is {most_steps}. Set more steps", step >= most_steps
    else:
        asked, is_done = f"--num_train_epochs is {epochs:g}. Set more epochs", epoch >= epochs
    if is_done:
        raise UserError(f"{where}: is of step {step}, epoch {epoch:g}, and {asked} to train longer.")
