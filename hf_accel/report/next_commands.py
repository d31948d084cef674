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


def next_commands(
    folder: str | Path, sample: str | Path | None = None, task: str = "image-classification"
) -> list[NextCommand]:
    """The commands for a finished run, those that most people want first.

    Args:
        folder: the folder of the run, as the reader's shell would find it.
        sample: a file to classify; the task's own stands for the reader's, and for a name that would act on the terminal.
        task: `model.task` of the run.

    >>> print(next_commands("outputs/my photos")[0].command)
    hf-accel predict 'outputs/my photos' photo.jpg
    """
    words = TEXTS[task]
    usable = sample is not None and str(sample).isprintable()
    place, what = _word(folder), _word(sample if usable and sample is not None else words.sample)
    other = f"hf-accel evaluate {place} --data.name {words.other_data}"
    return [
        NextCommand(words.predicts, f"hf-accel predict {place} {what}"),
        NextCommand("try the model in a browser", f"hf-accel demo {place}"),
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
