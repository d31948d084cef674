"""The folder of a run: what lies in it, and what finished means."""

from __future__ import annotations

import shutil
from pathlib import Path

from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError


def claim_folder(folder: Path, recipe: Recipe, overwrite: bool) -> Path | None:
    """Check that a run may use its output folder; the checkpoint to resume from, if there is one.

    Raises:
        UserError: the folder holds a finished run, or an unfinished one of another recipe.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: is a file, expected a folder")
    if overwrite:
        return None
    if (folder / "report.json").is_file():
        raise UserError(
            f"{folder}: holds a finished run, which is kept. Add --overwrite to replace it, or choose another --output_dir."
        )
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return None
    ours, own = recipe.without_secrets(), folder / "recipe.yaml"
    before = load_recipe(own) if own.is_file() else None
    if before != ours:
        changed = ", ".join(differences(before, ours)) if before else "its recipe.yaml is gone"
        raise UserError(
            f"{folder}: holds an unfinished run with other settings ({changed}). Run it with its own settings to resume "
            "it, add --overwrite to start anew, or choose another --output_dir."
        )
    return checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: the Trainer writes trainer_state.json last."""
    found = [p.parent for p in folder.glob("checkpoint-*/trainer_state.json") if p.parent.name[11:].isdigit()]
    return max(found, key=lambda path: int(path.name[11:]), default=None)


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    old, new = before.to_dict(), now.to_dict()
    names = []
    for section in ("model", "data", "training"):
        keys = sorted(set(old[section]) | set(new[section]))
        names += [f"{section}.{key}" for key in keys if old[section].get(key) != new[section].get(key)]
    return names or ["name or variant"]


def remove_run(folder: Path) -> None:
    """Delete what a run leaves, and nothing else that may lie in the folder."""
    for path in [*folder.glob("checkpoint-*"), *(folder / name for name in ("model", "plots", "runs"))]:
        if path.is_dir():
            shutil.rmtree(path)
    files = ("recipe.yaml", "report.json", "report.html", "history.csv", "log.txt", "predictions.csv")
    for name in files:
        (folder / name).unlink(missing_ok=True)
