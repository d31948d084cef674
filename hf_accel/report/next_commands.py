"""What can be done with a finished run: the same commands at the end of `hf-accel train`, and on the page of the run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from hf_accel.tasks.texts import TEXTS


@dataclass(frozen=True)
class NextCommand:
    purpose: str  # "classify images"
    command: str  # ready to be copied into a shell


A_PHOTO = "photo.jpg"


def next_commands(
    folder: str | Path, image: str | Path = A_PHOTO, task: str = "image-classification"
) -> list[NextCommand]:
    """The commands for a finished run, those that most people want first.

    Args:
        folder: the folder of the run, as the reader's shell would find it.
        image: a file to classify; the default stands for the reader's own, and for a name that would act on the terminal.
        task: `model.task` of the run; texts are neither predicted nor shown in the demo.

    >>> print(next_commands("outputs/my photos")[0].command)
    hf-accel predict 'outputs/my photos' photo.jpg
    """
    place, file = _word(folder), _word(image if str(image).isprintable() else A_PHOTO)
    words = TEXTS[task]
    of_images = [
        NextCommand("classify images: files, folders or globs", f"hf-accel predict {place} {file}"),
        NextCommand("try the model in a browser", f"hf-accel demo {place}"),
    ]
    other = f"hf-accel evaluate {place} --data.name {words.other_data}"
    return [
        *(of_images if words.unit == "image" else ()),
        NextCommand("upload model, card and report to the Hub", f"hf-accel push {place}"),
        NextCommand(f"score the model on other {words.unit}s", other),
    ]


def _word(path: str | Path) -> str:
    """A path as a word of a shell command, which no command takes for a flag."""
    word = shlex.quote(str(path))
    return f"./{word}" if word.startswith("-") else word


def place_below(folder: str | Path) -> Path | None:
    """The folder relative to the current one, which is shorter and tells nothing about this machine.

    Returns:
        None for a folder that does not lie below the current one.
    """
    whole, here = Path(folder).absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else None
