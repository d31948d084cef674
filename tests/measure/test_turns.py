"""Forward passes timed in turns."""

import pytest

from hf_accel.measure import turns
from hf_accel.measure.turns import Turns, take_turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(turns.time, "perf_counter", lambda: Clock.now)
    return Clock


def passes(clock, seconds: dict[str, float], called: list[str]) -> dict:
    def run(name: str) -> None:
        called.append(name)
        clock.now += seconds[name]

    return {name: lambda name=name: run(name) for name in seconds}


def test_each_round_begins_with_another_one_after_the_warm_up(clock, monkeypatch):
    monkeypatch.setattr(turns, "ROUNDS", 3)
    called: list[str] = []
    ticks: list[None] = []
    found = take_turns(passes(clock, {"a": 1.0, "b": 2.0}, called), 0.5, 9, lambda: ticks.append(None))
    assert "".join(called) == "aabb" + "ab" + "ba" + "ab"
    assert found["a"].rounds == [[1.0]] * 3
    assert found["b"].medians == [2.0] * 3
    assert len(ticks) == 6


def test_a_turn_ends_when_its_seconds_are_spent_or_its_passes_are_done(clock, monkeypatch):
    monkeypatch.setattr(turns, "ROUNDS", 1)
    found = take_turns(passes(clock, {"slow": 0.25, "fast": 0.0625}, []), seconds=0.5, most=4)
    assert {name: one.passes for name, one in found.items()} == {"slow": 2, "fast": 4}


def test_percentiles_are_of_all_passes_together():
    found = Turns([[1.0, 2.0, 9.0], [3.0, 4.0]])
    assert found.medians == [2.0, 3.5]
    assert found.percentile(50) == 3.0
    assert found.percentile(100) == 9.0
