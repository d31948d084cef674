"""A trained model -> a folder with its ONNX files, each compared with what it was made from."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_accel import terminal
from hf_accel.compression import export
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import Splits
from hf_accel.machine.allocator import apply_keep_freed_memory
from hf_accel.machine.description import describe_environment
from hf_accel.methods.finite import refuse_broken_weights
from hf_accel.models.exported import EXPORTED_MODEL, RESULT, Exported
from hf_accel.models.load import LoadedModel
from hf_accel.tasks import TASKS

SEED = 42  # of TrainingArguments


def compress(recipe: Recipe, settings: CompressionSettings, output: Path) -> dict[str, Any]:
    """Export, compare, and put the folder in its place; returns what `compress.json` holds.

    Args:
        recipe: `model.name` is the trained model, `data` are the images that it is compared on.
        output: the folder, which is replaced.
    Raises:
        UserError: the model or the data cannot be had, or the model cannot be exported.
        RunError: the exported model gives other answers.
    """
    apply_keep_freed_memory(True)
    task = TASKS[recipe.model.task]
    splits = task.open_splits(recipe.data, int(recipe.training.get("seed", SEED)))
    loaded: LoadedModel = task.load_trained(recipe.model.name, recipe.model.revision)
    refuse_broken_weights(loaded.model, recipe.model.name)
    preprocessing, notes = export.recorded_preprocessing(loaded)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        folder = Path(scratch) / output.name
        file = export.write_onnx(loaded, preprocessing, folder)
        with terminal.bar(None, "compared", "image") as bar:
            agreement = export.compare(
                loaded, Exported(file), _counted(itertools.islice(_images_of(splits), settings.images), bar)
            )
        export.require_agreement(recipe.model.name, agreement)
        export.write_configuration(loaded, preprocessing, folder)
        result = {
            "model": recipe.model.name,
            "model_content": loaded.content(),
            "output": str(output),
            "file": str(output / EXPORTED_MODEL),
            "bytes": file.stat().st_size,
            "data": recipe.data.name,
            "agreement": agreement.to_dict(),
            "notes": [*loaded.notes, *notes],
            "environment": describe_environment(),
        }
        (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if output.is_dir():
            shutil.rmtree(output)
        folder.replace(output)
    return result


def _images_of(splits: Splits) -> Iterator[np.ndarray]:
    """The images of the data, test rows first, (H, W, 3) uint8 RGB each."""
    for split in (splits.test, splits.validation, splits.train):
        if split is not None:
            yield from (split.read(row) for row in range(len(split)))


def _counted(images: Iterator[np.ndarray], bar: Any) -> Iterator[np.ndarray]:
    for image in images:
        bar.update()
        yield image
