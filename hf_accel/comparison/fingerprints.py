"""The fingerprint of the data that a run of an entry would read now: a finished run counts only for the same data."""

from __future__ import annotations

import json
from dataclasses import asdict

from hf_accel.comparison.schema import Entry
from hf_accel.config.recipe import Recipe

# Settings of `data` that change how images are read, not which images: the fingerprint does not depend on these.
NOT_OF_ROWS = ("augment", "cache", "cache_dir", "cache_size", "channels", "class_weights", "hard_examples", "image_size",
               "max_length", "progressive_resizing", "resize", "sampling", "shuffle_buffer", "test_time_augmentation",
               "transforms")  # fmt: skip


class DataFingerprints:
    """Opens each data set once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str] = {}

    def __call__(self, entry: Entry, seed: int) -> str:
        key = (rows_key(entry.recipe), seed)
        if key not in self._known:
            from hf_accel.tasks import TASKS

            task = TASKS[entry.recipe.model.task]
            self._known[key] = task.open_splits(entry.recipe.data, seed).fingerprint
        return self._known[key]


def rows_key(recipe: Recipe) -> str:
    """The settings that decide on which rows a recipe trains and is scored, without the seed."""
    rows = {name: value for name, value in asdict(recipe.data).items() if name not in NOT_OF_ROWS}
    return json.dumps(rows, sort_keys=True)
