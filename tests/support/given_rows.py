"""Rows as a Python caller has them: two colours, easily told apart."""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch
from torch import nn

COLOURS = {"red": (200, 50, 40), "blue": (40, 50, 200)}
NAMES = list(COLOURS)


def pixels(count: int = 40, side: int = 20) -> tuple[np.ndarray, list[int]]:
    """Noisy images (N, side, side, 3) uint8, and their labels 0 (red) and 1 (blue) in turn."""
    rng = np.random.default_rng(0)
    labels = [row % 2 for row in range(count)]
    colours = np.array([COLOURS[NAMES[label]] for label in labels])[:, None, None]
    noise = rng.integers(-30, 31, (count, side, side, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8), labels


def pictures(count: int = 40, side: int = 20) -> tuple[list[PIL.Image.Image], list[str]]:
    images, labels = pixels(count, side)
    return [PIL.Image.fromarray(image) for image in images], [NAMES[label] for label in labels]


def table(count: int = 40) -> datasets.Dataset:
    images, labels = pictures(count)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


class Rows(torch.utils.data.Dataset):
    """A torch data set of what a function of the row's number gives."""

    def __init__(self, row: Callable[[int], Any], count: int = 40) -> None:
        self.row, self.count, self.reads = row, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        self.reads += 1
        return self.row(number)


def small_network(classes: int = 2) -> nn.Module:
    """Any network that returns logits; images of any size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def small_vit(classes: int = 2) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    config.num_labels = classes
    return ViTForImageClassification(config)
