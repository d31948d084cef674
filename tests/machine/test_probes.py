"""What the machine gives is measured in plain units, and the measurement ends in its time."""

import os
from types import SimpleNamespace

import pytest
import torch

from hf_accel.data.images import decode_image
from hf_accel.machine import probes


def test_the_peaks_of_a_cpu_are_measured():
    found = probes.measure_peaks("cpu", seconds=0.001)
    assert found.device == "cpu"
    assert set(found.matrix_flops_per_second) == {"float32", "bfloat16"}
    assert min(found.matrix_flops_per_second.values()) > 1e6
    assert found.copy_bytes_per_second > 1e6


def test_a_multiply_add_counts_two_and_the_fastest_product_is_taken(monkeypatch):
    monkeypatch.setattr(probes, "_seconds_of", lambda work, device, seconds: [2.0, 0.5, 4.0])
    assert probes.matrix_peak(8, torch.float32, "cpu", 1.0) == 2 * 8**3 / 0.5


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(probes, "_seconds_of", lambda work, device, seconds: [2.0, 0.5, 4.0])
    assert probes.copy_bandwidth("cpu", 1.0, size=1000) == 2 * 1000 / 2.0


def test_the_matrix_of_a_precision_that_the_machine_multiplies_slowly_is_smaller(monkeypatch):
    sides = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **options: sides.append(size[0]) or randn(*size, **options))
    monkeypatch.setattr(probes, "product_seconds", lambda side, dtype, device: 1.0)
    monkeypatch.setattr(probes, "_seconds_of", lambda work, device, seconds: [1.0])
    probes.matrix_peak(2048, torch.float32, "cpu", 8.0)  # 512 s, 64 s, 8 s
    assert set(sides) == {512}


def test_work_is_repeated_for_its_seconds_and_done_once_if_it_takes_longer(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert len(probes._seconds_of(lambda: None, "cpu", 10.0)) > 1
    assert len(probes._seconds_of(lambda: None, "cpu", 0.0)) == 1


def test_files_are_read_until_the_time_is_spent(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(1 << 16))
    assert probes.read_speed(sorted(tmp_path.iterdir())) > 1e4
    assert probes.read_speed([]) is None
    (tmp_path / "0.bin").write_bytes(b"")
    assert probes.read_speed([tmp_path / "0.bin"]) is None


def test_the_disk_of_a_folder_is_measured_and_nothing_stays_there(tmp_path):
    written, read = probes.disk_speeds(tmp_path, size=1 << 20)
    assert min(written, read) > 1e4
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="absent"):
        probes.disk_speeds(tmp_path / "absent")


def test_images_are_decoded_as_in_training_and_unreadable_ones_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    seen = []
    monkeypatch.setattr(
        probes, "decode_image", lambda encoded, target_side: seen.append(target_side) or decode_image(encoded)
    )
    (tmp_path / "photo.jpg").write_bytes(probes.sample_jpeg())
    for images in ([tmp_path / "broken.jpg"], [tmp_path / "broken.jpg", tmp_path / "photo.jpg"], []):
        assert probes.decode_speed(images, target_side=32, seconds=0.01) > 1
    assert set(seen) == {32}


def test_the_sample_has_the_size_and_the_detail_of_a_photograph():
    encoded = probes.sample_jpeg()
    assert decode_image(encoded).shape == (375, 500, 3)
    assert 30_000 < len(encoded) < 200_000
