"""The whole of `tune`: first trial, search, confirmation, result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_accel.comparison.runs import Machine
from hf_accel.files import write_whole
from hf_accel.runs.forked import can_fork
from hf_accel.tuning.bench import TrialBench
from hf_accel.tuning.candidates import Candidates, patch_of, recipe_key
from hf_accel.tuning.confirm import FEWEST_ROUNDS, MOST_ROUNDS, RECIPE, TUNED, Confirmed, confirm, seconds_of_a_run
from hf_accel.tuning.estimate import Expected
from hf_accel.tuning.page import write_tuning_page
from hf_accel.tuning.record import Record
from hf_accel.tuning.result import Ratio, Tried, Tuning
from hf_accel.tuning.search import Search
from hf_accel.tuning.space import LeftOut, Technique, techniques
from hf_accel.tuning.text import markdown
from hf_accel.tuning.trials import Trial

RECORD, CONFIRMATION = "trials.jsonl", "confirmation"
RESERVE = 0.5  # of the budget at most, which is kept for the confirmation


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        folder: where trials, runs and the result are kept.
        budget: seconds for all of them.
        allowed: keys of `space.CHANGES`.
    """

    candidates: Candidates
    folder: Path
    budget: float
    objective: str = "time"
    allowed: tuple[str, ...] = ()
    price_per_hour: float | None = None


class Engine:
    """Runs a request, step by step.

    Args:
        machine: this one.
        tell: is told of each trial.
    """

    def __init__(self, request: Request, machine: Machine, tell: Callable[[Trial], None] = lambda trial: None) -> None:
        self.request, self.machine = request, machine
        self.key = recipe_key(request.candidates.plain, machine.environment)
        record = Record(request.folder / RECORD, self.key)
        self.bench = TrialBench(
            request.candidates,
            record,
            request.folder,
            request.budget,
            request.objective,
            can_fork(machine.environment.get("device")),
            tell=tell,
        )
        self.techniques: list[Technique] = []
        self.left_out: list[LeftOut] = []

    def begin(self) -> Expected:
        """The first trial; afterwards it is known which techniques apply. Returns the expected run of the recipe.

        Raises:
            UserError: the recipe cannot run.
        """
        first = self.bench.begin()
        expected = self.bench.expected(self.request.candidates.plain, first)
        self.techniques, self.left_out = techniques(
            self.request.candidates.plain,
            self.bench.facts,
            self.bench.pace(),
            self.request.objective,
            self.request.allowed,
        )
        assert expected is not None, "pace() has refused this"
        return expected

    @property
    def confirmed_run_seconds(self) -> float:
        first = self.bench.first
        return seconds_of_a_run(first.step_seconds or 0.0, self.bench.typical_seconds())

    def finish(self) -> Tuning:
        """Search, confirm, and write the result into the folder.

        Raises:
            UserError: the recipe cannot run.
        """
        self.begin()
        request, bench = self.request, self.bench
        reserve = min(RESERVE * request.budget, 2 * FEWEST_ROUNDS * self.confirmed_run_seconds)
        bench.budget = request.budget - reserve
        search = Search(bench, self.techniques)
        search.run()
        confirmed = self._confirm(search.best) if search.best else None
        tuning = self._result(search, confirmed)
        write_whole(request.folder / "tune.json", json.dumps(tuning.to_dict(), indent=2) + "\n")
        write_whole(request.folder / "tune.md", markdown(tuning))
        write_tuning_page(request.folder)
        return tuning

    def _confirm(self, best: tuple[Technique, ...]) -> Confirmed | None:
        """None: there is no time for it, or no pair of runs finished."""
        left = self.request.budget - self.bench.seconds
        rounds = min(MOST_ROUNDS, int(left / (2 * self.confirmed_run_seconds)))
        if rounds < FEWEST_ROUNDS:
            return None
        candidates = self.request.candidates
        return confirm(
            candidates.plain,
            candidates.recipe(best),
            self.bench.facts,
            self.bench.first.step_seconds or 0.0,
            self.request.folder / CONFIRMATION,
            self.machine,
            rounds,
            self.request.objective,
        )

    def _result(self, search: Search, confirmed: Confirmed | None) -> Tuning:
        request, bench, plain = self.request, self.bench, self.request.candidates.plain
        is_better = confirmed is not None and confirmed.verdict == "better"
        rates = {} if confirmed is None else _rates(confirmed)
        before, after = (
            self._expected(techniques, rates.get(name), confirmed)
            for name, techniques in ((RECIPE, ()), (TUNED, search.best))
        )
        changes = any(technique.changes for technique in search.best)
        return Tuning(
            recipe=plain.name,
            variant=plain.variant,
            model=plain.model.name,
            objective=request.objective,
            allowed=list(request.allowed),
            environment=self.machine.environment,
            facts=dataclasses.asdict(bench.facts),
            budget_seconds=request.budget,
            spent_seconds=bench.seconds + _run_seconds(confirmed),
            trials=bench.num_trials,
            stopped=search.stopped,
            techniques=_tried(search),
            left_out=[{"name": one.name, "reason": one.reason} for one in self.left_out],
            accepted=[technique.name for technique in search.best],
            patch=patch_of(search.best) if is_better else {},
            confirmed=None if confirmed is None else _ratio(confirmed),
            images_per_second=rates,
            accuracy_difference=_accuracy(confirmed) if changes else None,
            before=before,
            after=after,
            available_gib=self._available_gib(),
            price_per_hour=request.price_per_hour,
            notes=self._notes(search, confirmed),
        )

    def _expected(
        self, best: tuple[Technique, ...], rate: float | None, confirmed: Confirmed | None
    ) -> Expected | None:
        """The whole run, by the longest trial, and at the rate of the confirmed runs where there are some."""
        trials = self.bench.trials_of(best)
        if not trials:
            return None
        trial = trials[0] if rate is None else dataclasses.replace(trials[0], images_per_second=rate)
        expected = self.bench.expected(self.request.candidates.recipe(best), trial)
        if expected is None or confirmed is None:
            return expected
        return dataclasses.replace(expected, start=confirmed.start_seconds)

    def _available_gib(self) -> float | None:
        environment = self.machine.environment
        return environment.get("device_memory_gib") or environment.get("memory_gib")

    def _notes(self, search: Search, confirmed: Confirmed | None) -> list[str]:
        notes = []
        deviates = self.bench.own_deviation()
        if deviates:
            notes.append(f"The recipe itself: {deviates}.")
        if search.best and confirmed is None:
            seconds = 2 * FEWEST_ROUNDS * self.confirmed_run_seconds + self.bench.seconds
            notes.append(
                f"The result was not confirmed: either a run failed, or the budget ended; the confirmation needs --budget "
                f"{max(1, round(seconds / 60 + 0.5))}m."
            )
        if self.request.candidates.plain.data.progressive_resizing is not None:
            notes.append(
                "Trials have images of full size, so the run with progressive resizing is shorter than expected."
            )
        return notes


def _tried(search: Search) -> list[Tried]:
    return [
        Tried(
            name=verdict.technique.name,
            axis=verdict.technique.axis,
            settings=verdict.technique.patch,
            why=verdict.technique.why,
            changes=verdict.technique.changes,
            word=verdict.word,
            reason=verdict.reason,
            gain=verdict.gain,
            contribution=verdict.contribution,
        )
        for verdict in search.verdicts.values()
    ]


def _ratio(confirmed: Confirmed) -> Ratio:
    found = confirmed.ratio
    return Ratio(ratio=found.ratio, low=found.low, high=found.high, pairs=found.num_pairs, verdict=confirmed.verdict)


def _rows(confirmed: Confirmed) -> dict[str, Any]:
    return {row.name: row for row in confirmed.comparison.rows}


def _rates(confirmed: Confirmed) -> dict[str, float | None]:
    rows = _rows(confirmed)
    return {name: rows[name].mean("images_per_second") for name in (RECIPE, TUNED)}


def _accuracy(confirmed: Confirmed | None) -> list[float | None] | None:
    difference = None if confirmed is None else _rows(confirmed)[TUNED].accuracy_difference
    return None if difference is None else list(difference)


def _run_seconds(confirmed: Confirmed | None) -> float:
    """Wall seconds of the runs of the confirmation."""
    return 0.0 if confirmed is None else confirmed.wall_seconds
