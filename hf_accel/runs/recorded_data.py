"""Which rows a run has: recorded when it opens its folder, and compared before anything relies on them being the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hf_accel.formatting import format_count

if TYPE_CHECKING:
    from hf_accel.data.splits import Splits

ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitFacts:
    """What tells the rows of a split from others."""

    rows: int
    fingerprint: str  # of the images, their order, their labels and the class names


DataFacts = dict[str, SplitFacts]  # by role; a role that has no rows is absent


def facts_of(splits: Splits) -> DataFacts:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {role: SplitFacts(len(part), splits.fingerprints[role]) for role, part in parts.items() if part is not None}


def to_json(facts: DataFacts) -> dict[str, Any]:
    return {role: asdict(split) for role, split in facts.items()}


def from_json(values: Any) -> DataFacts:
    """What `to_json` gave; empty for anything else, as a mark of an earlier version has it."""
    try:
        return {role: SplitFacts(values[role]["rows"], values[role]["fingerprint"]) for role in ROLES if role in values}
    except (TypeError, KeyError):
        return {}


def changes(before: DataFacts, after: DataFacts) -> dict[str, str]:
    """Role -> what changed, in words, of each split that is another one now.

    >>> changes({"train": SplitFacts(24, "a")}, {"train": SplitFacts(26, "b")})
    {'train': '24 rows before, 26 now'}
    """
    changed = {}
    for role in ROLES:
        old, new = before.get(role), after.get(role)
        if old == new:
            continue
        was, has = (format_count(split.rows) if split else "no" for split in (old, new))
        what = f"{was} rows before, {has} now"
        if was == has:
            what = f"{was} rows before and now, but other images, labels or class names"
        changed[role] = what
    return changed
