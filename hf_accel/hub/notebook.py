"""`notebook.ipynb` beside a pushed model: the Hub opens it in Colab in place of its own.

Loading and predicting need transformers alone; evaluation and further training call this package, which repeats the
run's own splits, so that no training image is scored as a test image.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import DataSettings


def notebook_text(recipe: Recipe, data_name: str, needs_package: bool, local_data: bool, has_examples: bool) -> str:
    """The notebook of a run as JSON (format 4.5), cells not yet executed.

    Args:
        data_name: as others can find it.
        needs_package: the model loads only after `import hf_accel.cifar_nets`.
        local_data: the data set is a folder that the reader has to bring.
        has_examples: test images lie in `examples/` beside the model.
    """
    own = "import hf_accel.cifar_nets  # registers the network with timm\n" if needs_package else ""
    bring = "  # your copy of this folder" if local_data else ""
    image = (
        'image = "examples/1.png" if Path(MODEL).is_dir() else hf_hub_download(MODEL, "examples/1.png")'
        if has_examples
        else 'from PIL import Image\n\nimage = Image.new("RGB", (256, 256), "grey")'
    )
    cells = [
        _markdown(
            f"# {recipe.name}\n\nLoad the model, predict, repeat its evaluation, and train it on. The last two need this "
            "package: `%pip install hf_accel`, then restart the kernel."
        ),
        _code(
            "import sys\nfrom pathlib import Path\n\nfrom huggingface_hub import hf_hub_download\n\n"
            f'MODEL = "."\nDATA = "{data_name}"{bring}\n'
            'RECIPE = "../recipe.yaml" if Path(MODEL).is_dir() else hf_hub_download(MODEL, "recipe.yaml")'
        ),
        _markdown("## Load"),
        _code(
            f"{own}from transformers import AutoImageProcessor, AutoModelForImageClassification\n\n"
            "model = AutoModelForImageClassification.from_pretrained(MODEL)\n"
            "processor = AutoImageProcessor.from_pretrained(MODEL)\n"
            'print(f"{model.num_parameters():,} parameters, classes: {list(model.config.id2label.values())[:10]}")'
        ),
        _markdown("## Predict\n\n`image` may be a picture, a path or an address."),
        _code(
            f"from transformers import pipeline\n\n{image}\n"
            'classify = pipeline("image-classification", model=model, image_processor=processor)\n'
            "classify(image)"
        ),
        _markdown("## Evaluate\n\nThe test rows of the run, so the accuracy is that of the card."),
        _code(f'!{{sys.executable}} -m hf_accel.evaluate "{{MODEL}}" --data.name "{{DATA}}"{_data_flags(recipe)}'),
        _markdown("## Train on\n\nFrom these weights, with the settings of the run. Raise `max_steps`."),
        _code(
            '!{sys.executable} -m hf_accel.train --recipe "{RECIPE}" --model.name "{MODEL}" --model.pretrained true '
            '--data.name "{DATA}" --max_steps 20 --push_to_hub false --output_dir continued --overwrite'
        ),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def _data_flags(recipe: Recipe) -> str:
    """What decides which rows of the data set are the test rows, and how they are scored; defaults are left out."""
    names = ("config", "revision", "image_column", "label_column", "max_test_rows", "test_time_augmentation")
    values = {name: getattr(recipe.data, name) for name in names}
    given = {name: value for name, value in values.items() if value != getattr(DataSettings, name)}
    return "".join(f" --data.{name} {shlex.quote(str(value))}" for name, value in given.items())


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    source = text.splitlines(keepends=True)
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
