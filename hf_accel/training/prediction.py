"""`hf_accel.predict`: images in any form -> labels with scores, from a folder, a Hub model, a Trainer or a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from transformers.image_processing_utils import BaseImageProcessor

from hf_accel.data.given_rows import as_picture, is_prepared
from hf_accel.errors import UserError
from hf_accel.methods.finite import refuse_broken_weights
from hf_accel.models.confidence import Answer, Confidence
from hf_accel.models.given import model_to_predict
from hf_accel.models.head import known_labels
from hf_accel.models.layout import use_layout_for_prediction
from hf_accel.models.load import LoadedModel
from hf_accel.runs.named_model import model_place
from hf_accel.tasks import TASKS
from hf_accel.tasks.image_scoring import pixels_of
from hf_accel.training.arguments import accelerator_type
from hf_accel.training.trainer import ImageTrainer

TASK = TASKS["image-classification"]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    label: str  # the likeliest class
    score: float  # its probability, in [0, 1]
    top: list[tuple[str, float]]  # the `top_k` likeliest classes with their probabilities, likeliest first
    file: str | None = None  # the image's path or URL; None for an image in memory
    verdict: str | None = None  # sure, unsure or unlike (the training images); None: the model has not learned to say


def predict(
    model: str | Path | ImageTrainer | LoadedModel | nn.Module,
    images: Any,
    *,
    top_k: int = 5,
    batch_size: int = 32,
    processor: BaseImageProcessor | None = None,
    label_names: list[str] | None = None,
) -> list[Prediction]:
    """Classify images.

    Args:
        model: the folder of a run or of a model, a Hub id, a trainer of `build_trainer` (which prepares images as its
            evaluation does), or a model: of transformers, of PEFT, of timm, or any module that returns logits.
        images: one image or several. An image is the path of a file, a PIL image, uint8 pixels (H, W), (H, W, 3) or
            (3, H, W), or floating-point pixels of these shapes from 0 to 1. The path of a folder, or a glob, stands for
            the images there, and an array (N, H, W, 3) or (N, 3, H, W) for N images.
        top_k: the number of classes in `top`; at most as many as the model has.
        batch_size: images that are classified together; a trainer has its own.
        processor: the image processor of a model that does not say its own.
        label_names: the names of the classes of a model that has none, in the order of its logits.
    Returns:
        One `Prediction` per image, in the order of the images; files of a folder in the order of their names. One image
        gives a list of one.
    Raises:
        UserError: there is no such model, file or folder, or an image cannot be read.
        RunError: the weights of the model are not finite.

    >>> predict("outputs/digits/default", "photo.png")[0].label  # doctest: +SKIP
    '7'
    """
    if top_k < 1 or batch_size < 1:
        raise UserError(f"top_k is {top_k} and batch_size is {batch_size}, expected at least 1")
    given = list(_single_images(images))
    if not given:
        raise UserError("images: there are none, expected one image or more")
    if isinstance(model, ImageTrainer):
        names: list[str] | None = known_labels(model.model.config)
        rows = [image if isinstance(image, Path) else _picture(image, place) for place, image in enumerate(given)]
        logits, confidence = np.asarray(model.predict(rows).predictions), Confidence.of_config(model.model.config)
    else:
        loaded, names = _loaded(model, processor, label_names)
        logits, confidence = _logits(loaded, given, batch_size), loaded.confidence
    names = names or [str(number) for number in range(logits.shape[1])]
    return [_prediction(confidence.answer(row), names, top_k, image) for row, image in zip(logits, given, strict=True)]


def _single_images(images: Any) -> Iterator[Any]:
    """Each image alone; files as `Path`, URLs as text."""
    if isinstance(images, str | Path):
        yield from TASK.find_sources([str(images)])
    elif isinstance(images, PIL.Image.Image | bytes):
        yield images
    elif isinstance(images, np.ndarray | Tensor):
        yield from [images] if images.ndim < 4 else images
    elif isinstance(images, Iterable):
        for image in images:
            yield from _single_images(image)
    else:
        raise UserError(f"images: of the type {type(images).__name__}, expected paths, PIL images, arrays or tensors")


def _picture(image: Any, place: int) -> PIL.Image.Image:
    where = f"image {place}"
    if is_prepared(image):
        pixels = torch.as_tensor(image).detach().cpu().float()
        low, high = float(pixels.min()), float(pixels.max())
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"{where}: its floating-point pixels reach from {low:.3g} to {high:.3g}, expected 0 to 1. Images that are "
                "normalised already go to the model itself: model(pixel_values=...).logits, or trainer.predict."
            )
        image = (pixels * 255).round().to(torch.uint8)
    if isinstance(image, Path | bytes | str):
        return PIL.Image.fromarray(pixels_of(image))
    return as_picture(image, where).convert("RGB")


def _loaded(
    model: Any, processor: BaseImageProcessor | None, label_names: list[str] | None
) -> tuple[LoadedModel, list[str] | None]:
    if isinstance(model, str | Path):
        loaded = TASK.load_trained(model_place(str(model)))
        refuse_broken_weights(loaded.model, str(model))
        use_layout_for_prediction(loaded.model)
        nn.Module.to(loaded.model, accelerator_type())
    else:
        loaded = model if isinstance(model, LoadedModel) else model_to_predict(model, processor, label_names)
        refuse_broken_weights(loaded.model, "model")
    config = getattr(loaded.model, "config", None)
    return loaded, label_names or (None if config is None else known_labels(config))


def _logits(loaded: LoadedModel, images: list[Any], batch_size: int) -> np.ndarray:
    """(N, C) float32; the mode of the model is left as it was."""
    model, was_training = loaded.model, loaded.model.training
    sources = (
        image if isinstance(image, Path | bytes | str) else _picture(image, place) for place, image in enumerate(images)
    )
    parts = []
    model.eval()
    try:
        for answer in TASK.score_sources(loaded, sources, batch_size):
            if answer.error is not None:
                raise answer.error
            parts.append(answer.logits)
    finally:
        model.train(was_training)
    return np.stack(parts)


def _prediction(answer: Answer, names: list[str], top_k: int, image: Any) -> Prediction:
    best = np.argsort(-answer.probabilities, kind="stable")[:top_k].tolist()
    top = [(names[number], float(answer.probabilities[number])) for number in best]
    file = str(image) if isinstance(image, Path | str) else None
    return Prediction(*top[0], top=top, file=file, verdict=answer.verdict)
