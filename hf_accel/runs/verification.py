"""What `hf-accel verify` finds: each part of a run, and whether it is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import TRAINER_STATE, checkpoint_damage, is_safetensors, step_of
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.manifest import Damage

NO_MANIFEST = "no manifest: its contents cannot be checked"


@dataclass(frozen=True)
class Part:
    """A part of what is verified.

    Attributes:
        what: finished run, unfinished run, checkpoint or model.
        files: how many are listed, and compared.
        damage: the first file that is not as it was written; None: all are.
        note: what else there is to know.
    """

    path: Path
    what: str
    files: int
    damage: Damage | None
    note: str | None = None


def verify(folder: Path) -> list[Part]:
    """Compare everything in a folder with what was written there, every byte.

    Args:
        folder: of a run, a checkpoint or a model.
    Raises:
        UserError: it is none of these.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder}: {what}, expected the folder of a run, a checkpoint or a model")
    run = RunFolder(folder)
    if run.is_ours():
        return _verify_run(run)
    if (folder / TRAINER_STATE).is_file() or _facts(folder).get("step") is not None or _is_named_checkpoint(folder):
        return [_verify_checkpoint(folder, RunFolder(folder.parent).identity)]
    if (folder / manifest.MANIFEST).is_file() or (folder / run.model_config.name).is_file():
        return [_verify_model(folder)]
    raise UserError(
        f"{folder}: is not the folder of a run, a checkpoint or a model. Expected one that `hf-accel train` wrote, as "
        "outputs/<recipe>/<variant>."
    )


def _verify_run(run: RunFolder) -> list[Part]:
    parts = []
    if run.is_finished:
        results = run.results
        found = run.mark.damage() or manifest.damaged_entry(run.path, results)
        parts.append(Part(run.path, "finished run", len(results), found, None if results else NO_MANIFEST))
    identity = run.identity
    checkpoints = [_verify_checkpoint(path, identity) for path in sorted(run.checkpoints.all(), key=step_of)]
    if not run.is_finished:
        whole = [part.path.name for part in checkpoints if part.damage is None]
        note = f"the command that started it resumes from {whole[-1]}" if whole else "it has no checkpoint yet"
        parts.append(Part(run.path, "unfinished run", 0, None, note))
    if run.model.is_dir():
        parts.append(_verify_model(run.model))
    return [*parts, *checkpoints]


def _verify_checkpoint(folder: Path, identity: str | None) -> Part:
    found = checkpoint_damage(folder, None, identity)
    return _part(folder, "checkpoint", found)


def _verify_model(folder: Path) -> Part:
    found = manifest.damage(folder)
    if found is None and not (folder / manifest.MANIFEST).is_file():
        broken = [path for path in sorted(folder.glob("*.safetensors")) if not is_safetensors(path)]
        if broken:
            found = Damage(broken[0], "is not as long as its header says", "a whole safetensors file")
    return _part(folder, "model", found)


def _part(folder: Path, what: str, found: Damage | None) -> Part:
    facts = _facts(folder)
    has_manifest = (folder / manifest.MANIFEST).is_file()
    return Part(folder, what, len(facts.get("files", ())), found, None if has_manifest else NO_MANIFEST)


def _facts(folder: Path) -> dict:
    try:
        return manifest.read(folder) or {}
    except (OSError, ValueError):
        return {}


def _is_named_checkpoint(folder: Path) -> bool:
    return folder.resolve() in {path.resolve() for path in RunFolder(folder.parent).checkpoints.all()}
