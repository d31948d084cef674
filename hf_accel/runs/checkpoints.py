"""Which checkpoint a run starts from: what `--resume_from_checkpoint` asks for, and whether that is one, and whole.

Without the flag the same command resumes an interrupted run. `true` insists on a checkpoint in the output folder and
lets a run be made longer, a finished one too; a path continues that checkpoint, mostly in another folder; `false`
insists on a start from scratch.

A checkpoint counts when its manifest (`runs/manifest.py`) says so. Those of earlier versions have none: their files must be
there and look like what their names say, and their content is taken as it is.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.manifest import Damage

SETTING = "resume_from_checkpoint"
TRAINER_STATE = "trainer_state.json"  # which the Trainer writes last
LENGTH = ("num_train_epochs", "max_steps")  # what may differ when a run is made longer
DEFAULT_EPOCHS = 3.0  # of TrainingArguments
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model_fsdp_0", "latest")  # the last: DeepSpeed
RANDOM_STATES = "rng_state*.pth"  # one of each process
OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt")  # of a checkpoint whose weights are one model.safetensors
FSDP_OPTIMIZER = "optimizer.bin"  # of FSDP, whole
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
    refuse_damaged_checkpoint(path)
    return path


def refuse_damaged_checkpoint(path: Path) -> None:
    """Raises:
    UserError: the checkpoint is not whole; every file is compared with its manifest.
    """
    found = checkpoint_damage(path)
    if found is not None:
        raise UserError(f"--{SETTING} {path}: is damaged ({found}). Choose another checkpoint.")


def missing_optimizer(checkpoint: Path) -> list[str]:
    """Files without which the Trainer, silently, begins with a new optimizer and schedule."""
    if not (checkpoint / WEIGHTS[0]).is_file():  # sharded: the state lies elsewhere
        return []
    files = (FSDP_OPTIMIZER, OPTIMIZER_FILES[1]) if (checkpoint / FSDP_OPTIMIZER).is_file() else OPTIMIZER_FILES
    return [name for name in files if not (checkpoint / name).is_file()]


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoint_damage(checkpoint: Path, largest_hashed: int | None = None, run: str | None = None) -> Damage | None:
    """What is wrong with a checkpoint; None: it is whole.

    Args:
        largest_hashed: as for `manifest.damage`.
        run: which run the checkpoint must be of, if it says which.
    """
    found = manifest.damage(checkpoint, largest_hashed)
    if found is not None:
        return found
    facts = manifest.read(checkpoint)
    if facts is None:
        return _damage_without_manifest(checkpoint)
    if _is_numbered(checkpoint) and facts.get("step") not in (None, step_of(checkpoint)):
        return Damage(checkpoint, f"is the checkpoint of step {facts['step']}", f"step {step_of(checkpoint)}")
    if run is not None and facts.get("run") not in (None, run):
        return Damage(checkpoint, "is a checkpoint of another run", "one of the run in this folder")
    return None


def _is_numbered(checkpoint: Path) -> bool:
    """Whether the name says the step: a copy may be called anything."""
    return checkpoint.name.rpartition("-")[2].isdigit()


def processes_of(checkpoint: Path) -> int | None:
    """How many processes saved a checkpoint; None: its manifest does not say it, or it has none."""
    return (manifest.read(checkpoint) or {}).get("processes")


def has_manifest(checkpoint: Path) -> bool:
    return (checkpoint / manifest.MANIFEST).is_file()


def prune(checkpoints: Iterable[Path], keep: int, protected: Iterable[Path]) -> None:
    """Delete checkpoints until so many are left: first those that are not whole, then those of the lowest steps.

    Args:
        protected: are never deleted.
    """
    kept = {path.resolve() for path in protected}
    found = list(checkpoints)
    order = sorted(found, key=lambda path: (checkpoint_damage(path, manifest.SIZES) is None, step_of(path)))
    free = [path for path in order if path.resolve() not in kept]
    for path in free[: max(0, len(found) - keep)]:
        shutil.rmtree(path, ignore_errors=True)


def _damage_without_manifest(checkpoint: Path) -> Damage | None:
    """What the files of a checkpoint without a manifest show: of each, whether it can be what its name says."""
    state = checkpoint / TRAINER_STATE
    if not state.is_file():
        return Damage(checkpoint, f"has no {TRAINER_STATE}", "a complete checkpoint", is_unfinished=True)
    try:
        step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Damage(state, f"cannot be read ({type(error).__name__})", "the state of the Trainer as JSON")
    if _is_numbered(checkpoint) and step != step_of(checkpoint):
        return Damage(state, f"is of step {step}", f"step {step_of(checkpoint)}")
    for path in sorted(checkpoint.glob("*.safetensors")):
        if not is_safetensors(path):
            return Damage(path, "is not as long as its header says", "a whole safetensors file")
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        if not zipfile.is_zipfile(path):
            return Damage(path, "is damaged", "a file as torch.save writes it")
    has_optimizer = (checkpoint / OPTIMIZER_FILES[0]).is_file()
    if has_optimizer and not any(checkpoint.glob(RANDOM_STATES)):
        return Damage(checkpoint / "rng_state.pth", "is missing", "the state of the random numbers")
    return None


def is_safetensors(path: Path) -> bool:
    """Whether a file is as long as its header says: 8 bytes with the length of a JSON object, the object, the tensors."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= size - 8:
                return False
            tensors = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False
    return size == 8 + length + max(ends, default=0)


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
