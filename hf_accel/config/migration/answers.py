"""The answer to flags that are not settings here: what to write instead, all of them in one message."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hf_accel.config.migration.counterparts import ALONE, Counterpart, dashed, same_name
from hf_accel.config.migration.from_fastai import FASTAI
from hf_accel.config.migration.from_hf_example import HF_EXAMPLE
from hf_accel.config.migration.from_others import OTHERS
from hf_accel.config.migration.from_timm import TIMM
from hf_accel.config.migration.from_ultralytics import ULTRALYTICS
from hf_accel.config.schema import known_settings, section_schema
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import training_types
from hf_accel.errors import did_you_mean

TOOLS: dict[str, tuple[Counterpart, ...]] = {
    "timm": TIMM,
    "the Hugging Face example": HF_EXAMPLE,
    "Ultralytics": ULTRALYTICS,
    "fastai": FASTAI,
    "other scripts": OTHERS,
}
SEE = "`hf-accel recipe migrate` prints the flags of timm, the Hugging Face example, Ultralytics and fastai."


def answer_to(flags: dict[str, str]) -> str:
    """The message about flags that are neither arguments of TrainingArguments nor settings.

    Args:
        flags: name without dashes -> value, as on the command line; at least one.
    """
    answers = {name: _answer(name, text) for name, text in flags.items()}
    lines = [f"{_shown(name, text)}: {answers[name][0]}" for name, text in flags.items()]
    known = [flag for _, flag in answers.values() if flag]
    together = [f"Together: {' '.join(dict.fromkeys(known))}"] if len(known) > 1 else []
    see = [SEE] if any(_rows(name) for name in flags) else []
    if len(lines) == 1:
        name = next(iter(flags))
        return " ".join(
            [f"{_dashed(name)}: not an argument of TrainingArguments or a setting.", *answers[name][:1], *see]
        )
    head = f"{len(lines)} flags are not arguments of TrainingArguments or settings:"
    return "\n".join([head, *(f"  {line}" for line in lines), *together, *see])


def _answer(name: str, text: str) -> tuple[str, str]:
    """A sentence or two about one flag, and the flags that replace it, empty if there are none."""
    found = _rows(name)
    if not found:
        own = [f"--{setting} {shlex.quote(text)}" for setting in _own_settings(name)]
        return f"Write {' or '.join(own)}." if own else _near(name), own[0] if len(own) == 1 else ""
    found = {tool: row for tool, row in found.items() if row.answer(text)} or found
    if len({row.answer(text) for row in found.values()}) == 1:
        row = next(iter(found.values()))
        return _sentence(row, text), row.answer(text)
    by_answer: dict[str, list[str]] = {}
    for tool, row in found.items():
        by_answer.setdefault(row.answer(text), []).append(tool)
    words = [f"As in {' and '.join(tools)}: {_sentence(found[tools[0]], text)}" for tools in by_answer.values()]
    return " ".join(words), next((row.answer(text) for row in found.values() if row.answer(text)), "")


def _sentence(row: Counterpart, text: str) -> str:
    ours = row.answer(text)
    if not ours:
        return f"No counterpart here: {row.note}." if row.note else "This value has no counterpart here."
    return f"Write {ours}" + (f" ({row.note})." if row.note else ".")


def _rows(name: str) -> dict[str, Counterpart]:
    """Tool -> its row for a flag; names that every script has only if none of the tools has it."""
    wanted = same_name(name)
    found = {
        tool: row
        for tool, rows in TOOLS.items()
        for row in reversed(rows)  # of two rows, the first one stays
        if wanted in map(same_name, row.names)
    }
    return {tool: row for tool, row in found.items() if tool != "other scripts" or len(found) == 1}


def _near(name: str) -> str:
    return did_you_mean(name, dict.fromkeys([*training_types(), *_dotted_settings()]))


def _own_settings(name: str) -> list[str]:
    """Dotted settings that end in a name: `class_weights` is data.class_weights."""
    return [setting for setting in _dotted_settings() if setting.rpartition(".")[2] == same_name(name)]


def _dotted_settings() -> Iterator[str]:
    for section in SECTIONS:
        settings = known_settings(section_schema(section))
        yield from (f"{section}.{name}" for name in settings)
        yield from (f"{section}.{name}.{inner}" for name in settings for inner in known_settings(settings[name]))


def _dashed(name: str) -> str:
    """A flag as its tool writes it: `--train-split`, `-b`."""
    spelled = [theirs for row in _rows(name).values() for theirs in row.names if theirs.replace("-", "_") == name]
    return dashed(spelled[0] if spelled else name)


def _shown(name: str, text: str) -> str:
    return _dashed(name) if text == ALONE else f"{_dashed(name)} {shlex.quote(text)}"
