"""Charges every moment of a run to one phase, so that the phases sum to the run.

A phase that begins within another one interrupts it; only the phases of `WHOLE` keep what begins within them. Nothing is
estimated: at each boundary the counters are read, and what they moved since the last boundary belongs to the phase that was
current.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from hf_accel.profiling.gauges import Gauges, Reading, gib
from hf_accel.profiling.phases import MEASURING, UNACCOUNTED, WHOLE

SAMPLE_EVERY = 0.02  # seconds between two looks at the memory of a phase
MOST_SPANS = 20_000
SHORTEST_SPAN = 5e-5  # seconds: a shorter one is charged as every other, but cannot be drawn


@dataclass
class Charged:
    """What a phase has used; counters that cannot be read here stay None."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    calls: int = 0
    rows: int = 0
    read_bytes: int | None = None
    written_bytes: int | None = None
    requested_bytes: int | None = None
    energy_joules: float | None = None
    peak_rss: int | None = None
    peak_anonymous: int | None = None
    peak_memory: int | None = None

    def add(self, start: Reading, end: Reading) -> None:
        self.seconds += end.wall - start.wall
        self.cpu_seconds += end.cpu - start.cpu
        for name, before, now in (
            ("read_bytes", start.read_bytes, end.read_bytes),
            ("written_bytes", start.written_bytes, end.written_bytes),
            ("requested_bytes", start.requested_bytes, end.requested_bytes),
            ("energy_joules", start.energy, end.energy),
        ):
            if before is not None and now is not None:
                setattr(self, name, (getattr(self, name) or 0) + now - before)
        self.see(end.rss, end.anonymous, end.device_memory)

    def see(self, rss: int | None, anonymous: int | None, device_memory: int | None = None) -> None:
        """Memory in use now."""
        for name, now in (("peak_rss", rss), ("peak_anonymous", anonymous), ("peak_memory", device_memory)):
            if now is not None:
                setattr(self, name, max(getattr(self, name) or 0, now))

    def to_dict(self) -> dict[str, Any]:
        """JSON types; memory in GiB."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("peak_rss", "peak_anonymous", "peak_memory"):
            values[f"{name}_gib"] = gib(values.pop(name))
        return values


class Span(NamedTuple):
    """A stretch of the time line, in seconds since the start of the process."""

    phase: str
    start: float
    seconds: float


class PhaseClock:
    """See the module.

    Args:
        gauges: are read at each boundary.
        started: seconds for which the process had existed before; they are the phase `start`.
    """

    def __init__(self, gauges: Gauges, started: float = 0.0) -> None:
        self.gauges = gauges
        self.charged: dict[str, Charged] = {}
        self.spans: list[Span] = []
        self.steps: list[dict[str, float]] = []  # seconds by phase of each timed step
        self.step_starts: list[float] = []  # seconds since the start of the process, of the same steps
        self._stack: list[str] = []
        self._step: dict[str, float] | None = None
        self._is_paused = False
        self._place = (os.getpid(), threading.get_ident())
        self._last = gauges.read()
        self._origin = self._last.wall - started
        if started:
            first = self._of("start")
            first.add(Reading(self._origin, 0.0, 0, 0, 0, None, None, None, None), self._last)
            first.calls = 1
            self.spans.append(Span("start", 0.0, started))
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def current(self) -> str:
        if self._is_paused:
            return MEASURING
        stack = tuple(self._stack)  # the thread that looks at the memory asks, too
        return stack[-1] if stack else UNACCOUNTED

    @contextmanager
    def phase(self, name: str, rows: int = 0) -> Iterator[None]:
        """Charge what happens within to a phase."""
        if not self.begin(name, rows):
            yield
            return
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str, rows: int = 0) -> bool:
        """Start a phase; False: it is a part of the current one, or nothing is timed now, and there is nothing to end."""
        if self._is_paused or self.current in WHOLE or self._place != (os.getpid(), threading.get_ident()):
            return False
        self._charge()
        self._stack.append(name)
        charged = self._of(name)
        charged.calls += 1
        charged.rows += rows
        return True

    def end(self) -> None:
        """End the current phase; the one that it interrupted continues."""
        self._charge()
        self._stack.pop()

    def pause(self) -> None:
        """What happens from now on is not a part of the run, and costs no reading."""
        self._charge()
        self._is_paused = True

    def resume(self) -> None:
        if self._is_paused:
            self._charge()
            self._is_paused = False

    def begin_step(self) -> None:
        self._charge()
        self._step = {}
        self._step_start = self._last.wall - self._origin

    def end_step(self) -> None:
        self._charge()
        if self._step is not None:
            self.steps.append(self._step)
            self.step_starts.append(self._step_start)
            self._step = None

    def finish(self) -> None:
        """Charge the time until now; the clock stands still."""
        self._charge()
        self._stop.set()
        self._sampler.join()

    def seconds(self, name: str) -> float:
        return self.charged[name].seconds if name in self.charged else 0.0

    def _charge(self) -> None:
        now, name = self.gauges.read(), self.current
        self._of(name).add(self._last, now)
        seconds = now.wall - self._last.wall
        if self._step is not None:
            self._step[name] = self._step.get(name, 0.0) + seconds
        self._add_span(name, self._last.wall - self._origin, seconds)
        self._last = now

    def _add_span(self, name: str, start: float, seconds: float) -> None:
        if seconds < SHORTEST_SPAN:
            return
        last = self.spans[-1] if self.spans else None
        if last is not None and last.phase == name and start - last.start - last.seconds < SHORTEST_SPAN:
            self.spans[-1] = last._replace(seconds=start + seconds - last.start)
        elif len(self.spans) < MOST_SPANS:
            self.spans.append(Span(name, start, seconds))

    def _of(self, name: str) -> Charged:
        return self.charged.setdefault(name, Charged())

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            self._of(self.current).see(*self.gauges.memory())


def timed(clock: PhaseClock, phase: str, call: Callable[..., Any], rows: Callable[..., int] | None = None) -> Any:
    """The function, with its calls charged to a phase.

    Args:
        rows: of the arguments of a call: how many rows it works on.
    """

    def timed_call(*args: Any, **kwargs: Any) -> Any:
        with clock.phase(phase, 0 if rows is None else rows(*args, **kwargs)):
            return call(*args, **kwargs)

    return timed_call
