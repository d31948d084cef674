"""Run a notebook of this folder from top to bottom and keep what it shows: `python notebooks/execute.py quickstart.ipynb`.

The commands run in a temporary folder. Of a progress bar only its last state is kept, as on a screen, and nothing of
stderr, where libraries warn about the machine that they run on.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def execute(path: Path) -> None:
    """Run the notebook, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=3600, record_timing=False, resources=resources).execute()
    keep_what_is_seen(notebook)
    nbformat.write(notebook, path)


def keep_what_is_seen(notebook: nbformat.NotebookNode) -> None:
    """Join what a cell printed, as a screen would show it at the end."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        streams = [output for output in cell.outputs if output.output_type == "stream"]
        printed = as_on_screen("".join(output.text for output in streams if output.name == "stdout"))
        shown = [output for output in cell.outputs if output.output_type != "stream"]
        cell.outputs = ([nbformat.v4.new_output("stream", text=printed)] if printed else []) + shown


def as_on_screen(text: str) -> str:
    r"""A text after its carriage returns have done their work.

    >>> as_on_screen("train:  50%\rtrain: 100%\ndone\n")
    'train: 100%\ndone\n'
    """
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    last = [next((part for part in reversed(line.split("\r")) if part.strip()), "").rstrip() for line in lines]
    return "\n".join(last)


if __name__ == "__main__":
    execute(HERE / sys.argv[1])
