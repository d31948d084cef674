"""What models say of rows that they did not learn from: the rows are divided, and each part is judged by the others.

By default the images pass a pretrained network once, and a regularised logistic regression on its features is fitted for
each part, as `model.fit_head` fits one. On request the whole recipe is trained for each part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hf_accel import terminal
from hf_accel.config.recipe import Recipe
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.inputs.stored import StoredImages
from hf_accel.methods.fitted_head import fit_classifier, image_features
from hf_accel.methods.linear_probe import two_images
from hf_accel.models.confidence import softmax
from hf_accel.models.head import head_parameters
from hf_accel.models.head_split import HeadSplit, NoSplitError, split_before
from hf_accel.tasks import TASKS
from hf_accel.training.arguments import for_scoring, training_arguments
from hf_accel.training.build import build_trainer

logger = logging.getLogger(__name__)


def parts_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(N,) int64: the part of each row; each class is spread over the parts as evenly as it can be.

    >>> np.bincount(parts_of(np.array([0] * 10 + [1] * 5), 5, seed=0)).tolist()
    [3, 3, 3, 3, 3]
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    parts = np.empty(len(labels), np.int64)
    parts[by_class] = np.arange(len(labels)) % folds
    return parts


def judged_by_features(recipe: Recipe, rows: ImageSplit, parts: np.ndarray, scratch: Path) -> np.ndarray:
    """(N, C) probabilities of the rows, of classifiers on the features of the recipe's pretrained network.

    Args:
        parts: (N,) int64, as `parts_of` gives them.
        scratch: a folder for the Trainer's arguments, which want one.
    Raises:
        UserError: the network was trained for these classes, perhaps on these rows, or has no features that can be taken out.
    """
    recipe = replace(recipe, training={**for_scoring(recipe.training), "output_dir": str(scratch)})
    args = training_arguments(recipe, has_validation=False).training
    task = TASKS[recipe.model.task]
    loaded = task.load_model(recipe, rows.label_names)
    if not loaded.has_new_head:
        raise UserError(
            f"model.name: {recipe.model.name} is not a pretrained network with other classes, so it has no features to judge "
            "these labels by. Name one with --model.name, or add --retrain, which trains the whole network for each part."
        )
    nn.Module.to(loaded.model, args.device).eval()
    inputs = task.scoring_inputs(recipe, loaded, args)
    parameters = {id(parameter) for parameter in head_parameters(loaded.model)}
    try:
        split = split_before(loaded.model, parameters, two_images(inputs.example(loaded.model)))
    except NoSplitError as reason:
        raise UserError(
            f"model.name {recipe.model.name}: {reason}, so its features cannot be taken out. Name another model, or add "
            "--retrain."
        ) from reason
    images = StoredImages(rows, preprocessing=inputs.preprocessing)
    features = image_features(split, images, np.arange(len(rows)), inputs.eval_transform(), args)
    return judged(split, features.to(args.device).float(), torch.as_tensor(rows.labels, device=args.device), parts)


def judged(split: HeadSplit, features: Tensor, labels: Tensor, parts: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of rows by their features, each of a classifier that was fitted to the other parts.

    Args:
        features: (N, ...) float32.
        labels: (N,) int64.
    """
    start = [parameter.detach().clone() for parameter in split.head.parameters()]
    logits = torch.empty(len(labels), 0)
    for mask in _masks(parts):
        inside = torch.from_numpy(mask).to(labels.device)
        with torch.no_grad():
            for parameter, value in zip(split.head.parameters(), start, strict=True):
                parameter.copy_(value)
        fit_classifier(split, features[~inside], labels[~inside])
        with torch.no_grad():
            found = split.logits(features[inside]).float().cpu()
        if not logits.numel():
            logits = torch.empty(len(labels), found.shape[1])
        logits[inside.cpu()] = found
    return softmax(logits.numpy())


def judged_by_training(recipe: Recipe, rows: ImageSplit, parts: np.ndarray, scratch: Path) -> np.ndarray:
    """(N, C) probabilities of the rows, each of a run of the recipe on the other parts.

    Args:
        parts, scratch: as in `judged_by_features`.
    Raises:
        UserError: as `build_trainer`.
    """
    training = {**recipe.training, "output_dir": str(scratch), "save_strategy": "no", "report_to": "none"}
    recipe = replace(recipe, data=replace(recipe.data, validation=0.0), training=training)
    probabilities = np.empty((len(rows), len(rows.label_names)))
    for part, inside in enumerate(_masks(parts)):
        logger.info("part %d of %d", part + 1, int(parts.max()) + 1)
        train, judge = rows.select(np.flatnonzero(~inside)), rows.select(np.flatnonzero(inside))
        splits = Splits(train, None, judge, list(rows.label_names), recipe.data.name, rows.fingerprint)
        trainer = build_trainer(recipe, splits, arguments=training_arguments(recipe, has_validation=False))
        trainer.train()
        probabilities[inside] = softmax(np.asarray(trainer.predict(trainer.test_dataset).predictions))
        terminal.close_bars()
    return probabilities


def _masks(parts: np.ndarray) -> Iterator[np.ndarray]:
    return (parts == part for part in range(int(parts.max()) + 1))
