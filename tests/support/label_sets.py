"""A tiny data set whose images have up to three labels, in every form in which a table can say so, and a recipe for it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from hf_accel.config.recipe import Recipe
from tests.support.tiny_recipes import tiny_recipe_of

LABELS = ["blue", "green", "red"]  # of the left, the middle and the right third of an image
SEPARATOR = "|"
SIDE = 24


def label_sets(count: int) -> list[list[str]]:
    """All eight sets of labels in turn, the empty one among them."""
    return [[name for bit, name in enumerate(LABELS) if row >> bit & 1] for row in range(count)]


def picture(labels: list[str], number: int) -> PIL.Image.Image:
    """Noise; each third is bright in its colour where the image has the label."""
    pixels = np.random.default_rng(number).integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    third = SIDE // 3
    for place, name in enumerate(LABELS):
        if name in labels:
            pixels[:, place * third : (place + 1) * third, 2 - place] += 160
    return PIL.Image.fromarray(pixels)


def write_pictures(folder: Path, sets: list[list[str]], first: int = 0) -> list[str]:
    """The names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{first + number:03}.png" for number in range(len(sets))]
    for number, (name, labels) in enumerate(zip(names, sets, strict=True)):
        picture(labels, first + number).save(folder / name)
    return names


def rows_of(names: list[str], sets: list[list[str]], form: str) -> list[dict[str, Any]]:
    """Rows of a table. form: text, columns of 0 and 1, or lists."""
    if form == "columns":
        flags = ({name: int(name in labels) for name in LABELS} for labels in sets)
        return [{"file_name": name, **row} for name, row in zip(names, flags, strict=True)]
    cells = sets if form == "lists" else [SEPARATOR.join(labels) for labels in sets]
    return [{"file_name": name, "labels": cell} for name, cell in zip(names, cells, strict=True)]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_labelled(folder: Path, form: str = "text", train: int = 40, test: int = 16) -> Path:
    """A folder with train/metadata.csv and test/metadata.csv, or metadata.jsonl for lists, next to their pictures."""
    first = 0
    for role, count in (("train", train), ("test", test)):
        sets = label_sets(count)
        names = write_pictures(folder / role, sets, first)
        suffix = "jsonl" if form == "lists" else "csv"
        write_table(folder / role / f"metadata.{suffix}", rows_of(names, sets, form))
        first += count
    return folder


def multi_label_recipe(place: Path, *patches: dict[str, Any]) -> Recipe:
    """A recipe that trains in a second on `write_labelled`, which is made in `place` where it is missing."""
    data = place / "labelled"
    if not data.is_dir():
        write_labelled(data)
    model = {"name": "hf_accel/cifar_resnet20", "pretrained": False, "args": {"depth": 8, "width": 4},
             "task": "multi-label-image-classification"}  # fmt: skip
    return tiny_recipe_of(place, model, {"name": str(data), "image_size": 16}, *patches)
