"""The method of transformers' `examples/pytorch/image-classification/run_image_classification.py`, written anew.

As there: `datasets` decodes, `set_transform` runs a torchvision chain on each image where the loader asks for it, a
stock Trainer trains. Written after the newest version of the script that could be read, of transformers 4.57.5; the
Trainer is the installed one. Two things differ, both in the peer's favour or to nobody's: with a timm model the script
takes timm's train transform, which jitters colours too, and here every arm crops and flips only, with the model's own
interpolation; nothing is saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
import torchvision.transforms as tv
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.arms import StepClock
from benchmarks.workloads import Size
from hf_accel.arguments import accelerator_type
from hf_accel.results import quiet_libraries


class ImageChain:
    """The transform of `set_transform`: PIL images of a batch, one at a time. A class, so that workers can get it."""

    def __init__(self, data_config: dict[str, Any]) -> None:
        self.chain = pil_chain(data_config)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        batch["pixel_values"] = [self.chain(image.convert("RGB")) for image in batch["image"]]
        return batch


def pil_chain(data_config: dict[str, Any]) -> tv.Compose:
    """Random-resized crop, flip, tensor, normalisation, for a timm model's `data_config`."""
    return tv.Compose(
        [
            tv.RandomResizedCrop(
                data_config["input_size"][-2:],
                interpolation=tv.InterpolationMode(data_config["interpolation"]),
            ),
            tv.RandomHorizontalFlip(),
            tv.ToTensor(),
            tv.Normalize(data_config["mean"], data_config["std"]),
        ]
    )


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def train(
    place: str, model: str, batch: int, steps: int, warmup: int, flags: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Train as the example does.

    Args:
        place: from `write_workload`.
        model: its name; its weights are in `place`.
        flags: TrainingArguments beside the batch and the number of steps, name for name.
    Returns:
        images_per_second.
    """
    quiet_libraries()
    folder = Path(place)
    table = datasets.load_dataset(str(folder / "data"), split="train", cache_dir=str(folder / "hf_cache"))
    processor = AutoImageProcessor.from_pretrained(folder / "model")
    network = AutoModelForImageClassification.from_pretrained(folder / "model")
    table.set_transform(ImageChain(processor.data_config))
    arguments = TrainingArguments(
        output_dir=str(folder / "run"),
        remove_unused_columns=False,  # as the example's own commands have it
        per_device_train_batch_size=batch,
        max_steps=warmup + steps,
        save_strategy="no",
        seed=seed,
        use_cpu=accelerator_type() == "cpu",
        disable_tqdm=True,
        **flags,
    )
    clock = StepClock(warmup)
    trainer = Trainer(
        model=network,
        args=arguments,
        train_dataset=table,
        processing_class=processor,
        data_collator=collate,
        callbacks=[clock],
    )
    trainer.train()
    return {"images_per_second": clock.images_per_second(Size(batch, steps, warmup))}
