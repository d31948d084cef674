"""Figures as text: units that people read, and a dash, never 0, for a figure that was not measured."""

import math

import pytest

from hf_accel.formatting import device_text, format_accuracy, format_bytes, format_energy, format_gib


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (100, "100 B"),
        (1023, "1.0 KiB"),
        (7_000_000, "6.7 MiB"),
        (2**27, "0.12 GiB"),
        (3 * 2**30, "3.00 GiB"),
    ],
)
def test_bytes_are_written_in_the_largest_unit_of_which_there_is_an_eighth(count, text):
    assert format_bytes(count) == text


def test_memory_is_written_alike_whether_it_was_kept_in_bytes_or_in_gib():
    for gib in (0.0001, 0.05, 0.6138, 79.2, 2000.0):
        assert format_gib(gib) == format_bytes(gib * 2**30)


@pytest.mark.parametrize(("joules", "text"), [(36_000, "10.0 Wh"), (7_200_000, "2.00 kWh")])
def test_energy_is_written_as_on_a_bill(joules, text):
    assert format_energy(joules) == text


@pytest.mark.parametrize("write", [format_accuracy, format_bytes, format_energy, format_gib])
@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_figure_that_was_not_measured_is_a_dash(write, missing):
    assert write(missing) == "-"


def test_a_device_is_named_as_a_person_would():
    cpu = {"device": "cpu", "cpu": "A CPU", "cores": 2}
    assert device_text(cpu) == "CPU A CPU, 2 cores"
    assert device_text({**cpu, "device": "A GPU", "driver": "550.1", "cuda": "12.8"}) == (
        "A GPU, driver 550.1, CUDA 12.8"
    )
    assert device_text({"device": "mps", "driver": None}) == "mps"
    assert device_text({}) == "an unknown device"
