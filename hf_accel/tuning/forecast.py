"""`tune --dry_run`: the trials that a search would begin with, and how long they take."""

from __future__ import annotations

from typing import Any

from hf_accel.formatting import format_duration
from hf_accel.tables import format_table
from hf_accel.tuning.confirm import FEWEST_ROUNDS
from hf_accel.tuning.engine import Engine


def forecast(engine: Engine) -> dict[str, Any]:
    """What a search would do.

    Returns:
        JSON types: trials (name, settings, why), left_out (name, reason), seconds_of_a_trial, seconds_of_the_confirmation,
        budget_seconds, expected_seconds (of the whole run).
    """
    expected = engine.begin()
    trials = [{"name": one.name, "settings": one.patch, "why": one.why} for one in engine.techniques]
    return {
        "trials": trials,
        "left_out": [{"name": one.name, "reason": one.reason} for one in engine.left_out],
        "seconds_of_a_trial": engine.bench.typical_seconds(),
        "seconds_of_the_confirmation": 2 * FEWEST_ROUNDS * engine.confirmed_run_seconds,
        "budget_seconds": engine.request.budget,
        "expected_seconds": expected.seconds,
    }


def describe(plan: dict[str, Any]) -> str:
    """What `forecast` says, as text."""
    rows = [(one["name"], one["why"]) for one in plan["trials"]]
    rows += [(one["name"], f"left out: {one['reason']}") for one in plan["left_out"]]
    alone = len(plan["trials"]) * plan["seconds_of_a_trial"]
    return "\n".join(
        [
            f"{len(plan['trials'])} techniques",
            format_table((), rows, align="ll", indent=2),
            f"one trial of each: {format_duration(alone)}; the better half again, combinations, and the confirmation: "
            f"{format_duration(plan['seconds_of_the_confirmation'])} for it alone",
            f"budget: {format_duration(plan['budget_seconds'])}; the whole run: {format_duration(plan['expected_seconds'])}",
        ]
    )
