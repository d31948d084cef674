"""The weights of a file in a classifier for other labels, and what was done to make them fit, in words."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from hf_accel.errors import UserError
from hf_accel.models.encoder import is_without_classifier, load_encoder, pretrained
from hf_accel.models.head import head_tensors, known_labels, renew_head
from hf_accel.models.positions import resized_copy

logger = logging.getLogger(__name__)


def with_weights(
    name: str, revision: str | None, own: PreTrainedConfig, config: PreTrainedConfig, known: list[str]
) -> tuple[PreTrainedModel, bool, list[str]]:
    """The model of `config` with the weights of the file, whether its classifier is a new one, and what was done, in words.

    Args:
        own: the file's own config, except for the labels.
        config: the same with the arguments of the recipe.
        known: class names that the file's classifier was trained for.
    """
    model, fresh, mismatched = _load_weights(name, revision, config)
    head = head_tensors(model)
    notes = [f"weights of {name}, trained in float32"]
    if mismatched - head:
        model, fresh, mismatched = _load_weights(name, revision, own)
        if mismatched - head:
            broken = min(mismatched - head)
            raise UserError(
                f"model.name: {broken} has another shape in the weights of {name} than its config.json says. Only the "
                "classifier may differ: the folder is damaged, or its two files do not belong together."
            )
        model, resampled = resized_copy(model, config)
        notes.append(f"position tensors of another image size, resampled: {listed_tensors(model, resampled)}")
    is_new, of_head = with_fitting_head(name, model, fresh, known)
    return model, is_new, notes + of_head


def with_fitting_head(name: str, model: PreTrainedModel, fresh: set[str], known: list[str]) -> tuple[bool, list[str]]:
    """Give the model a new classifier, in place, where that of the file is for other classes.

    Returns:
        Whether the classifier is a new one; what was done, in words.

    Args:
        name: of the file.
        fresh: names of the model's tensors that are not from the file.
        known: class names that the file's classifier was trained for.
    """
    head, label_names, notes = head_tensors(model), known_labels(model.config), []
    if fresh:
        notes.append("new layers, from random weights: " + listed_tensors(model, fresh))
    elif known == label_names:
        notes.append(f"the classifier is kept: {name} was trained for the same classes")
    is_new = bool(fresh & head)
    if not is_new and known != label_names:
        is_new = True
        renew_head(model, head)
        notes.append(
            f"new classifier, from random weights: {listed_tensors(model, head)}. {name} was trained for other classes "
            f"({label_difference(known, label_names)})"
        )
    count = len(model.state_dict())
    if len(fresh) > max(8, count // 4):
        doubt = f"{len(fresh)} of {count} tensors are not in the file: is it the right architecture?"
        logger.warning(doubt)
        notes.append(f"warning: {doubt}")
    return is_new, notes


def _load_weights(
    name: str, revision: str | None, config: PreTrainedConfig
) -> tuple[PreTrainedModel, set[str], set[str]]:
    """The model, the names of its tensors that are not from the file, and those of them that have another shape there."""
    with quiet_loading_report():
        if is_without_classifier(config):
            return load_encoder(name, revision, config)
        return pretrained(AutoModelForImageClassification, name, revision, config)


def listed_tensors(model: PreTrainedModel, names: Iterable[str]) -> str:
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return ", ".join(f"{name} {shapes.get(name, [])}" for name in sorted(names))


def label_difference(known: list[str], label_names: list[str]) -> str:
    position = next(i for i, pair in enumerate(zip(known, label_names, strict=True)) if pair[0] != pair[1])
    return f"class {position} was {known[position]!r} and is {label_names[position]!r}"


@contextlib.contextmanager
def quiet_loading_report() -> Iterator[None]:
    """Silence transformers' table of new and mismatched keys: the same is said in `notes`, in one line."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
