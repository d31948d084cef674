"""Measures sets of techniques for the search: trials within a budget, kept in a record, judged by their loss."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.tuning.band import outside
from hf_accel.tuning.candidates import Candidates
from hf_accel.tuning.estimate import Expected, expected_run
from hf_accel.tuning.record import Record
from hf_accel.tuning.search import Outcome, OutOfBudgetError
from hf_accel.tuning.space import OTHER_IMAGES, Facts, Pace, Technique
from hf_accel.tuning.trials import RUNGS, Rung, Trial, run_trial

REFERENCE = "fp32_reference"
LIMIT_FACTOR, LEAST_LIMIT = 6.0, 60.0  # times the first trial, and seconds: a trial that takes longer hangs
COMPILE_LIMIT, COMPILE_SHARE = 240.0, 0.3  # seconds more, for a compiler; of the budget at most


@dataclass
class TrialBench:
    """A `Bench` of trials in processes of their own.

    Args:
        candidates: the recipe.
        record: of the trials that were done.
        folder: for the files of a trial, which are deleted after it.
        budget: seconds that all trials may take together.
        objective: memory: the cost is the peak of memory; time and cost: seconds of the whole run.
        forked: see `runs.forked`.
        run: does a trial.
        tell: is told of each trial that was done, and of the techniques.
    """

    candidates: Candidates
    record: Record
    folder: Path
    budget: float
    objective: str = "time"
    forked: bool = False
    run: Callable[..., Trial] = run_trial
    tell: Callable[[Trial], None] = lambda trial: None
    _facts: Facts | None = field(default=None, init=False)
    _reference: tuple[float, ...] = field(default=(), init=False)
    _used: dict[int, Trial] = field(default_factory=dict, init=False)  # by id: a trial counts once

    def begin(self) -> Trial:
        """The first trial, of the recipe itself, and the losses of the reference.

        Raises:
            UserError: the recipe cannot run.
        """
        first = self._trial((), 0, 0, self.candidates.plain, RUNGS[0], learns_facts=True)
        if first.error is not None or first.facts is None:
            raise UserError(f"{self.candidates.plain.name}: a trial of the recipe as it stands failed: {first.error}")
        self._facts = Facts(**first.facts)
        self._reference = first.losses
        reference = self.candidates.reference(self._facts.mixed_precision)
        if reference is not None:
            trial = self._trial((REFERENCE,), 0, 0, reference, Rung(0.0, 0))
            if trial.error is None and trial.losses:
                self._reference = trial.losses
        return first

    @property
    def facts(self) -> Facts:
        assert self._facts is not None, "begin comes first"
        return self._facts

    @property
    def first(self) -> Trial:
        found = self.record.find((), 0, 0)
        assert found is not None, "begin comes first"
        return found

    def pace(self) -> Pace:
        """What the first trial says of the recipe's speed."""
        expected = self.expected(self.candidates.plain, self.first)
        if expected is None:
            raise UserError(f"{self.candidates.plain.name}: the first trial was too short to be measured")
        return Pace(expected.seconds, self.first.data_wait_fraction)

    def measure(self, techniques: tuple[Technique, ...], rung: int, number: int) -> Outcome:
        """See `Bench`."""
        try:
            recipe = self.candidates.recipe(techniques)
        except UserError as error:
            return Outcome(None, f"the recipe cannot have it: {' '.join(str(error).split())}")
        names = tuple(technique.name for technique in techniques)
        trial = self._trial(names, rung, number, recipe, RUNGS[rung])
        has_other_images = any(technique.changes in OTHER_IMAGES for technique in techniques)
        reason = trial.error or trial.compile_failure or self._leaves_band(trial, has_other_images)
        expected = self.expected(recipe, trial)
        if techniques and reason is not None:
            return Outcome(None, reason)
        if expected is None:
            return Outcome(None, reason or "it was too short to be measured")
        return Outcome(expected.peak_gib if self.objective == "memory" else expected.training_seconds)

    def left(self) -> float:
        """See `Bench`."""
        return max(0.0, 1 - self.seconds / self.budget)

    @property
    def seconds(self) -> float:
        """What the trials of this search have taken, whenever they were done: a search that is repeated decides alike."""
        return sum(trial.wall_seconds for trial in self._used.values())

    @property
    def num_trials(self) -> int:
        return len(self._used)

    def expected(self, recipe: Recipe, trial: Trial) -> Expected | None:
        """The whole run that a trial foretells."""
        scoring = trial.scoring_seconds_per_row or self.first.scoring_seconds_per_row
        return expected_run(recipe, self.facts, replace(trial, scoring_seconds_per_row=scoring))

    def trials_of(self, techniques: tuple[Technique, ...]) -> list[Trial]:
        """The finished trials of these techniques, longest first."""
        names = tuple(technique.name for technique in techniques)
        found = [trial for trial in self.record.trials.values() if trial.techniques == names and trial.error is None]
        return sorted(found, key=lambda trial: -trial.rung)

    def own_deviation(self) -> str | None:
        """Why the losses of the recipe itself are not those of fp32; None: they are."""
        return self._leaves_band(self.first)

    def typical_seconds(self, rung: int = 0) -> float:
        """How long a trial takes, from those of this search that finished."""
        walls = [trial.wall_seconds - RUNGS[trial.rung].seconds for trial in self._used.values() if trial.error is None]
        return (statistics.median(walls) if walls else LEAST_LIMIT / 2) + RUNGS[rung].seconds

    def _leaves_band(self, trial: Trial, has_other_images: bool = False) -> str | None:
        """Why a trial is rejected; on other images than the recipe's, its losses only need to be finite."""
        return outside(trial.losses, trial.losses if has_other_images else self._reference, self.facts.dropout)

    def _trial(
        self, names: tuple[str, ...], rung: int, number: int, recipe: Recipe, length: Rung, learns_facts: bool = False
    ) -> Trial:
        known = self.record.find(names, rung, number)
        if known is None:
            known = self._new_trial(names, rung, number, recipe, length, learns_facts)
        self._used[id(known)] = known
        return known

    def _new_trial(
        self, names: tuple[str, ...], rung: int, number: int, recipe: Recipe, length: Rung, learns_facts: bool
    ) -> Trial:
        left = self.budget - self.seconds
        if self._used and left < self.typical_seconds(rung):
            raise OutOfBudgetError
        folder = self.folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        limit = self._limit(recipe.training, left)
        trial = self.run(recipe, folder, length, limit, learns_facts, self.forked)
        trial = replace(trial, techniques=names, rung=rung, number=number)
        if trial.error is None or self._used:  # without the first trial there is no search: it is done again
            self.record.add(trial)
        self.tell(trial)
        shutil.rmtree(folder, ignore_errors=True)
        return trial

    def _limit(self, training: dict[str, Any], left: float) -> float:
        """Seconds after which a trial counts as hanging; the first one may take the whole budget."""
        first = self.record.find((), 0, 0)
        if first is None:
            return max(LEAST_LIMIT, left)
        limit = max(LEAST_LIMIT, LIMIT_FACTOR * first.wall_seconds)
        if training.get("torch_compile"):
            limit = min(limit + COMPILE_LIMIT, max(limit, COMPILE_SHARE * self.budget))
        return max(LEAST_LIMIT / 2, min(limit, left))
