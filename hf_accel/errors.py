"""The exceptions that the commands print as one message, and end with exit code 2, 1 or 130."""

import difflib
from typing import Any


class UserError(ValueError):
    """The input is wrong and the message says where, what was got, what was expected and how to fix it."""


class RunError(RuntimeError):
    """A run failed, on every process; the message says where, why, what is kept and what to try."""


class Interrupted(KeyboardInterrupt):
    """^C ended a command (exit code 130); the message says what is kept and how to continue."""


def did_you_mean(name: str, known: list[str] | dict[str, Any]) -> str:
    """The sentence that ends a message about an unknown name."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(sorted(known))}." if len(known) <= 30 else "No name is close to it."
