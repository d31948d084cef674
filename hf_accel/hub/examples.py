"""Three test rows with the model's answers, for the model card and the demo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_accel.config.recipe import Recipe
from hf_accel.files import write_whole
from hf_accel.hub.publication import publishes_examples
from hf_accel.runs.folder import RunFolder

if TYPE_CHECKING:
    from hf_accel.tasks.gallery import Example

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
    folder.examples.mkdir()
    entries = []
    for number, example in enumerate(examples, start=1):
        answers = [{"label": label, "score": round(score, 4)} for label, score in example.answers]
        kept = keep_content(example.content, folder.examples, number)
        entries.append({**kept, "example_title": example.label, "output": answers})
    write_whole(folder.examples / ANSWERS, json.dumps(entries, indent=2))


@singledispatch
def keep_content(content: Any, place: Path, number: int) -> dict[str, Any]:
    """Write an example into a folder, as a file of that number; returns how an entry of the card's `widget` has it."""
    raise TypeError(f"a {type(content).__name__} cannot be an example")


@keep_content.register(np.ndarray)
def _(content: np.ndarray, place: Path, number: int) -> dict[str, Any]:
    from PIL import Image

    image = Image.fromarray(content)
    image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    image.save(place / f"{number}.png")
    return {"src": f"{place.name}/{number}.png"}


@keep_content.register(str)
def _(content: str, place: Path, number: int) -> dict[str, Any]:
    (place / f"{number}.txt").write_text(content, encoding="utf-8")
    return {"text": content}


def read_examples(folder: RunFolder, recipe: Recipe) -> list[dict[str, Any]]:
    """Entries of the card's `widget` list; empty where the run has no examples, or does not publish them."""
    kept = folder.examples / ANSWERS
    if not kept.is_file() or not publishes_examples(recipe):
        return []
    return json.loads(kept.read_text(encoding="utf-8"))
