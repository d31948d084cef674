"""The search: successive halving over single techniques, then greedy combination against the present best.

It knows nothing of processes and clocks. A bench measures a set of techniques and gives its cost, lower is better: seconds of
the whole run, or GiB. Trials are interleaved with trials of the present best, and a technique is judged by ratios of
neighbours, so that a machine that warms up affects both alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hf_accel.tuning.space import Technique

GAIN = 1.02  # the smallest speed-up that a technique is accepted for
HOPE = 0.97  # a technique this good alone may still pay together with others
CLEAR = 1.15  # a gain that one pair of trials shows on a quiet machine
PAIRS, MOST_PAIRS = 2, 4  # of a technique with the present best, where it is less; on a machine with noise
NOISE = 0.03  # standard deviation of the log cost, up to which a machine is quiet
KEPT = 4  # techniques at least that a halving leaves
FIRST_PAIR = 100
ALONE_UNTIL, HALVING_UNTIL = 0.5, 0.35  # share of the budget that is left for what comes after each


class OutOfBudgetError(Exception):
    """The next trial would not fit in what is left."""


@dataclass(frozen=True)
class Outcome:
    """What a bench found out about a set of techniques.

    Attributes:
        cost: lower is better; None: it failed or was rejected, and `reason` says why.
    """

    cost: float | None
    reason: str | None = None


class Bench(Protocol):
    def measure(self, techniques: tuple[Technique, ...], rung: int, number: int) -> Outcome:
        """Measure the recipe with these techniques.

        Args:
            rung: how long; higher is longer.
            number: tells repeats apart.
        Raises:
            OutOfBudgetError: there is no time for it.
        """

    def left(self) -> float:
        """The share of the budget that is left."""


@dataclass
class Verdict:
    """What became of a technique.

    Attributes:
        word: accepted, no gain, rejected or not tried.
        gain: cost of the recipe without it over the cost with it, as last measured; None: not measured.
        contribution: the same, measured by taking it away from the result; None: not measured.
    """

    technique: Technique
    word: str = "not tried"
    reason: str = ""
    gain: float | None = None
    contribution: float | None = None


@dataclass
class Search:
    """Finds the techniques that lower the cost; `run` may end early, and what is known then is in the attributes.

    Args:
        bench: measures.
        techniques: the most promising first.
    Attributes:
        best: the techniques that are in force.
        stopped: the budget ended before the search did.
    """

    bench: Bench
    techniques: Sequence[Technique]
    best: tuple[Technique, ...] = ()
    stopped: bool = False
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    _base_logs: list[float] = field(default_factory=list)
    _pairs: int = 0  # so far; their numbers tell their trials apart from all others

    def run(self) -> tuple[Technique, ...]:
        """Search until nothing is left to try or the budget ends; returns the best techniques."""
        self.verdicts = {technique.name: Verdict(technique) for technique in self.techniques}
        try:
            standing = self._halve(self._alone())
            tried_with = self._combine(standing)
            # a technique can pay only once another has removed what hid it
            self._combine([one for one in standing if tried_with.get(one, self.best) != self.best])
            self._contributions()
        except OutOfBudgetError:
            self.stopped = True
        for verdict in self.verdicts.values():
            if verdict.word == "not tried":
                what = "" if verdict.gain is None else " it was combined with others"
                verdict.reason = f"the budget ended before{what}"
        return self.best

    def _alone(self) -> list[Technique]:
        """One short trial of each technique on the recipe; returns those that did not fail."""
        base = self._need((), 0, 0)
        standing: list[Technique] = []
        for place, technique in enumerate(self.techniques):
            if standing and self.bench.left() < ALONE_UNTIL:  # what is known already is to be combined
                self.stopped = True
                break
            if place and place % 4 == 0:
                base = self._need((), 0, place // 4)
            if self._judge(technique, base, self.bench.measure((technique,), 0, 0)):
                standing.append(technique)
        return standing

    def _halve(self, standing: list[Technique]) -> list[Technique]:
        """Longer trials of the better half, the best first; returns the techniques in the order of their gain."""
        standing = self._by_gain(standing)
        kept = [one for one in standing if (self.verdicts[one.name].gain or 0) >= HOPE]
        kept = kept[: max(KEPT, math.ceil(len(standing) / 2))]
        for technique in standing:
            if technique not in kept:
                self._end(technique, "no gain")
        for place, technique in enumerate([*kept]):
            if self.bench.left() < HALVING_UNTIL:
                self.stopped = True
                break
            base = self._need((), 1, place)
            if not self._judge(technique, base, self.bench.measure((technique,), 1, 0)):
                kept.remove(technique)
        return self._by_gain(kept)

    def _combine(self, candidates: list[Technique]) -> dict[Technique, tuple[Technique, ...]]:
        """Add each technique that lowers the cost of the best so far; returns the others, with the best of their time."""
        tried_with = {}
        for technique in candidates:
            if technique in self.best:
                continue
            together = (*(one for one in self.best if one.axis != technique.axis), technique)
            gain, reason = self._gain(self.best, together)
            verdict = self.verdicts[technique.name]
            if gain is None:
                verdict.word, verdict.reason = "rejected", reason or ""
                continue
            verdict.gain = gain
            if gain < GAIN:
                tried_with[technique] = self.best
                self._end(technique, "no gain")
                continue
            for replaced in set(self.best) - set(together):
                self._end(replaced, "no gain")
            self.best = together
            verdict.word, verdict.reason = "accepted", technique.why
        return tried_with

    def _contributions(self) -> None:
        """Take each accepted technique away once; one that gives nothing to the others is dropped."""
        if len(self.best) == 1:
            verdict = self.verdicts[self.best[0].name]
            verdict.contribution = verdict.gain
            return
        for technique in [*self.best]:
            rest = tuple(one for one in self.best if one is not technique)
            gain, _ = self._gain(rest, self.best)
            verdict = self.verdicts[technique.name]
            verdict.contribution = gain
            if gain is not None and gain < 1:
                self.best = rest
                self._end(technique, "no gain", "the other techniques do without it")

    def _gain(self, base: tuple[Technique, ...], changed: tuple[Technique, ...]) -> tuple[float | None, str | None]:
        """Cost of `base` over that of `changed`, by interleaved pairs; None and why where the latter fails."""
        logs: list[float] = []
        for number in range(PAIRS if self.noise <= NOISE else MOST_PAIRS):
            self._pairs += 1
            pair = [("base", base), ("changed", changed)]
            costs = {}
            for which, techniques in pair if number % 2 == 0 else pair[::-1]:
                outcome = self.bench.measure(techniques, 1, FIRST_PAIR + self._pairs)
                if outcome.cost is None:
                    return None, outcome.reason
                costs[which] = outcome.cost
            logs.append(math.log(costs["base"] / costs["changed"]))
            if self._is_decided(logs):
                break
        return math.exp(statistics.fmean(logs)), None

    def _is_decided(self, logs: list[float]) -> bool:
        """Whether another pair would change nothing: the mean is further from the thresholds than the noise explains."""
        mean, doubt = statistics.fmean(logs), 2 * self.noise * math.sqrt(2 / len(logs))
        return mean < math.log(GAIN) - doubt or mean > max(math.log(CLEAR), math.log(GAIN) + doubt)

    @property
    def noise(self) -> float:
        """The standard deviation of the log cost of the recipe itself; 0 before it was measured twice."""
        return statistics.stdev(self._base_logs) if len(self._base_logs) > 1 else 0.0

    def _judge(self, technique: Technique, base: float, outcome: Outcome) -> bool:
        """Note what a trial says of a technique; whether it may stay."""
        verdict = self.verdicts[technique.name]
        if outcome.cost is None:
            verdict.word, verdict.reason = "rejected", outcome.reason or ""
            return False
        verdict.gain = base / outcome.cost
        return True

    def _need(self, techniques: tuple[Technique, ...], rung: int, number: int) -> float:
        """The cost of the recipe itself, without which nothing can be judged."""
        outcome = self.bench.measure(techniques, rung, number)
        if outcome.cost is None:
            raise OutOfBudgetError(outcome.reason)
        self._base_logs.append(math.log(outcome.cost))
        return outcome.cost

    def _by_gain(self, techniques: list[Technique]) -> list[Technique]:
        return sorted(techniques, key=lambda one: -(self.verdicts[one.name].gain or 0))

    def _end(self, technique: Technique, word: str, reason: str | None = None) -> None:
        verdict = self.verdicts[technique.name]
        gain = verdict.gain or 0
        slower = "it is worse" if gain < HOPE else "it makes no difference that counts"
        verdict.word, verdict.reason = word, reason or slower
