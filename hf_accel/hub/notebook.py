"""`notebook.ipynb` next to a pushed model: the Hub opens it in Colab in place of its own.

Loading and predicting need transformers alone; evaluation and further training call this package, which repeats the
run's own splits, so that no training image is scored as a test image. The cells are written in
`templates/notebook.py.jinja`, as Jupytext separates them: `# %%` begins a cell of code, `# %% [markdown]` one of text.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import jinja2

from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import DataSettings
from hf_accel.report.titles import run_title
from hf_accel.tasks.texts import TEXTS


def notebook_text(recipe: Recipe, data_name: str, needs_package: bool, local_data: bool, has_examples: bool) -> str:
    """The notebook of a run as JSON (format 4.5), cells not yet executed.

    Args:
        data_name: the name of the data set, as others can find it.
        needs_package: the model loads only after `import hf_accel.cifar_nets`.
        local_data: the data set is a folder that the reader has to bring.
        has_examples: test images lie in `examples/` next to the model.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_accel.hub"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = TEXTS[recipe.model.task].notebook
    assert template is not None, "of a task without a notebook none is written"
    text = templates.get_template(template).render(
        title=run_title(recipe.model.name, data_name, 0),
        data=json.dumps(data_name, ensure_ascii=False),  # a string literal of Python, too
        data_flags=_data_flags(recipe),
        needs_package=needs_package,
        local_data=local_data,
        has_examples=has_examples,
    )
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    return json.dumps({"cells": _cells(text), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def _cells(text: str) -> list[dict[str, Any]]:
    """The cells of a text in Jupytext's percent format."""
    parts = re.split(r"^# %%( \[markdown\])?\n", text, flags=re.MULTILINE)[1:]  # kind, source, kind, source...
    cells: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        code: dict[str, Any] = {} if kind else {"execution_count": None, "outputs": []}
        lines = source.rstrip("\n").splitlines(keepends=True)
        cell_type = "markdown" if kind else "code"
        cells.append({"cell_type": cell_type, "id": f"cell-{number}", "metadata": {}, **code, "source": lines})
    return cells


def _data_flags(recipe: Recipe) -> str:
    """The flags that decide which rows are the test rows, and how they are scored; defaults are left out."""
    names = ("config", "revision", "image_column", "label_column", "max_test_rows", "test_time_augmentation")
    values = {name: getattr(recipe.data, name) for name in names}
    given = {name: value for name, value in values.items() if value != getattr(DataSettings, name)}
    return "".join(f" --data.{name} {shlex.quote(str(value))}" for name, value in given.items())
