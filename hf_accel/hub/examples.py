"""Three test images with the model's answers, for the card and the demo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_accel.config.recipe import Recipe
from hf_accel.files import write_whole
from hf_accel.hub.publication import is_local
from hf_accel.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

    from hf_accel.data.splits import ImageSplit

ANSWERS = "examples.json"
EXAMPLE_SIDE = 512  # pixels of an example's longer side, at most


# What the Hub itself shows for image classifiers: pictures of the user's own folder are theirs to publish.
PUBLIC_PICTURES = "https://huggingface.co/datasets/mishig/sample_images/resolve/main/{}.jpg"


def write_examples(
    folder: RunFolder, recipe: Recipe, split: ImageSplit, model: PreTrainedModel, processor: BaseImageProcessor
) -> None:
    """Keep three test images with the model's answers in `model/examples/`, for the card and the demo page.

    Of a local folder nothing is kept: its pictures may be private, and a push would publish them.
    """
    if is_local(recipe.data.name):
        return
    import torch
    from PIL import Image

    folder.examples.mkdir(exist_ok=True)
    by_class = np.argsort(split.labels, kind="stable")
    rows = [by_class[position] for position in (0, len(by_class) // 2, len(by_class) - 1)]
    entries = []
    model.eval()
    for number, row in enumerate(rows, start=1):
        image = Image.fromarray(split.read(row))
        with torch.inference_mode():
            pixels = processor(image, return_tensors="pt")["pixel_values"].to(model.device, torch.float32)
            likely = model(pixel_values=pixels).logits[0].float().softmax(-1).topk(min(3, len(split.label_names)))
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(folder.examples / f"{number}.png")
        answers = [
            {"label": split.label_names[label], "score": round(score, 4)}
            for score, label in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        ]
        title = split.label_names[split.labels[row]]
        entries.append({"src": f"examples/{number}.png", "example_title": title, "output": answers})
    write_whole(folder.examples / ANSWERS, json.dumps(entries, indent=2))


def read_examples(folder: RunFolder) -> list[dict[str, Any]]:
    """Entries of the card's `widget` list: the run's own examples, else public pictures."""
    kept = folder.examples / ANSWERS
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    return [
        {"src": PUBLIC_PICTURES.format(name), "example_title": name.capitalize()}
        for name in ("tiger", "teapot", "palace")
    ]
