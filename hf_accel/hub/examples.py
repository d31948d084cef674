"""Three test images with the model's answers, for the model card and the demo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hf_accel.config.recipe import Recipe
from hf_accel.files import write_whole
from hf_accel.hub.publication import publishes_examples
from hf_accel.runs.folder import RunFolder

if TYPE_CHECKING:
    from hf_accel.tasks.image_gallery import Example

ANSWERS = "examples.json"
EXAMPLE_SIDE = 512  # the most pixels of an example's longer side


def write_examples(folder: RunFolder, recipe: Recipe, examples: Iterable[Example]) -> None:
    """Keep examples with the model's answers in `model/examples/`, for the card and the demo page.

    Where the recipe does not publish examples, none is read or kept: a push would publish it.
    """
    if folder.examples.is_dir():
        shutil.rmtree(folder.examples)
    if not publishes_examples(recipe):
        return
    from PIL import Image

    folder.examples.mkdir()
    entries = []
    for number, example in enumerate(examples, start=1):
        image = Image.fromarray(example.image)
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(folder.examples / f"{number}.png")
        answers = [{"label": label, "score": round(score, 4)} for label, score in example.answers]
        entries.append({"src": f"examples/{number}.png", "example_title": example.label, "output": answers})
    write_whole(folder.examples / ANSWERS, json.dumps(entries, indent=2))


def read_examples(folder: RunFolder, recipe: Recipe) -> list[dict[str, Any]]:
    """Entries of the card's `widget` list; empty where the run has no examples, or does not publish them."""
    kept = folder.examples / ANSWERS
    if not kept.is_file() or not publishes_examples(recipe):
        return []
    return json.loads(kept.read_text(encoding="utf-8"))
