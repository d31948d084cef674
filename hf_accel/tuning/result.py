"""The result of `tune` as data: what was tried, what is proposed, and what a whole run then costs. `tune.json` is this."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hf_accel.report.documents import load_document
from hf_accel.tuning.estimate import Expected

SCHEMA = 1


@dataclass(kw_only=True)
class Tried:
    """What became of a technique; see `search.Verdict`.

    Attributes:
        settings: the patch on the recipe.
        changes: what of the training result it changes; None: nothing.
    """

    name: str
    axis: str
    settings: dict[str, Any]
    why: str
    changes: str | None
    word: str
    reason: str
    gain: float | None
    contribution: float | None


@dataclass(kw_only=True)
class Ratio:
    """Cost of the recipe over the cost of the tuned recipe, over pairs of runs, with its 95 % interval."""

    ratio: float
    low: float | None
    high: float | None
    pairs: int
    verdict: str


@dataclass(kw_only=True)
class Tuning:
    """One search.

    Attributes:
        objective: time, memory or cost.
        patch: the settings that are proposed; empty: the recipe stays as it is.
        accepted: the techniques of the search, whether confirmed or not.
        confirmed: None: there was nothing to confirm, or no time for it; `notes` says which.
        images_per_second: "recipe" and "tuned" -> mean of the confirmed runs.
        before, after: the expected whole run of the recipe, and of the tuned recipe.
        available_gib: memory of the device, or of this machine where it trains on the CPU.
        accuracy_difference: of the test rows after the confirmed steps, in fractions, with its interval; only where an
            accepted technique changes the result.
        budget_seconds, spent_seconds: asked for, and taken by trials and runs.
        stopped: the budget ended before the search did.
    """

    schema: int = SCHEMA
    recipe: str
    variant: str
    model: str
    objective: str
    allowed: list[str]
    environment: dict[str, Any]
    facts: dict[str, Any]
    budget_seconds: float
    spent_seconds: float
    trials: int
    stopped: bool
    techniques: list[Tried] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    patch: dict[str, Any] = field(default_factory=dict)
    confirmed: Ratio | None = None
    images_per_second: dict[str, float | None] = field(default_factory=dict)
    accuracy_difference: list[float | None] | None = None
    before: Expected | None = None
    after: Expected | None = None
    available_gib: float | None = None
    price_per_hour: float | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        for name, expected in (("before", self.before), ("after", self.after)):
            if expected is not None:
                values[name] |= {"seconds": expected.seconds, "training_seconds": expected.training_seconds}
                if self.price_per_hour is not None:
                    values[name]["price"] = expected.price(self.price_per_hour)
        return values

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a `tune.json`, or the one in a folder.

        Raises:
            UserError: there is no such file, it is damaged, or another version wrote it.
        """
        values = load_document(path, "tune.json", SCHEMA, "search", "Tune again")
        parts = [part.name for part in dataclasses.fields(Expected)]
        for name in ("before", "after"):
            if values[name] is not None:
                values[name] = Expected(**{part: values[name][part] for part in parts})
        values["confirmed"] = Ratio(**values["confirmed"]) if values["confirmed"] else None
        values["techniques"] = [Tried(**one) for one in values["techniques"]]
        return cls(**values)
