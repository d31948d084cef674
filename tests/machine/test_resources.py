"""Counters of the machine, where it shows them."""

from hf_accel.machine.resources import cpu_energy_joules


def test_the_energy_of_all_cpu_packages_together_and_not_of_their_parts(tmp_path):
    for name, microjoules in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 1_500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert cpu_energy_joules(tmp_path) == 4.5


def test_energy_that_is_not_shown_is_missing_and_not_zero(tmp_path):
    assert cpu_energy_joules(tmp_path) is None
    assert cpu_energy_joules(tmp_path / "absent") is None
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    assert cpu_energy_joules(tmp_path) is None
