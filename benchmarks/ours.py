"""This package as one of the programs of a benchmark."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.clock import StepClock
from benchmarks.workloads import Size, our_recipe
from hf_accel.runs.log import quiet_libraries
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer


def build(
    place: str, model: str, batch: int, steps: int, warmup: int, seed: int, overrides: dict[str, Any] | None
) -> tuple[ImageTrainer, Size]:
    quiet_libraries()
    size = Size(batch, steps, warmup)
    return build_trainer(our_recipe(place, model, size, seed, overrides)), size


def ours(
    place: str,
    model: str,
    batch: int,
    steps: int,
    warmup: int,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train with this package, from the loader to the optimizer.

    Returns:
        images_per_second; settings in words.
    """
    trainer, size = build(place, model, batch, steps, warmup, seed, overrides)
    clock = StepClock(warmup)
    trainer.add_callback(clock)
    trainer.train()
    return {
        "images_per_second": clock.images_per_second(size),
        "settings": settings_text(trainer),
    }


def settings_text(trainer: ImageTrainer) -> str:
    """What is in force, read off the built trainer."""
    args = trainer.args
    weights = [p for p in trainer.loaded.model.parameters() if p.ndim == 4 and p.shape[1] > 1]
    layout = "channels_last" if any(p.is_contiguous(memory_format=torch.channels_last) for p in weights) else "NCHW"
    words = [
        "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        layout,
        str(getattr(args.optim, "value", args.optim)),
    ]
    words += ["compiled"] if args.torch_compile else []
    return ", ".join([*words, f"cache {trainer.train_dataset.pixels.mode}"])
