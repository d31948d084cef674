"""Recipes that train in a second, for the tests of one task."""

from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe, apply_patch, load_recipe


def tiny_recipe_of(place: Path, model: dict[str, Any], data: dict[str, Any], *patches: dict[str, Any]) -> Recipe:
    """One epoch in batches of 8, a fifth of the rows validating; `place` has the file of the recipe and the run."""
    overrides: dict[str, Any] = {
        "model": model,
        "data": {"validation": 0.2, **data},
        "training": {"output_dir": str(place / "run"), "per_device_train_batch_size": 8, "num_train_epochs": 1,
                     "learning_rate": 1e-2, "bf16": False},
    }  # fmt: skip
    for patch in patches:
        overrides = apply_patch(overrides, patch)
    file = place / "tiny.yaml"
    file.write_text("{}\n", "utf-8")
    return load_recipe(file, overrides=overrides)
