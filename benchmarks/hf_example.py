"""The method of transformers' `examples/pytorch/image-classification/run_image_classification.py`, written from scratch.

As there: `datasets` decodes, `set_transform` runs a torchvision chain on each image where the loader asks for it, a
stock Trainer trains. Written after the newest version of the script that could be read, of transformers 4.57.5; the
Trainer is the installed one. Two things differ, both in the peer's favour or in nobody's: with a timm model the script
takes timm's train transform, which jitters colours too, and here every program crops and flips only, with the model's own
interpolation; nothing is saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.clock import StepClock
from benchmarks.hf_script import ImageChain, collate, train_chain
from benchmarks.workloads import Size
from hf_accel.runs.log import quiet_libraries
from hf_accel.training.arguments import accelerator_type


def train(
    place: str, model: str, batch: int, steps: int, warmup: int, flags: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Train as the example does.

    Args:
        place: from `write_workload`.
        model: its name; its weights are in `place`.
        flags: TrainingArguments besides the batch and the number of steps, name for name.
    Returns:
        images_per_second.
    """
    quiet_libraries()
    folder = Path(place)
    table = datasets.load_dataset(str(folder / "data"), split="train", cache_dir=str(folder / "hf_cache"))
    processor = AutoImageProcessor.from_pretrained(folder / "model")
    network = AutoModelForImageClassification.from_pretrained(folder / "model")
    table.set_transform(ImageChain(train_chain(processor.data_config)))
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
