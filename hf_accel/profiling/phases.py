"""The phases of a profiled run, in the order of a run; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

When = Literal["once", "step", "between", "inference"]


@dataclass(frozen=True)
class Phase:
    """
    Attributes:
        what: what happens in it, for a table.
        when: once per run, in each step, between steps, or only in a profile.
    """

    name: str
    what: str
    when: When


PHASES = {
    phase.name: phase
    for phase in (
        Phase("start", "start of Python, imports", "once"),
        Phase("prepare", "open the data (download it if it is not there), load the model, build the Trainer", "once"),
        Phase("decode", "decode and preprocess, or tokenise", "step"),
        Phase("load", "wait for a batch and assemble it", "step"),
        Phase("copy", "copy the batch to the device", "step"),
        Phase("transform", "augmentation and normalisation of the batch", "step"),
        Phase("forward", "forward pass and loss", "step"),
        Phase("backward", "backward pass", "step"),
        Phase("optimizer", "clipping, optimizer, schedule, methods after the step", "step"),
        Phase("evaluation", "evaluation of the validation rows", "between"),
        Phase("checkpoint", "checkpoints, with their checksums", "between"),
        Phase("reload", "the best checkpoint is loaded at the end", "once"),
        Phase("inference_one", "inference, one row", "inference"),
        Phase("inference_many", "inference, a large batch", "inference"),
    )
}
UNACCOUNTED = "unaccounted"  # the Trainer's loop, callbacks and logging: what no phase claims
MEASURING = "measuring"  # steps without timers, operators one by one, matrix peak: left out of the run
INPUT = ("decode", "load", "copy", "transform")
NETWORK = ("forward", "backward")
# A phase in which others begin is charged with them, too: an evaluation loads batches and runs the network.
WHOLE = ("evaluation", "checkpoint", "reload", "inference_one", "inference_many", MEASURING)


def title(name: str) -> str:
    """The name of a phase for people: 'inference_one' -> 'inference, one row'."""
    return PHASES[name].what if name.startswith("inference") else name


def of_step() -> list[str]:
    """The phases that a step consists of, and the rest of it."""
    return [name for name, phase in PHASES.items() if phase.when == "step"] + [UNACCOUNTED]
