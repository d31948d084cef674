"""Three test images with the model's answers, for the model card and the demo."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hf_accel.config.recipe import Recipe
from hf_accel.files import write_whole
from hf_accel.hub.publication import is_local
from hf_accel.runs.folder import RunFolder

if TYPE_CHECKING:
    from hf_accel.tasks.image_gallery import Example

ANSWERS = "examples.json"
EXAMPLE_SIDE = 512  # the most pixels of an example's longer side

# The Hub itself shows these for image classifiers: whether to publish pictures of a local folder is up to the user.
PUBLIC_PICTURES = "https://huggingface.co/datasets/mishig/sample_images/resolve/main/{}.jpg"


def write_examples(folder: RunFolder, recipe: Recipe, examples: Iterable[Example]) -> None:
    """Keep examples with the model's answers in `model/examples/`, for the card and the demo page.

    Nothing of a local folder is kept: its pictures may be private, and a push would publish them. The examples are not
    read then.
    """
    if is_local(recipe.data.name):
        return
    from PIL import Image

    folder.examples.mkdir(exist_ok=True)
    entries = []
    for number, example in enumerate(examples, start=1):
        image = Image.fromarray(example.image)
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(folder.examples / f"{number}.png")
        answers = [{"label": label, "score": round(score, 4)} for label, score in example.answers]
        entries.append({"src": f"examples/{number}.png", "example_title": example.label, "output": answers})
    write_whole(folder.examples / ANSWERS, json.dumps(entries, indent=2))


def read_examples(folder: RunFolder) -> list[dict[str, Any]]:
    """Entries of the card's `widget` list: the run's own examples, or public pictures where it has none."""
    kept = folder.examples / ANSWERS
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    return [
        {"src": PUBLIC_PICTURES.format(name), "example_title": name.capitalize()}
        for name in ("tiger", "teapot", "palace")
    ]
