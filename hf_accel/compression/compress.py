"""A trained model -> a folder with its ONNX files, each compared with what it was made from."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_accel import terminal
from hf_accel.compression import export
from hf_accel.compression.answers import ComparedImages
from hf_accel.compression.formats import FILES, write_format
from hf_accel.compression.learned_ranges import share_as_trained
from hf_accel.compression.measured import measure
from hf_accel.compression.speed import BATCH
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import ImageSplit
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.machine.allocator import apply_keep_freed_memory
from hf_accel.machine.description import describe_environment
from hf_accel.measure import turns
from hf_accel.methods.finite import refuse_broken_weights
from hf_accel.methods.quantization_aware import Range, load_ranges
from hf_accel.models.exported import EXPORTED_MODEL, RESULT, Exported
from hf_accel.models.load import LoadedModel
from hf_accel.tasks import TASKS

SEED = 42  # of TrainingArguments
_CALIBRATION_BATCH = 16


def compress(recipe: Recipe, settings: CompressionSettings, output: Path) -> dict[str, Any]:
    """Export, compare, and put the folder in its place; returns what `compress.json` holds.

    Args:
        recipe: `model.name` is the trained model, `data` are the images that it is compared on.
        output: the folder, which is replaced.
    Raises:
        UserError: the model or the data cannot be had, or the model cannot be exported or quantized.
        RunError: the exported model gives other answers.
    """
    apply_keep_freed_memory(True)
    task, seed = TASKS[recipe.model.task], int(recipe.training.get("seed", SEED))
    splits = task.open_splits(recipe.data, seed)
    loaded: LoadedModel = task.load_trained(recipe.model.name, recipe.model.revision)
    refuse_broken_weights(loaded.model, recipe.model.name)
    ranges = load_ranges(recipe.model.name)
    preprocessing, notes = export.recorded_preprocessing(loaded)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        folder = Path(scratch) / output.name
        export.write_onnx(loaded, preprocessing, folder)
        export.write_configuration(loaded, preprocessing, folder)
        for form in settings.formats:
            write_format(form, folder, lambda: calibration(splits.train, preprocessing, settings, seed), ranges)
        images = ComparedImages.of(splits, loaded.label_names, settings.images)
        if ranges is not None and "int8" in settings.formats:
            notes.append(note_on_training(loaded, ranges, folder, images))
        rows, agreement = measure(recipe.model.name, loaded, folder, images, settings)
        for row in rows:
            if row.file is not None and not row.written:
                (folder / row.file).unlink()
        result = {
            "model": recipe.model.name,
            "model_content": loaded.content(),
            "output": str(output),
            "file": str(output / EXPORTED_MODEL),
            "data": recipe.data.name,
            "agreement": agreement.to_dict(),
            "rows": [row.to_dict() for row in rows],
            "test_images": int((images.labels >= 0).sum()),
            "zero_weights": share_of_zeros(loaded.model),
            "measured": {"batch_size": BATCH, "rounds": turns.ROUNDS, "threads": torch.get_num_threads()},
            "notes": [*loaded.notes, *notes],
            "environment": describe_environment(),
        }
        (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if output.is_dir():
            shutil.rmtree(output)
        folder.replace(output)
    return result


def calibration(
    train: ImageSplit, preprocessing: Preprocessing, settings: CompressionSettings, seed: int
) -> Iterator[np.ndarray]:
    """Batches of training images, (B, 3, H, W) float32 each, drawn once for a seed and not augmented."""
    count = min(settings.calibration_images, len(train))
    rows = np.random.default_rng(seed).choice(len(train), count, replace=False)
    with terminal.bar(count, "calibrated", "image") as bar:
        for start in range(0, count, _CALIBRATION_BATCH):
            batch = rows[start : start + _CALIBRATION_BATCH]
            yield np.stack([preprocessing.pixel_values(train.read(int(row))) for row in batch])
            bar.update(len(batch))


def note_on_training(loaded: LoadedModel, ranges: dict[str, Range], folder: Path, images: ComparedImages) -> str:
    """Whether the int8 file of a model that was trained for int8 answers as the model did in training."""
    share = share_as_trained(loaded, ranges, Exported(folder / FILES["int8"], torch.get_num_threads()), images)
    return f"int8: with the ranges of training; {share:.2%} of the images get the class that rounding in PyTorch gives"


def share_of_zeros(model: nn.Module) -> float:
    """Of the weights, without biases and other vectors."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))
