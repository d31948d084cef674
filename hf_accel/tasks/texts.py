"""What a model card and a notebook say that depends on the task; imports no torch, because `hf-accel push` needs none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskTexts:
    """
    Attributes:
        example: the argument of a call of the pipeline, as it stands in Python.
        usage: Markdown below that call; MODEL stands for the name of the model.
        notebook: the template of the notebook, in `hub/templates/`.
    """

    example: str
    usage: str
    notebook: str


TEXTS = {
    "image-classification": TaskTexts(
        example='"photo.jpg"',
        usage="[notebook.ipynb](notebook.ipynb) loads the model, predicts, repeats the evaluation and continues the training. "
        "`hf-accel demo MODEL` opens a page to drop images on.",
        notebook="notebook.py.jinja",
    )
}  # by `model.task` of a recipe
