"""`profile.json`: what a profile has measured, as dataclasses; missing figures are None, never 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_accel.errors import UserError
from hf_accel.profiling.advice import Setup
from hf_accel.profiling.phases import MEASURING, PHASES, UNACCOUNTED
from hf_accel.profiling.verdict import Facts
from hf_accel.profiling.whole_run import WholeRun

SCHEMA = 1
JSON = "profile.json"


@dataclass(frozen=True)
class PhaseFigures:
    """What a phase has used, in all its calls.

    Attributes:
        rows: images or texts that went through it; 0 where a phase has none.
        requested_bytes: of read calls, from storage or from the page cache.
        energy_joules: of the GPU, or of the whole CPU package.
        peak_memory_gib: of the device.
    """

    name: str
    calls: int
    rows: int
    seconds: float
    cpu_seconds: float
    read_bytes: int | None = None
    written_bytes: int | None = None
    requested_bytes: int | None = None
    energy_joules: float | None = None
    peak_rss_gib: float | None = None
    peak_anonymous_gib: float | None = None
    peak_memory_gib: float | None = None

    @property
    def rows_per_second(self) -> float | None:
        return self.rows / self.seconds if self.rows and self.seconds else None


@dataclass(frozen=True)
class Overhead:
    """Time of steps with timers over that of steps without, in turns; low and high are None with fewer than two pairs."""

    ratio: float
    low: float | None
    high: float | None
    num_pairs: int


@dataclass(frozen=True)
class ProfiledRun:
    """One profiled run of a recipe, in a process of its own.

    Attributes:
        phases: in the order of `PHASES`, those that occurred; the last one is "unaccounted".
        measuring_seconds: of what is not a part of the run: steps without timers, single operators, peaks.
        step: seconds of a mean timed step after the warm-up, by phase.
        step_starts: of the same steps, in seconds since the start of the process.
        spans: (phase, start, seconds), as step_starts.
        batch_sizes: rows of a step, and of the two batches of inference.
        worker_cpu_seconds: CPU time of loader workers and other processes of the run.
        operators: of a step, the most expensive first; see `operators.Operator`.
        peaks: matrix_flops_per_second by dtype and copy_bytes_per_second of this machine.
        whole: how often things happen in the run that the recipe asks for.
        whole_seconds: its seconds by part; see `seconds_of_whole_run`.
    """

    phases: list[PhaseFigures]
    measuring_seconds: float
    step: dict[str, float]
    num_steps: int
    step_starts: list[float]
    spans: list[tuple[str, float, float]]
    overhead: Overhead | None
    batch_sizes: dict[str, int]
    worker_cpu_seconds: float
    operators: list[dict[str, Any]]
    peaks: dict[str, Any] | None
    setup: Setup
    whole: WholeRun
    whole_seconds: dict[str, float]
    facts: Facts
    environment: dict[str, Any]
    model: str
    data: str
    task: str
    notes: list[str]
    trace: str | None = None  # a file of torch.profiler, below the folder of the profile

    @property
    def seconds(self) -> float:
        """Of the run: all phases together."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def step_seconds(self) -> float:
        return sum(self.step.values())

    @property
    def unaccounted(self) -> float:
        """The share of the run that no phase claims."""
        found = next((phase.seconds for phase in self.phases if phase.name == UNACCOUNTED), 0.0)
        return found / self.seconds if self.seconds else 0.0

    def phase(self, name: str) -> PhaseFigures | None:
        return next((phase for phase in self.phases if phase.name == name), None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProfiledRun:
        overhead = values["overhead"]
        return cls(
            **{
                **values,
                "phases": [PhaseFigures(**phase) for phase in values["phases"]],
                "spans": [tuple(span) for span in values["spans"]],
                "overhead": None if overhead is None else Overhead(**overhead),
                "setup": Setup(**values["setup"]),
                "whole": WholeRun(**values["whole"]),
                "facts": Facts(**values["facts"]),
            }
        )


@dataclass(frozen=True)
class Row:
    """A recipe, or a variant of it.

    Attributes:
        run: with what an earlier run has left in the caches.
        first: with empty caches, and a few steps.
        failure: why there is no run.
        changes: settings that differ from the first row: name -> (there, here).
    """

    name: str
    recipe: str
    run: ProfiledRun | None = None
    first: ProfiledRun | None = None
    failure: str | None = None
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def changes_in_words(self) -> dict[str, str]:
        """Each changed setting as 'there -> here'."""
        return {name: f"{there} -> {here}" for name, (there, here) in self.changes.items()}


@dataclass(frozen=True)
class Profile:
    """What `hf-accel profile` leaves; the first row is what the others are compared with."""

    recipe: str
    rows: list[Row]
    command: str

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def measured(self) -> list[tuple[Row, ProfiledRun]]:
        """The rows that have a run."""
        return [(row, row.run) for row in self.rows if row.run is not None]

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """Raises UserError: there is no profile in this folder, or it is damaged."""
        try:
            values = json.loads((folder / JSON).read_text("utf-8"))
            rows = [
                Row(**{**row, **{name: None if row[name] is None else ProfiledRun.from_dict(row[name])
                                 for name in ("run", "first")}})
                for row in values["rows"]
            ]  # fmt: skip
            return cls(values["recipe"], rows, values["command"])
        except FileNotFoundError:
            raise UserError(f"{folder}: holds no {JSON}, expected the folder of a profile") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / JSON}: is damaged: {error}") from None


def phase_rows(charged: dict[str, dict[str, Any]], rows_of_steps: int) -> list[PhaseFigures]:
    """The figures of all phases in their order.

    Args:
        charged: phase -> `Charged.to_dict()`.
        rows_of_steps: rows of the timed steps, which a phase of a step has if it counts no rows of its own.
    """
    found = []
    for name in (*PHASES, UNACCOUNTED):
        if name in charged and name != MEASURING:
            values = dict(charged[name])
            if name in PHASES and PHASES[name].when == "step" and not values["rows"]:
                values["rows"] = rows_of_steps
            found.append(PhaseFigures(name, **values))
    return found


def mean_step(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean seconds by phase, () of no steps -> {}."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: sum(step.get(name, 0.0) for step in steps) / len(steps) for name in names}
