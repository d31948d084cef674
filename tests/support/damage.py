"""Faults that disks, copies and people put into a checkpoint: each is called with it, and with an older one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from hf_accel.runs import manifest


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without(name: str) -> Callable[[Path, Path], None]:
    return lambda checkpoint, older: (checkpoint / name).unlink()


def truncated(name: str) -> Callable[[Path, Path], None]:
    def cut(checkpoint: Path, older: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])

    return cut


def zeroed(name: str) -> Callable[[Path, Path], None]:
    """As a file system leaves a file whose length was on the disk before the power failed, and its content was not."""
    return lambda checkpoint, older: (checkpoint / name).write_bytes(bytes((checkpoint / name).stat().st_size)) and None


def other_step(checkpoint: Path, older: Path) -> None:
    file = checkpoint / "trainer_state.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"global_step": state["global_step"] - 1}))


def swapped(checkpoint: Path, older: Path) -> None:
    shutil.rmtree(checkpoint)
    shutil.copytree(older, checkpoint)


def without_a_tensor(checkpoint: Path, older: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    save_file(dict(list(tensors.items())[1:]), checkpoint / "model.safetensors", {"format": "pt"})


FAULTS: dict[str, Callable[[Path, Path], None]] = {
    "no weights": without("model.safetensors"),
    "half of the weights": truncated("model.safetensors"),
    "one flipped bit": lambda checkpoint, older: flip_a_bit(checkpoint / "model.safetensors"),
    "a tensor missing": without_a_tensor,
    "no optimizer": without("optimizer.pt"),
    "half of the optimizer": truncated("optimizer.pt"),
    "zeros in the optimizer": zeroed("optimizer.pt"),
    "no scheduler": without("scheduler.pt"),
    "no random states": without("rng_state.pth"),
    "no state of the methods": without("method_state_0.pth"),
    "an empty trainer_state.json": lambda checkpoint, older: (
        (checkpoint / "trainer_state.json").write_text("") and None
    ),
    "no trainer_state.json": without("trainer_state.json"),
    "another step in trainer_state.json": other_step,
    "a swapped folder": swapped,
    "an empty manifest": lambda checkpoint, older: (checkpoint / manifest.MANIFEST).write_text("") and None,
    "half of the manifest": truncated(manifest.MANIFEST),
    "half-written": lambda checkpoint, older: manifest.begin(checkpoint),
    "an empty folder": lambda checkpoint, older: [path.unlink() for path in checkpoint.iterdir()] and None,
}
