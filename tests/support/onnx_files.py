"""A tiny trained classifier as an ONNX file."""

from pathlib import Path

import numpy as np
import torch

from hf_accel.compression.export import recorded_preprocessing, write_onnx
from hf_accel.models.load import LoadedModel
from hf_accel.tasks import TASKS

VIT = {"name": "timm/vit_tiny_patch16_224", "channels_last": False,
       "args": {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}}  # fmt: skip


def loaded_model(recipe, seed: int = 0) -> LoadedModel:
    torch.manual_seed(seed)
    loaded = TASKS[recipe.model.task].load_model(recipe, ["blue", "rouge é"])
    loaded.model.eval()
    return loaded


def exported_file(loaded: LoadedModel, folder: Path) -> Path:
    return write_onnx(loaded, recorded_preprocessing(loaded)[0], folder)


def noise_images(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (20 + row % 7, 24, 3), dtype=np.uint8) for row in range(count)]
