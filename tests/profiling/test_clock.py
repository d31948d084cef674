"""Every moment is charged to one phase."""

import pytest

from hf_accel.profiling.clock import PhaseClock, timed
from hf_accel.profiling.phases import MEASURING, PHASES, UNACCOUNTED
from tests.support.profiles import SetGauges


@pytest.fixture
def gauges():
    return SetGauges()


@pytest.fixture
def clock(gauges):
    clock = PhaseClock(gauges, started=2.0)
    yield clock
    clock.finish()


def seconds(clock):
    return {name: used.seconds for name, used in clock.charged.items() if used.seconds}


def test_the_time_before_the_clock_is_the_start(clock):
    assert seconds(clock) == {"start": 2.0}


def test_a_phase_within_another_one_interrupts_it(clock, gauges):
    with clock.phase("load"):
        gauges.advance(1)
        with clock.phase("decode"):
            gauges.advance(4)
        gauges.advance(2)
    gauges.advance(0.5)
    clock.finish()
    assert seconds(clock) == {"start": 2.0, "load": 3.0, "decode": 4.0, UNACCOUNTED: 0.5}
    assert clock.charged["load"].calls == 1


@pytest.mark.parametrize("whole", ["evaluation", "checkpoint", "inference_one"])
def test_what_begins_within_an_evaluation_belongs_to_it(clock, gauges, whole):
    with clock.phase(whole, rows=10):
        for phase in ("load", "forward"):
            with clock.phase(phase):
                gauges.advance(3)
    assert seconds(clock) == {"start": 2.0, whole: 6.0}
    assert clock.charged[whole].rows == 10


def test_the_phases_sum_to_the_time_that_passed(clock, gauges):
    for number, name in enumerate(PHASES):
        with clock.phase(name):
            gauges.advance(number)
        gauges.advance(0.25)
    clock.finish()
    assert sum(used.seconds for used in clock.charged.values()) == pytest.approx(2.0 + gauges.now.wall - 100.0)


def test_what_is_measured_while_the_clock_is_paused_is_not_of_the_run(clock, gauges):
    clock.pause()
    with clock.phase("forward"):
        gauges.advance(7)
    clock.resume()
    with clock.phase("forward"):
        gauges.advance(1)
    assert seconds(clock) == {"start": 2.0, MEASURING: 7.0, "forward": 1.0}
    assert clock.charged["forward"].calls == 1


def test_a_phase_that_an_exception_leaves_is_ended(clock, gauges):
    def broken():
        gauges.advance(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        timed(clock, "load", broken)()
    assert clock.current == UNACCOUNTED
    assert seconds(clock)["load"] == 1


def test_every_counter_is_charged_with_what_it_moved(clock, gauges):
    with clock.phase("load"):
        gauges.advance(1, cpu=2, read_bytes=30, written_bytes=4, requested_bytes=50, energy=6, rss=100)
    used = clock.charged["load"].to_dict()
    assert (used["cpu_seconds"], used["read_bytes"], used["written_bytes"], used["requested_bytes"]) == (2, 30, 4, 50)
    assert used["energy_joules"] == 6
    assert used["peak_rss_gib"] == 1100 / 2**30
    assert used["peak_memory_gib"] is None


def test_a_step_is_the_phases_between_its_ends(clock, gauges):
    for number in range(2):
        clock.begin_step()
        with clock.phase("forward"):
            gauges.advance(1 + number)
        gauges.advance(0.5)
        clock.end_step()
        gauges.advance(9)
    assert clock.steps == [{"forward": 1, UNACCOUNTED: 0.5}, {"forward": 2, UNACCOUNTED: 0.5}]
    assert clock.step_starts == [2.0, 12.5]


def test_the_time_line_has_no_gaps_and_joins_neighbours(clock, gauges):
    for phase in ("forward", "forward", "backward"):
        with clock.phase(phase):
            gauges.advance(1)
    assert [tuple(span) for span in clock.spans] == [("start", 0.0, 2.0), ("forward", 2.0, 2.0), ("backward", 4.0, 1.0)]


def test_a_timed_function_says_how_many_rows_it_had(clock, gauges):
    decode = timed(clock, "decode", lambda rows: gauges.advance(1), rows=len)
    decode([1, 2, 3])
    decode([4])
    assert (clock.charged["decode"].rows, clock.charged["decode"].calls) == (4, 2)


def test_another_thread_charges_nothing(clock, gauges):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(clock.begin, "decode").result()
    assert "decode" not in clock.charged
