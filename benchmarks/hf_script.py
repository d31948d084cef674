"""The Hugging Face example as a command, from pretrained weights to test accuracy: `python -m benchmarks.hf_script`.

Flags are those of TrainingArguments and of `ScriptArguments`. It imports what the example imports, because its start
counts; see hf_example.py for where the method comes from. Next to its table of metrics it keeps `train_seconds`: those of
the steps alone, after the warm-up that this package leaves out, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
import torchvision.transforms as tv
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.clock import StepClock

WARMUP_STEPS = 3  # as hf_accel.measure


@dataclass
class ScriptArguments:
    """What the example's ModelArguments and DataTrainingArguments say."""

    model_name_or_path: str
    dataset_name: str = field(metadata={"help": "a folder; columns `image` and `label`"})
    cache_dir: str | None = None
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0], metadata={"help": "scale of RandomResizedCrop"})


class ImageChain:
    """The transform of `set_transform`: PIL images of a batch, one at a time. A class, so that workers can get it."""

    def __init__(self, chain: Callable[[Image.Image], torch.Tensor]) -> None:
        self.chain = chain

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        batch["pixel_values"] = [self.chain(image.convert("RGB")) for image in batch["image"]]
        return batch


def train_chain(data_config: dict[str, Any], scale: tuple[float, float] = (0.08, 1.0)) -> tv.Compose:
    """Random-resized crop, flip, tensor, normalisation, for a timm model's `data_config`."""
    interpolation = tv.InterpolationMode(data_config["interpolation"])
    crop = tv.RandomResizedCrop(data_config["input_size"][-2:], scale=scale, interpolation=interpolation)
    return tv.Compose([crop, tv.RandomHorizontalFlip(), *_to_tensor(data_config)])


def eval_chain(data_config: dict[str, Any]) -> tv.Compose:
    """Resize of the short side, centre crop, tensor, normalisation: what the model's own processor does."""
    size = data_config["input_size"][-1]
    resize = tv.Resize(math.floor(size / data_config["crop_pct"]), tv.InterpolationMode(data_config["interpolation"]))
    return tv.Compose([resize, tv.CenterCrop(size), *_to_tensor(data_config)])


def _to_tensor(data_config: dict[str, Any]) -> list[Any]:
    return [tv.ToTensor(), tv.Normalize(data_config["mean"], data_config["std"])]


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def main() -> None:
    script, arguments = HfArgumentParser((ScriptArguments, TrainingArguments)).parse_args_into_dataclasses()
    set_seed(arguments.seed)
    tables = datasets.load_dataset(script.dataset_name, cache_dir=script.cache_dir)
    train, test = tables["train"], tables["validation" if "validation" in tables else "test"]
    labels = train.features["label"].names
    config = AutoConfig.from_pretrained(
        script.model_name_or_path,
        num_labels=len(labels),
        label2id={label: number for number, label in enumerate(labels)},
        id2label=dict(enumerate(labels)),
    )
    model = AutoModelForImageClassification.from_pretrained(
        script.model_name_or_path, config=config, ignore_mismatched_sizes=True
    )
    processor = AutoImageProcessor.from_pretrained(script.model_name_or_path)
    train.set_transform(ImageChain(train_chain(processor.data_config, tuple(script.scale))))
    test.set_transform(ImageChain(eval_chain(processor.data_config)))
    clock = StepClock(WARMUP_STEPS)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=test,
        compute_metrics=accuracy,
        processing_class=processor,
        data_collator=collate,
        callbacks=[clock],
    )
    result = trainer.train()
    trainer.save_model()
    trainer.save_metrics("train", result.metrics | {"train_seconds": clock.seconds})
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.create_model_card(tasks="image-classification", tags=["image-classification", "vision"])


if __name__ == "__main__":
    main()
