"""How fast several forward passes are, in turns: what the machine does meanwhile meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

ROUNDS = 5
Name = TypeVar("Name")
WARM_UP = 2  # untimed passes of each, before the first round


@dataclass(frozen=True)
class Turns:
    """The seconds of the passes of one contestant, round by round."""

    rounds: list[list[float]]

    @property
    def medians(self) -> list[float]:
        """(rounds,) of each round."""
        return [statistics.median(seconds) for seconds in self.rounds]

    @property
    def passes(self) -> int:
        return sum(map(len, self.rounds))

    def percentile(self, percent: float) -> float:
        """Of all passes together."""
        return float(np.percentile(np.concatenate(self.rounds), percent))


def take_turns(
    passes: dict[Name, Callable[[], object]], seconds: float, most: int, tick: Callable[[], object] = lambda: None
) -> dict[Name, Turns]:
    """Time each of these in every round; each round begins with another one.

    Args:
        passes: name -> one forward pass.
        seconds: that a turn may take; it has at least one pass.
        most: passes in a turn.
        tick: called after each turn.
    """
    for run in passes.values():
        for _ in range(WARM_UP):
            run()
    names = list(passes)
    found: dict[Name, list[list[float]]] = {name: [] for name in names}
    for number in range(ROUNDS):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(timed(passes[name], seconds, most))
            tick()
    return {name: Turns(turns) for name, turns in found.items()}


def timed(run: Callable[[], object], seconds: float, most: int) -> list[float]:
    """Seconds of each call, until there are `most` or the budget of seconds is spent; at least one."""
    found: list[float] = []
    while not found or (len(found) < most and sum(found) < seconds):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found
