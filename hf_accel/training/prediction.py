"""`hf_accel.predict`: images or texts -> labels with scores, from a folder, a Hub model, a Trainer or a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from hf_accel.errors import UserError
from hf_accel.methods.finite import refuse_broken_weights
from hf_accel.models.confidence import Answer
from hf_accel.models.head import known_labels
from hf_accel.models.kind import task_of_model, task_of_network
from hf_accel.models.layout import use_layout_for_prediction
from hf_accel.models.loaded import Loaded, answer_of
from hf_accel.runs.named_model import model_place
from hf_accel.tasks import TASKS
from hf_accel.training.arguments import accelerator_type
from hf_accel.training.trainer import ImageTrainer


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image or text."""

    label: str  # the likeliest class
    score: float  # its probability, in [0, 1]
    top: list[tuple[str, float]]  # the `top_k` likeliest classes with their probabilities, likeliest first
    file: str | None = None  # the path or URL; None for an image or a text in memory
    text: str | None = None  # what was classified, if it is a text
    verdict: str | None = None  # sure, unsure or unlike (the training data); None: the model has not learned to say
    # All labels that an image has, with their scores, surest first, where it may have several; None: it has `label` alone.
    labels: list[tuple[str, float]] | None = None


def predict(
    model: str | Path | ImageTrainer | Loaded | nn.Module,
    images: Any,
    *,
    top_k: int = 5,
    batch_size: int = 32,
    processor: BaseImageProcessor | PreTrainedTokenizerBase | None = None,
    label_names: list[str] | None = None,
) -> list[Prediction]:
    """Classify images, or texts where the model is a text classifier.

    Args:
        model: the folder of a run or of a model, a Hub id, a trainer of `build_trainer` (which prepares images as its
            evaluation does), or a model: of transformers, of PEFT, of timm, or any module that returns logits.
        images: one image or several. An image is the path of a file, a PIL image, uint8 pixels (H, W), (H, W, 3) or
            (3, H, W), or floating-point pixels of these shapes from 0 to 1. The path of a folder, or a glob, stands for
            the images there, and an array (N, H, W, 3) or (N, 3, H, W) for N images. For a text classifier: a text, several,
            or a `Path` of a file of texts (.txt, .csv, .tsv, .json, .jsonl, .ndjson, .parquet), or of a folder of them.
        top_k: the number of classes in `top`; at most as many as the model has.
        batch_size: rows that are classified together; a trainer has its own.
        processor: the image processor or the tokenizer of a model that does not say its own.
        label_names: the names of the classes of a model that has none, in the order of its logits.
    Returns:
        One `Prediction` per image or text, in their order; files of a folder in the order of their names. One image gives a
        list of one.
    Raises:
        UserError: there is no such model, file or folder, or an image or a text cannot be read.
        RunError: the weights of the model are not finite.

    >>> predict("outputs/digits/default", "photo.png")[0].label  # doctest: +SKIP
    '7'
    """
    if top_k < 1 or batch_size < 1:
        raise UserError(f"top_k is {top_k} and batch_size is {batch_size}, expected at least 1")
    task = TASKS[_task_of(model)]
    given = list(task.given_items(images))
    if not given:
        raise UserError(f"{task.unit}s: there are none, expected one {task.unit} or more")
    if isinstance(model, ImageTrainer):
        names: list[str] | None = known_labels(model.model.config)
        rows = [task.row_to_predict(item, place) for place, item in enumerate(given)]
        logits = np.asarray(model.predict(rows).predictions)
        answer: Callable[[np.ndarray], Answer] = partial(answer_of, model.model.config)
    else:
        loaded, names = _loaded(task, model, processor, label_names)
        logits, answer = _logits(task, loaded, given, batch_size), loaded.answer
    names = names or [str(number) for number in range(logits.shape[1])]
    return [_prediction(answer(row), names, top_k, task.named(item)) for row, item in zip(logits, given, strict=True)]


def _task_of(model: Any) -> str:
    if isinstance(model, str | Path):
        return task_of_model(model_place(str(model)))
    return task_of_network(model.model if isinstance(model, ImageTrainer | Loaded) else model)


def _loaded(task: Any, model: Any, processor: Any, label_names: list[str] | None) -> tuple[Loaded, list[str] | None]:
    if isinstance(model, str | Path):
        loaded: Loaded = task.load_trained(model_place(str(model)))
        refuse_broken_weights(loaded.model, str(model))
        use_layout_for_prediction(loaded.model)
        nn.Module.to(loaded.model, accelerator_type())
    else:
        loaded = model if isinstance(model, Loaded) else task.model_to_predict(model, processor, label_names)
        refuse_broken_weights(loaded.model, "model")
    config = getattr(loaded.model, "config", None)
    return loaded, label_names or (None if config is None else known_labels(config))


def _logits(task: Any, loaded: Loaded, items: list[Any], batch_size: int) -> np.ndarray:
    """(N, C) float32; the mode of the model is left as it was."""
    model, was_training = loaded.model, loaded.model.training
    sources = (task.source_to_score(item, place) for place, item in enumerate(items))
    parts = []
    model.eval()
    try:
        for answer in task.score_sources(loaded, sources, batch_size):
            if answer.error is not None:
                raise answer.error
            parts.append(answer.logits)
    finally:
        model.train(was_training)
    return np.stack(parts)


def _prediction(answer: Answer, names: list[str], top_k: int, named: dict[str, Any]) -> Prediction:
    ranked = np.argsort(-answer.probabilities, kind="stable").tolist()
    scores = [(names[number], float(answer.probabilities[number])) for number in ranked]
    top, labels = scores[:top_k], None
    if answer.chosen is not None:
        labels = [score for number, score in zip(ranked, scores, strict=True) if answer.chosen[number]]
    return Prediction(*top[0], top=top, **named, verdict=answer.verdict, labels=labels)
