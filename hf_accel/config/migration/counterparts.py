"""What a flag of another tool is called here: one row of a table, and the conversions of values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

VALUE = "VALUE"  # in a row's `ours`: the place of the value
ALONE = "true"  # what the parser makes of a flag without a value


@dataclass(frozen=True)
class Counterpart:
    """Flags of another tool that have the same answer.

    Args:
        theirs: their names, separated by spaces, as the tool writes them.
        ours: the flags here that do the same, with VALUE where the value goes; empty if there are none.
        example: a value of theirs for the documentation and the tests; none for a switch.
        note: what else to know; without `ours`, what to do instead.
        values: values of theirs with another answer than `ours`; an empty one says that there is none.
        convert: their value -> ours; a ValueError says that it has none.
    """

    theirs: str
    ours: str = ""
    example: str = ""
    note: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    convert: Callable[[str], str] = str

    @property
    def names(self) -> list[str]:
        return self.theirs.split()

    def answer(self, value: str) -> str:
        """The flags here for one value of theirs, to be copied to a shell; empty if there are none.

        >>> Counterpart("lr", "--learning_rate VALUE").answer("1e-3")
        '--learning_rate 1e-3'
        """
        if value == ALONE and value not in self.values:
            value = self.example or value
        template = self.values.get(value.lower(), self.ours)
        if VALUE not in template:
            return template
        try:
            converted = self.convert(value)
        except ValueError:
            return ""
        return template.replace(VALUE, converted if "'" in template else shlex.quote(converted))


def dashed(name: str) -> str:
    """A name as a flag: `--lr`, and the short ones of timm with one dash: `-b`, `-vb`."""
    return f"-{name}" if len(name) == 1 or name == "vb" else f"--{name}"


def same_name(flag: str) -> str:
    """A flag without its dashes and in lower case, as names are compared: `--Batch-Size` is batch_size."""
    return flag.lstrip("-").replace("-", "_").lower()


def two_numbers(text: str) -> str:
    """Two numbers as a list in YAML: `0.08 1.0` or `(0.08, 1.0)` is `[0.08, 1.0]`."""
    first, second = re.findall(r"[\d.eE+-]+", text)
    return f"[{first}, {second}]"


def last_number(text: str) -> str:
    """`3 224 224` is 224."""
    return (re.findall(r"\d+", text) or [text])[-1]


def keyword_arguments(text: str) -> str:
    """`drop_rate=0.1 global_pool=avg` as the inside of a YAML mapping."""
    return ", ".join(": ".join(pair.split("=", 1)) for pair in text.replace(",", " ").split())


def timm_name(text: str) -> str:
    """A model of timm as `model.name` has it: `resnet50` and `hf-hub:timm/resnet50.a1_in1k` begin with `timm/`."""
    name = text.removeprefix("hf-hub:").removeprefix("hf_hub:")
    return name if "/" in name else f"timm/{name}"


def rand_augment(text: str) -> str:
    """timm's `rand-m9-n3-mstd0.5` as the inside of a YAML mapping; its spread of magnitudes has no counterpart."""
    magnitude, operations = (re.search(rf"-{letter}(\d+)", text) for letter in "mn")
    parts = [f"num_ops: {operations[1]}"] if operations else []
    return ", ".join([*parts, *([f"magnitude: {magnitude[1]}"] if magnitude else [])])
