"""docs/arguments.md: what becomes of each argument of TrainingArguments. `hf-accel recipe arguments`."""

from __future__ import annotations

from typing import Any

from hf_accel.config.training import (
    CPU_THREADS,
    DEFAULTS,
    EARLY_STOPPING,
    FIXED,
    KEEP_FREED_MEMORY,
    MAPPINGS,
    ON_NAN,
    OWN_METHODS,
    training_types,
)
from hf_accel.training.supported import EFFECT, NEEDS, REFUSED

OWN = (*EARLY_STOPPING, *OWN_METHODS, *MAPPINGS, KEEP_FREED_MEMORY, CPU_THREADS, ON_NAN)
INTRODUCTION = """\
# Arguments of TrainingArguments

Made by `hf-accel recipe arguments` from the tables that check them; do not edit it by hand.

Every argument of TrainingArguments of the installed transformers is a flag of `hf-accel train` and a key of `training:` in a
recipe, under its own name. It has an effect, or it is refused before anything is written: an argument that is accepted and
does nothing misleads. An argument of a later transformers that is not in this table fails a test.

The tests are in `tests/training/test_arguments.py`. Refusals:
`test_an_argument_that_cannot_be_honoured_is_refused_and_its_default_is_not`. Arguments that need another one:
`test_an_argument_without_the_one_it_belongs_to_is_refused`. All others:
`test_an_argument_reaches_the_trainer_with_the_value_that_was_asked_for`, and
`test_every_argument_either_has_an_effect_or_is_refused_with_a_reason`.
"""


def arguments_reference() -> str:
    """The text of docs/arguments.md."""
    upstream = [name for name in training_types() if name not in OWN]
    return "\n".join(
        [
            INTRODUCTION,
            f"{len(upstream)} arguments, in the order of TrainingArguments:\n",
            _table(upstream),
            "Added by this package:\n",
            _table(list(OWN)),
        ]
    )


def what_happens() -> dict[str, str]:
    """Argument of TrainingArguments -> what it does here, or why it is refused."""
    return {name: _what_happens(name) for name in training_types()}


def _table(names: list[str]) -> str:
    rows = [f"| `{name}` | {_what_happens(name)} |" for name in names]
    return "\n".join(["| argument | what happens |", "|---|---|", *rows]) + "\n"


def _what_happens(name: str) -> str:
    if name in REFUSED:
        rule = REFUSED[name]
        return f"refused unless it is {' or '.join(_shown(value) for value in rule.allowed)}: {rule.reason}"
    if name in NEEDS:
        others = " or ".join(f"`{other}`" for other in NEEDS[name][1])
        return f"passed to the Trainer together with {others}; refused without, because it would have no effect"
    if name in FIXED and name != "push_to_hub":
        value, why = FIXED[name]
        return f"{EFFECT[name]}: {_shown(value)} ({why})"
    if name in DEFAULTS:
        value, why = DEFAULTS[name]
        return f"{EFFECT[name]}: {_shown(value)} ({why})"
    return EFFECT[name]


def _shown(value: Any) -> str:
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"
