"""One forward pass before training: what it costs, and whether the model can do at all what training will ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hf_accel.errors import UserError
from hf_accel.models.plain import PlainClassifier


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of what runs within, a multiply-add counted as two.

    Fused attention of a CPU has no formula in the counter (it counts as nothing): the same products are done as two
    matrix products here.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def flops_per_image(
    model: PreTrainedModel, image_size: int | tuple[int, int], setting: str = "data.image_size", channels: int = 3
) -> int:
    """Floating-point operations of one forward pass of one image, a multiply-add counted as two.

    Args:
        image_size: height and width in pixels, one number for a square.
        setting: the setting that asked for this size, for the message.
        channels: of an image.
    Raises:
        UserError: the model cannot process such an image, or does not answer with one logit per class.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        with counted_flops() as counter:
            logits = _trial(model, size, channels)
    except Exception as error:  # whatever it is, training would meet it too
        raise UserError(_why_no_answer(model, size, setting, error)) from error
    if logits.shape != (1, model.config.num_labels):
        raise UserError(
            f"model.name: {_class_of(model)} answers an image with {list(logits.shape[1:])} numbers, expected one for "
            f"each of the {model.config.num_labels} classes. Choose another model."
        )
    return counter.get_total_flops()


def flops_by_layer(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, int]:
    """Floating-point operations of each module in one forward pass, by its name in the model.

    Args:
        inputs: arguments of a forward pass of one row, which the model is known to take.
    """
    with counted_flops() as counter:
        forward_once(model, inputs)
    root = f"{type(model).__name__}."
    return {name.removeprefix(root): sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


def training_failure(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> str | None:
    """Why a forward pass in training mode fails; None: it does not.

    The model, its running statistics and the random numbers of this process are left as they were.

    Args:
        inputs: arguments of the forward pass, on the model's device.
    """
    device, was_training = next(model.parameters()).device, model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            model.train()(**inputs)
    except Exception as error:  # whatever it is, training would meet it too
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    finally:
        model.train(was_training)
        for buffer, before in buffers:
            buffer.copy_(before)
    return None


def _trial(model: PreTrainedModel, size: tuple[int, int], channels: int = 3) -> torch.Tensor:
    """Logits of one black image in the shape in which training gives images, (1, C, H, W)."""
    return forward_once(
        model, {"pixel_values": torch.zeros(1, channels, *size, device=next(model.parameters()).device)}
    )


def forward_once(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of a forward pass in evaluation mode, without gradients."""
    was_training = model.training
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learned:  # FlopCounterMode fails where a module's input is a parameter (CaiT's class token)
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            return model(**inputs).logits
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        model.train(was_training)


def _why_no_answer(model: PreTrainedModel, size: tuple[int, int], setting: str, error: Exception) -> str:
    """The message for a model that cannot process an image: it is the size only if another size works."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    pixels = f"{size[0]} x {size[1]} pixels"
    for other in _own_sizes(model) - {size}:
        try:
            _trial(model, other)
        except Exception:  # this size does not work either, for whatever reason: the first error is the one to report
            continue
        return (
            f"{setting}: the model cannot take {pixels} ({reason}), but it takes {other[0]} x {other[1]}. Leave the "
            "setting out to use the model's own size, or give the architecture its size through model.args (timm ViT: "
            "img_size, for several sizes dynamic_img_size: true; Hub models: image_size)."
        )
    return (
        f"model.name: {_class_of(model)} cannot process a colour image of {pixels}, which is what training gives it "
        f"({reason}). Expected a model that takes pixel_values of the shape (batch, 3, height, width)."
    )


def _class_of(model: PreTrainedModel) -> str:
    return type(model.network if isinstance(model, PlainClassifier) else model).__name__


def _own_sizes(model: PreTrainedModel) -> set[tuple[int, int]]:
    """Sizes for which a model may be made: those that its config states, and the commonest."""
    config = model.config.to_dict()
    arguments = config.get("model_args") or {}
    stated = [
        config.get("image_size"),
        (config.get("vision_config") or {}).get("image_size"),  # CLIP, SigLIP
        arguments.get("img_size"),
        (config.get("pretrained_cfg") or {}).get("input_size"),
    ]
    pairs = [(side, side) if isinstance(side, int) else tuple(side)[-2:] for side in stated if side]
    return {*pairs, (224, 224)}
