"""A saved model is loaded again and compared with the one that was trained, before anybody relies on it.

The check covers everything that a user of the folder gets: the class names of its config, its tensors, and its logits on
a few rows. The tensors are equal bit by bit. The logits are equal but for rounding: a kernel may depend on where in memory
a tensor lies, and tensors of a file lie where the file has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_accel.errors import RunError
from hf_accel.models.head import known_labels
from hf_accel.models.layout import use_channels_last

ROWS_COMPARED = 4
# Of the largest logit.
CPU_TOLERANCE = 1e-5
ACCELERATOR_TOLERANCE = 1e-2  # TF32 rounds to 10 bits


class SavedModelError(RunError):
    """The folder that was just saved does not give the model that was trained."""

    def __init__(self, folder: str | Path, what: str) -> None:
        super().__init__(
            f"{folder}: {what}. The run ends without a report, and this folder must not be used; the checkpoints stay. The "
            "disk changed the files, or this architecture is not saved whole: repeat the same command, else choose another "
            "model."
        )


def check_saved(
    folder: str | Path, model: PreTrainedModel, label_names: list[str], inputs: dict[str, Tensor], auto_model: Any
) -> PreTrainedModel:
    """Load a folder as its users will and compare it with the model in memory.

    Args:
        folder: what `save_pretrained` wrote.
        model: the trained model, unwrapped; its mode is left as it was.
        label_names: the classes it was trained for, in the order of its logits.
        inputs: a few rows as the model takes them, on its device, without labels.
        auto_model: the Auto class with which it is loaded.
    Returns:
        The model as it was loaded, in evaluation mode, on the device of the trained one.
    Raises:
        SavedModelError: it cannot be loaded, or has other class names, tensors or logits.
    """
    device = next(model.parameters()).device
    try:
        saved = auto_model.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).to(device)
    except Exception as error:  # whatever it is, everybody who loads this folder would meet it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SavedModelError(folder, f"the saved model cannot be loaded again ({reason[:300]})") from error
    names = known_labels(saved.config)
    if names != list(label_names):
        position = next((i for i, pair in enumerate(zip(names, label_names, strict=False)) if pair[0] != pair[1]), None)
        what = (
            f"{len(names)} classes instead of {len(label_names)}"
            if position is None
            else f"class {position} is {names[position]!r} instead of {label_names[position]!r}"
        )
        raise SavedModelError(folder, f"the saved model does not name the classes it was trained for: {what}")
    trained, again = model.state_dict(), saved.state_dict()
    for name, tensor in trained.items():
        if name not in again or not _close(again[name], tensor, 0.0):
            raise SavedModelError(folder, f"the saved model differs from the trained one in {name}")
    if _is_channels_last(model):
        use_channels_last(saved)
    expected, got = _logits(model, inputs), _logits(saved, inputs)
    share = CPU_TOLERANCE if device.type == "cpu" else ACCELERATOR_TOLERANCE
    tolerance = share * float(expected.abs().max())
    if not _close(got, expected, tolerance):
        difference = float((got - expected).abs().max())
        raise SavedModelError(
            folder,
            f"the logits of the saved model differ from those of the trained one by up to {difference:.3g} on "
            f"{len(expected)} rows, expected at most {tolerance:.3g}",
        )
    return saved


def _close(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    same_shape = got.shape == expected.shape
    return same_shape and torch.allclose(got, expected.to(got.dtype), rtol=0.0, atol=tolerance, equal_nan=True)


def _logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(B, num_labels) float32, in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            # not `model(...)`: accelerate puts autocast around the forward of a model trained in bf16 or fp16
            return type(model).forward(model, **inputs).logits.float()
    finally:
        model.train(was_training)


def _is_channels_last(model: nn.Module) -> bool:
    kernels = [p for p in model.parameters() if p.ndim == 4 and max(p.shape[2:]) > 1 and p.shape[1] > 1]
    return any(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in kernels)
