"""What is known of the shipped recipes, beyond what they say: `recipes/measured.json`.

`python -m benchmarks.measured` writes it from the reports of finished runs, and nothing else does: a recipe without a
measured run has no accuracy there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hf_accel.config.recipe import RECIPES_FOLDER

MEASURED = RECIPES_FOLDER / "measured.json"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of a recipe, run as it is shipped.

    Attributes:
        parameters: of its network; None where the network cannot be built without a download.
        test_accuracy: fraction, the mean over `n` runs with different seeds; None: not yet measured, as all that follows.
        seconds: of optimisation, as `train.seconds` in `report.json`; the mean over the runs.
        device: what the runs were on.
        command: what repeats the measurement.
        data: the data set, where it is not the one that the recipe names.
    """

    parameters: int | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    n: int | None = None
    device: str | None = None
    command: str | None = None
    data: str | None = None


def measured_recipes() -> dict[str, Measured]:
    """Name of a recipe -> its figures; a recipe of which nothing is known is absent."""
    return {name: Measured(**figures) for name, figures in json.loads(MEASURED.read_text("utf-8")).items()}
