"""The machine in lines, and what of it is measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from hf_accel.machine import checkup
from hf_accel.machine.probes import Peaks, sample_jpeg


@pytest.fixture
def known(monkeypatch):
    """A checkup of this machine without the measurement of its peaks, which takes seconds."""
    monkeypatch.setattr(
        checkup, "measure_peaks", lambda device: Peaks(device, {"float32": 1e11, "bfloat16": 4e11}, 3e10)
    )
    monkeypatch.setattr(checkup, "disk_speeds", lambda folder: (3e8, 2e9))
    monkeypatch.setattr(checkup.psutil, "cpu_percent", lambda seconds: 0.0)
    return lambda place, images=(): checkup.check_machine("cpu", place, images)


def test_a_gpu_has_a_line_and_a_peak_of_its_own(known, tmp_path):
    found = known(tmp_path)
    peaks = [*found.peaks, Peaks("cuda", {"float32": 50e12, "bfloat16": 700e12}, 4e12)]
    rows = checkup.machine_rows(replace(found, accelerators=["NVIDIA H200, 139.80 GiB"], peaks=peaks))
    assert ("", "NVIDIA H200, 139.80 GiB") in rows
    assert dict(rows)["peak, cuda"] == "matrix products fp32 50,000, bf16 700,000 GFLOP/s; copies 4,000 GB/s"


def test_the_users_images_are_decoded_and_their_disk_is_read(known, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(sample_jpeg())
    found = known(tmp_path, [tmp_path / "photo.jpg", tmp_path / "absent.jpg"])
    assert [disk.folder for disk in found.disks] == [str(tmp_path)] * 2
    assert found.disks[1].read_bytes_per_second > 1e4
    assert found.decoded == "of the data"
    assert len(known(tmp_path, [sample_jpeg()]).disks) == 1  # of a table: no file of its own
    assert known(tmp_path).decoded == "JPEG of 500 x 375 pixels"


def test_a_folder_that_cannot_be_written_has_no_speed(known, monkeypatch, tmp_path):
    def refuse(folder):
        raise PermissionError("read-only")

    monkeypatch.setattr(checkup, "disk_speeds", refuse)
    (disk,) = known(tmp_path).disks
    assert (disk.write_bytes_per_second, disk.read_bytes_per_second) == (None, None)
    assert dict(checkup.machine_rows(known(Path(tmp_path))))["disk"].endswith("free")
