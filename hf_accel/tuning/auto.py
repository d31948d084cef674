"""`train --tune auto`: the stored result for this recipe on this machine, or a search that takes a small part of the run."""

from __future__ import annotations

import os
from typing import Any

from hf_accel import terminal
from hf_accel.comparison.runs import probe_machine
from hf_accel.config.recipe import Recipe, RecipeFile
from hf_accel.formatting import format_duration
from hf_accel.runs.lock import sole_use
from hf_accel.tuning.candidates import Candidates, recipe_key
from hf_accel.tuning.engine import Engine, Request
from hf_accel.tuning.stored import Stored, find, place_of, store
from hf_accel.tuning.text import summary

SHARE = 0.05  # of the expected time of the run
FEWEST_TRIALS = 8  # that must fit, so that a search is worth beginning
IN_USE = "another search is running there"


def tuned_recipe(name: str, variant: str | None, overrides: dict[str, Any]) -> Recipe:
    """The recipe with the settings that were found for it on this machine.

    Raises:
        UserError: the recipe cannot run.
    """
    candidates = Candidates(RecipeFile.read(name), variant, overrides)
    return candidates.with_patch(tuned_patch(candidates))


def tuned_patch(candidates: Candidates) -> dict[str, Any]:
    """The settings that make this recipe faster here; empty where it stays as it is. Says what it does.

    Raises:
        UserError: the recipe cannot run.
    """
    machine = probe_machine()
    key = recipe_key(candidates.plain, machine.environment)
    found = find(key)
    if found is not None:
        terminal.say(f"tune: {found.summary.replace('`', '')}")
        return found.patch
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        terminal.warn("--tune auto: nothing is stored for this recipe; run `hf-accel tune` first, in one process")
        return {}
    folder = place_of(key).with_suffix("")
    with sole_use(folder, IN_USE):
        engine = Engine(Request(candidates, folder, budget=float("inf")), machine)
        expected = engine.begin()
        budget = SHARE * expected.seconds
        if budget < FEWEST_TRIALS * engine.bench.typical_seconds():
            terminal.say(
                f"tune: the run takes about {format_duration(expected.seconds)}, and {SHARE:.0%} of it is too little for a "
                "search: it starts as the recipe stands"
            )
            return {}
        terminal.say(f"tune: searching for {format_duration(budget)}, {SHARE:.0%} of the expected time")
        tuning = Engine(Request(candidates, folder, budget), machine).finish()
    sentence = summary(tuning)[0]
    store(key, Stored(tuning.patch, sentence))
    terminal.say(f"tune: {sentence.replace('`', '')}")
    return tuning.patch
