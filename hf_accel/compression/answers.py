"""What the forms of a model answer for the same images: their scores, and whether the exported one is the same model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from hf_accel.compression.export import Logits
from hf_accel.data.splits import ImageSplit, Splits
from hf_accel.errors import RunError
from hf_accel.models.exported import INPUT, Exported
from hf_accel.models.load import LoadedModel
from hf_accel.tasks.torch_scoring import TorchScorer

OTHER_ANSWERS = 0.001  # of the images that are compared, at most; a part of an image counts as one
_BATCH = 16
Form = tuple[str, str]  # runtime and format


@dataclass(frozen=True)
class Agreement:
    """The answers of the exported model compared with the model's, each with its own preprocessing."""

    images: int
    same_answers: float  # share of the images with the same likeliest class
    largest_difference: float  # of a logit, for the same input
    largest_logit: float  # its absolute value

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """What each form answered."""

    classes: dict[Form, np.ndarray]  # of each form: (N,) int64, the likeliest class of each image
    agreement: Agreement


@dataclass(frozen=True)
class ComparedImages:
    """The images that are compared, evenly spaced in the test split; where it is too small, others follow."""

    rows: list[tuple[ImageSplit, int]]
    labels: (
        np.ndarray
    )  # (N,) int64, the class of the model; -1: not a test image, or a class that the model does not know

    @classmethod
    def of(cls, splits: Splits, label_names: list[str], count: int) -> ComparedImages:
        """Args:
        label_names: of the model.
        count: at most.
        """
        numbers = {name: number for number, name in enumerate(label_names)}
        to_model = np.array([numbers.get(name, -1) for name in splits.label_names], dtype=np.int64)
        rows: list[tuple[ImageSplit, int]] = []
        labels: list[int] = []
        for split in (splits.test, splits.validation, splits.train):
            if split is None:
                continue
            taken = evenly_spaced(len(split), count - len(rows))
            rows += [(split, int(row)) for row in taken]
            labels += (to_model[split.labels[taken]] if split is splits.test else np.full(len(taken), -1)).tolist()
        return cls(rows, np.array(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB each"""
        return (split.read(row) for split, row in self.rows)


def evenly_spaced(length: int, count: int) -> np.ndarray:
    """Numbers of rows, at most `count` of them, over the whole length: a folder is in the order of its classes.

    >>> evenly_spaced(10, 4)
    array([0, 3, 6, 9])
    """
    return np.linspace(0, length - 1, min(length, count)).round().astype(np.int64)


def answers(
    loaded: LoadedModel,
    torch_forms: dict[Form, nn.Module],
    exported_forms: dict[Form, Exported],
    images: Iterable[np.ndarray],
) -> Answers:
    """All forms on the same images.

    Args:
        loaded: the model, whose processor prepares the images for the forms of PyTorch.
        torch_forms: form -> network; the first is the model itself.
        exported_forms: form -> file; the first is the float32 one.
        images: (H, W, 3) uint8 RGB each; at least one.
    """
    scorer = TorchScorer(loaded)
    found: dict[Form, list[np.ndarray]] = {name: [] for name in (*torch_forms, *exported_forms)}
    model, file = next(iter(torch_forms)), next(iter(exported_forms))
    difference = largest = 0.0
    for batch in in_batches(images):
        own = scorer.inputs([scorer.prepare(pixels) for pixels in batch])[INPUT]
        recorded = np.concatenate([exported_forms[file].prepare(pixels)[INPUT] for pixels in batch])
        for name, network in torch_forms.items():
            logits = torch_logits(network, own)
            found[name].append(logits.argmax(-1).numpy())
            if name == model:
                same_input = torch.from_numpy(exported_forms[file].logits(own.numpy()))
                difference = max(difference, float((same_input - logits).abs().max()))
                largest = max(largest, float(logits.abs().max()))
        for name, exported in exported_forms.items():
            found[name].append(exported.logits(recorded).argmax(-1))
    classes = {name: np.concatenate(parts) for name, parts in found.items()}
    same = same_answers(classes[file], classes[model])
    return Answers(classes, Agreement(len(classes[file]), same, difference, largest))


def torch_logits(network: nn.Module, pixel_values: Tensor) -> Tensor:
    """(B, 3, H, W) float32 -> (B, C) float32, computed in the precision of the network."""
    with torch.inference_mode():
        return Logits(network)(pixel_values.to(next(network.parameters()).dtype)).float()


def same_answers(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


def scores(classes: np.ndarray, labels: np.ndarray, num_labels: int) -> tuple[float, float] | tuple[None, None]:
    """Accuracy and macro F1 over the images with a label; None, None without one."""
    known = labels >= 0
    if not known.any():
        return None, None
    right = float((classes[known] == labels[known]).mean())
    f1 = f1_score(labels[known], classes[known], labels=range(num_labels), average="macro", zero_division=0)
    return right, float(f1)


def require_agreement(where: str, agreement: Agreement) -> None:
    """Raises:
    RunError: too many images get another answer.
    """
    others = round((1 - agreement.same_answers) * agreement.images)
    most = math.ceil(OTHER_ANSWERS * agreement.images)
    if others > most:
        raise RunError(
            f"{where}: the exported model gives {others:,} of {agreement.images:,} images another class than the model, expected "
            f"at most {most:,} (largest difference of a logit for the same input: {agreement.largest_difference:.3g}). Nothing "
            "was written."
        )


def in_batches(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The images of one forward pass each."""
    batch: list[np.ndarray] = []
    for image in images:
        batch.append(image)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
