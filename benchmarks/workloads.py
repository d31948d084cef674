"""What is trained in a benchmark: the same images and the same random weights for every program, and this package's recipe.

Weights and images are written to a folder once, in the formats that each program reads: pretrained weights would need the
network, and make a step neither faster nor slower.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.session import Session
from hf_accel.config.recipe import Recipe, apply_patch, load_recipe
from hf_accel.errors import UserError

NUM_TEST_ROWS = 20
LEARNING_RATE = 5e-5  # TrainingArguments' default


@dataclass(frozen=True)
class Size:
    """How much one measurement trains."""

    batch: int
    steps: int  # measured
    warmup: int  # before, not measured

    def for_workers(self, workers: int) -> Size:
        """A loader with workers starts with two batches per worker in stock, which must not count as its speed."""
        return Size(self.batch, max(self.steps, 4 * workers), max(self.warmup, 2 * workers))


CPU = Size(batch=16, steps=6, warmup=2)
CUDA = Size(batch=128, steps=24, warmup=8)
QUICK = Size(batch=2, steps=2, warmup=1)
CPU_MODELS = ("timm/resnet50", "timm/efficientnet_b0", "timm/vit_tiny_patch16_224")
CUDA_MODELS = ("timm/vit_base_patch16_224", "timm/resnet50", "timm/efficientnet_b0")
QUICK_MODELS = ("timm/test_resnet",)
# XLNet-base takes seconds per step on a CPU; techniques are compared on two small layers with random weights.
SMALL_XLNET = {
    "model.pretrained": "false",
    "model.args": "{n_layer: 2, d_model: 256, n_head: 4, d_head: 64, d_inner: 1024}",
    "data.max_length": "128",
    "learning_rate": "1e-3",
}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", help="timm/NAME...; default: three of the size that fits the device")
    parser.add_argument("--batch", type=int, help="images per step; default 16 on a CPU, 128 on a GPU")
    parser.add_argument("--steps", type=int, help="steps measured; default 6 on a CPU, 24 on a GPU")


def chosen_models(session: Session) -> tuple[str, ...]:
    """The models of `--model`, or the default ones.

    Raises:
        UserError: a model is not timm's, and so not one that all programs can train.
    """
    default = QUICK_MODELS if session.quick else CUDA_MODELS if session.is_cuda else CPU_MODELS
    models = tuple(session.options.model or default)
    for model in models:
        if not model.startswith("timm/"):
            raise UserError(f"--model {model}: expected timm/NAME, a network that every program can train")
    return models


def chosen_size(session: Session) -> Size:
    size = QUICK if session.quick else CUDA if session.is_cuda else CPU
    return Size(session.options.batch or size.batch, session.options.steps or size.steps, size.warmup)


def data_folder(name: str) -> Path:
    """A data set below HF_ACCEL_DATA (default: `shared/data` next to the repository).

    Raises:
        UserError: it is not there.
    """
    folder = Path(os.environ.get("HF_ACCEL_DATA", REPOSITORY.parent / "shared" / "data")) / name
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}. Set HF_ACCEL_DATA to the folder that holds {name}/.")
    return folder


class Workload:
    """Images and weights in a folder, written when they are first needed.

    Args:
        place: an empty folder.
        images: the most images that a run needs.
        image_folder: whether timm's script runs, too.
    """

    def __init__(self, session: Session, place: str, model: str, images: int, image_folder: bool = False) -> None:
        self.session = session
        self.arguments = {
            "folder": place,
            "model": model,
            "rows": max(images, 40),
            "quick": session.quick,
            "image_folder": image_folder,
        }
        self._written: dict[str, Any] | None = None

    def places(self) -> dict[str, Any]:
        """`place`, for the programs with a Trainer."""
        self._write()
        return {"place": self.arguments["folder"]}

    def timm_places(self, checkout: Path) -> dict[str, Any]:
        """The places and figures that timm's script needs."""
        written = self._write()
        return {**self.places(), **written, "checkout": str(checkout)}

    def _write(self) -> dict[str, Any]:
        if self._written is None:
            written = self.session.call("benchmarks.workloads:write_workload", self.arguments)
            if "error" in written:
                model = self.arguments["model"]
                raise UserError(f"{model}: the images and weights could not be written: {written['error']}")
            self._written = written
        return self._written


def write_workload(folder: str, model: str, rows: int, quick: bool, image_folder: bool) -> dict[str, Any]:
    """Write `model/`, `timm.safetensors` and `data/` and, for timm's script, `images/` into a folder.

    Args:
        model: timm/NAME.
        rows: images of CIFAR-10's train split, stratified; of the built-in digits when `quick`.
        image_folder: write the same images as PNG files, a folder for each class, too.
    Returns:
        classes, and the interpolation that the model's preprocessing names.
    """
    import numpy as np
    import PIL.Image
    from safetensors.torch import save_file
    from transformers import set_seed

    from hf_accel.config.sections import DataSettings, ModelSettings
    from hf_accel.data.splits import load_splits
    from hf_accel.models.load import load_model

    place = Path(folder)
    name = "digits" if quick else str(data_folder("cifar10"))
    settings = DataSettings(name=name, max_train_rows=rows, max_test_rows=NUM_TEST_ROWS)
    splits = load_splits(settings, seed=0, selection=False)
    write_table(splits.train, place / "data" / "train-00000-of-00001.parquet")
    write_table(splits.test, place / "data" / "test-00000-of-00001.parquet")
    set_seed(0)
    loaded = load_model(ModelSettings(name=model, pretrained=False), splits.label_names)
    loaded.model.save_pretrained(place / "model")
    save_file({k: v.contiguous() for k, v in loaded.model.timm_model.state_dict().items()}, place / "timm.safetensors")
    if image_folder:
        for row, label in enumerate(splits.train.labels.tolist()):
            target = place / "images" / "train" / f"{label:03}" / f"{row:06}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.ascontiguousarray(splits.train.read(row))).save(target)
    interpolation = loaded.processor.data_config["interpolation"]
    return {"classes": len(splits.label_names), "interpolation": interpolation}


def write_table(split: Any, path: Path) -> None:
    """The rows of a split as they are encoded, as parquet with an `image` and a `label` column."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=split.label_names)}
    )
    columns = {"image": list(split.dataset[split.image_column]), "label": split.labels.tolist()}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(columns, features=features)
    table.cast_column("image", datasets.Image()).to_parquet(path)


def our_recipe(place: str, model: str, size: Size, seed: int, overrides: dict[str, Any] | None = None) -> Recipe:
    """This package's best known settings for a step, on the images and weights of `write_workload`."""
    import torch

    settings = {
        "model": {
            "name": str(Path(place) / "model"),
            "channels_last": "vit" not in model,  # a ViT has one convolution; the layout only costs it copies
            "freeze_batch_norm": False,
        },
        "data": {
            "name": str(Path(place) / "data"),
            "validation": 0,
            "cache": "device" if torch.cuda.is_available() else "memory",
            "augment": {"crop": "random_resized", "scale": [0.08, 1.0], "flip": True},
        },
        "training": {
            "bf16": "auto",
            "optim": "adamw_torch_fused",
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "label_smoothing_factor": 0.0,
            "per_device_train_batch_size": size.batch,
            "max_steps": size.warmup + size.steps,
            "logging_steps": 500,  # TrainingArguments' default
            "save_strategy": "no",
            "seed": seed,
            "output_dir": str(Path(place) / "run"),
        },
    }
    return load_recipe("finetune", overrides=apply_patch(settings, overrides or {}))


def as_flags(overrides: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested overrides as flags of `hf-accel train`.

    >>> as_flags({"training": {"seed": 1}, "data": {"augment": {"flip": True}}})
    {'seed': 1, 'data.augment.flip': True}
    """
    flags = {}
    for name, value in overrides.items():
        path = "" if not prefix and name == "training" else f"{prefix}{name}."
        flags |= as_flags(value, path) if isinstance(value, dict) and value else {path.rstrip("."): value}
    return flags
