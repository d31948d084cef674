"""The trials that were done, one JSON line each: what an interrupted search continues from, and what has been spent.

The search is a function of the outcomes of its trials. Repeated with the same trials in the file, it takes the same
decisions and goes further.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_accel.tuning.trials import Trial


class Record:
    """The trials of one recipe on one machine.

    Args:
        path: of the file; lines with another key are left in it and not used.
        key: of the recipe, the machine and the versions.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.trials: dict[tuple[tuple[str, ...], int, int], Trial] = {}
        for values in _lines(path):
            if values.pop("key", None) == key:
                self._keep(Trial.from_dict(values))

    def find(self, techniques: tuple[str, ...], rung: int, number: int) -> Trial | None:
        return self.trials.get((techniques, rung, number))

    def add(self, trial: Trial) -> None:
        """Keep a trial; its line is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": self.key, **trial.to_dict()}) + "\n")
        self._keep(trial)

    def _keep(self, trial: Trial) -> None:
        self.trials[trial.techniques, trial.rung, trial.number] = trial


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file: the last one may be half written."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values
