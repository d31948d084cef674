"""The words that depend on the task; imports no torch, because `hf-accel push` needs none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskTexts:
    """
    Attributes:
        unit: what a row is.
        other_data: a name for data of the reader's own.
        local_data: the type of a folder of data, in the metadata of a card.
        rate: the unit of the speed of training, in tables.
        rate_name: the same in words.
        example: the argument of a call of the pipeline, as it stands in Python.
        usage: Markdown below that call; MODEL stands for the name of the model.
        notebook: the template of the notebook, in `hub/templates/`; None: there is none.
    """

    unit: str
    other_data: str
    local_data: str
    rate: str
    rate_name: str
    example: str
    usage: str
    notebook: str | None


TEXTS = {
    "image-classification": TaskTexts(
        unit="image",
        other_data="./other_photos",
        local_data="imagefolder",
        rate="images/s",
        rate_name="Images per second",
        example='"photo.jpg"',
        usage="[notebook.ipynb](notebook.ipynb) loads the model, predicts, repeats the evaluation and continues the training. "
        "`hf-accel demo MODEL` opens a page to drop images on.",
        notebook="notebook.py.jinja",
    ),
    "text-classification": TaskTexts(
        unit="text",
        other_data="./other_texts",
        local_data="text",
        rate="samples/s",
        rate_name="Samples per second",
        example='"It works, and it was cheap."',
        usage="A text that is longer than the model's input is cut: add `truncation=True`.",
        notebook=None,
    ),
}  # by `model.task` of a recipe
