"""Whether the rows of a comparison can start at all, asked once before the first run.

Without it, a model that is missing would show only as one failed run per row.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence

from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError

# Run in a separate process: data and model leave no memory, threads or device context in the one that measures.
_QUESTION = "from hf_accel.comparison.checks import answer; answer()"


def refusals(recipes: Sequence[Recipe]) -> list[str]:
    """Why these recipes cannot start: one message for each model or data set that is not available.

    Files that are downloaded for the answer are there for the runs.
    """
    if not recipes:
        return []
    asked = pickle.dumps(list(recipes))
    done = subprocess.run([sys.executable, "-c", _QUESTION], input=asked, stdout=subprocess.PIPE)
    # A process that died refuses nothing: the runs will say what is wrong.
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []


def answer() -> None:
    """Read recipes from stdin and print the refusals as JSON; the other side of `refusals`."""
    from hf_accel.runs.log import quiet_libraries

    quiet_libraries()
    found = []
    for recipe in pickle.load(sys.stdin.buffer):
        try:
            _load(recipe)
        except UserError as error:
            found.append(str(error))
        except Exception:  # not the user's input: the run will fail too, and its row will say why
            continue
    print("\n" + json.dumps(list(dict.fromkeys(found))))


def _load(recipe: Recipe) -> None:
    from hf_accel.tasks import TASKS

    task = TASKS[recipe.model.task]
    data = dataclasses.replace(recipe.data, on_bad_image="error")  # "skip" would decode every image
    splits = task.open_splits(data, seed=int(recipe.training.get("seed", 42)))
    task.load_model(recipe, splits.label_names)
