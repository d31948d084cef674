"""Checkpoints without a model: as the Trainer leaves them, as far as their names and forms tell."""

import json
import zipfile
from pathlib import Path

from hf_accel.runs import manifest

STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "method_state_0.pth")


def write_checkpoint(folder: Path, step: int, epoch: float = 1.0, sealed: bool = True, **facts: object) -> Path:
    """Write a checkpoint.

    Args:
        sealed: False leaves out the manifest, as earlier versions do.
        facts: further ones of the manifest.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in STATES:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data.pkl", "state")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": epoch}))
    if sealed:
        manifest.commit(folder, step=step, **facts)
    return folder
