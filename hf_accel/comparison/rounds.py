"""The rounds of a comparison: every entry once, in turn, until the noise allows a verdict."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from hf_accel import terminal

if TYPE_CHECKING:
    from tqdm import tqdm


def measure(plan: Any) -> dict[str, list[Any]]:
    """Do every run that is missing, round by round, until there are enough rounds.

    Args:
        plan: a `comparison.plan.Plan`.
    Returns:
        Name of the entry -> its runs, a `RunOutcome` each, failed ones included.
    """
    from hf_accel.comparison.runs import do_run, reusable_run
    from hf_accel.measure.paired import PILOT_ROUNDS

    signal.signal(signal.SIGTERM, _interrupt)  # so that the run in progress is ended, too
    runs: dict[str, list[Any]] = {entry.name: [] for entry in plan.entries}
    number, rounds = 0, plan.repeats or PILOT_ROUNDS
    with terminal.bar(rounds * len(plan.round(0)), "compare", "run", delay=0) as bar:
        while number < rounds:
            for planned in plan.round(number):
                own = runs[planned.entry.name]
                where = f"{planned.entry.name}, round {number + 1} of {rounds}"
                bar.set_postfix_str(where)
                if not own or any(run.error is None for run in own):  # an entry that always failed is not tried again
                    own.append(reusable_run(planned, plan.data_fingerprint) or do_run(planned, bar.refresh))
                    _tell(bar, where, own[-1].error)
                bar.update()
            number += 1
            if plan.repeats is None and number == PILOT_ROUNDS:
                rounds = rounds_for_noise(plan, runs)
                bar.total = rounds * len(plan.round(0))
    return runs


def rounds_for_noise(plan: Any, runs: dict[str, list[Any]]) -> int:
    """The number of rounds that the noise of the first ones calls for."""
    from hf_accel.comparison.table import build_comparison
    from hf_accel.measure.paired import PILOT_ROUNDS, rounds_needed

    seen = build_comparison(plan.entries, runs, plan.baseline)
    if seen.noise is None:
        return PILOT_ROUNDS
    return rounds_needed(round(seen.noise, 3), sum(row.speed is not None for row in seen.rows))


def _tell(bar: tqdm, where: str, error: str | None) -> None:
    """A failure, above the bar; where there is no bar, a line for each run."""
    with terminal.above_bars():
        if error:
            terminal.warn(f"{where} failed: {error}")
        elif bar.disable:
            terminal.say(f"{where}: finished")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
