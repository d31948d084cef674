"""Results that `train --tune auto` finds again: one file per recipe, machine and versions, in the user's folder of caches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_accel.files import cache_folder, write_whole

SCHEMA = 1


@dataclass(frozen=True)
class Stored:
    """What was found.

    Attributes:
        patch: empty: the recipe is the fastest that was found.
        summary: the first sentence of the result.
    """

    patch: dict[str, Any]
    summary: str


def place_of(key: str) -> Path:
    return cache_folder(None) / "tuned" / f"{key}.json"


def store(key: str, result: Stored) -> None:
    """Keep a result; one that cannot be written is not kept, because nothing depends on it."""
    path = place_of(key)
    values = {"schema": SCHEMA, "patch": result.patch, "summary": result.summary}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(values, indent=2) + "\n")
    except OSError:
        return


def find(key: str) -> Stored | None:
    """The result of this key; None where there is none, or where it cannot be read."""
    try:
        values = json.loads(place_of(key).read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            return None
        return Stored(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
