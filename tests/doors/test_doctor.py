"""`hf-accel doctor`: the machine, whether a recipe can run here (0, or 1 and why), and what is wrong with the data."""

import json

import pytest

from hf_accel.cli import run
from hf_accel.doctor import main
from hf_accel.machine import checkup, packages
from hf_accel.machine.packages import Package
from hf_accel.machine.probes import Peaks
from tests.support.data_sets import write_folder
from tests.support.texts import write_reviews


@pytest.fixture(autouse=True)
def known_speeds(monkeypatch):
    """The machine is not measured, which takes seconds."""
    peaks = {"float32": 100e9, "bfloat16": 450e9}
    monkeypatch.setattr(checkup, "measure_peaks", lambda device: Peaks(device, peaks, 30e9))
    monkeypatch.setattr(checkup, "disk_speeds", lambda folder: (300e6, 2e9))
    monkeypatch.setattr(checkup, "decode_speed", lambda images: 1234.0)
    monkeypatch.setattr(checkup.psutil, "cpu_percent", lambda seconds: 3.0)


def document(argv, capsys):
    """The exit code, and the document of --json."""
    code = run(main, [*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_machine_alone_is_described(capsys):
    assert run(main, []) == 0
    shown = capsys.readouterr().out
    for text in (
        "matrix products fp32 100, bf16 450 GFLOP/s; copies 30.0 GB/s",
        "writes 300 MB/s, reads 2,000 MB/s",
        "1,234 images/s per core (JPEG of 500 x 375 pixels)",
        "PyTorch's threads: ",
        "transformers ",
        "no problem found",
    ):
        assert text in " ".join(shown.split()), text
    assert max(map(len, shown.splitlines())) <= 100
    code, found = document([], capsys)
    assert (code, found["can_run"], found["recipe"], found["data"]) == (0, True, None, None)
    assert found["machine"]["peaks"][0]["copy_bytes_per_second"] == 30e9


def test_other_programs_that_slow_the_measurement_are_told(monkeypatch, capsys):
    assert run(main, []) == 0
    assert "other programs" not in capsys.readouterr().out
    monkeypatch.setattr(checkup.psutil, "cpu_percent", lambda seconds: 62.0)
    assert run(main, []) == 0
    assert "other programs take 62.0 % of the processor" in capsys.readouterr().out


def test_a_recipe_that_can_run_is_told_what_it_would_train_and_nothing_is_written(recipe_file, tmp_path, capsys):
    recipe = recipe_file({"training": {"gradient_checkpointing": True}})
    before = sorted(tmp_path.rglob("*"))
    assert run(main, ["--recipe", recipe]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "precision: fp32" in shown
    assert "gradient checkpointing updates the batch-norm statistics twice" in shown
    assert "images read: all" in shown
    assert "can run here" in shown
    assert sorted(tmp_path.rglob("*")) == before
    assert run(main, ["--recipe", recipe, "--quiet"]) == 0
    assert capsys.readouterr().out == "finetune, default: can run here\n"


def test_a_recipe_that_cannot_run_is_exit_code_1_with_every_reason(recipe_file, tmp_path, capsys):
    absent = str(tmp_path / "absent")
    flags = ["--data.name", absent, "--fp16", "true", "--hub_token", "hf_secret"]
    code, found = document(["--recipe", recipe_file(), *flags], capsys)
    assert "hf_secret" not in json.dumps(found)
    assert (code, found["can_run"], found["data"]) == (1, False, None)
    data, precision = sorted(found["problems"])
    assert data.startswith(f"data.name {absent}: no such folder")
    assert "training.fp16 needs a CUDA device" in precision
    assert run(main, ["--recipe", recipe_file(), "--model.name", absent]) == 1
    shown = capsys.readouterr().out
    assert "cannot run here" in shown
    assert "model.name" in shown
    assert "images read: all" in shown  # the data is looked at all the same


def test_data_alone_is_judged(tmp_path, capsys):
    folder = write_folder(tmp_path / "photos", {"ant": 50, "bee": 5})
    assert run(main, [str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 classes, 40 train" in shown
    assert "imbalance: the largest class, 'ant'" in shown
    assert "classes with fewer than 10 train images: 1 of 2" in shown
    code, found = document(["--data.name", str(folder), "--images", "0"], capsys)
    assert code == 0
    assert found["data"]["train_rows_of_class"] == [36, 4]
    assert "images_read" not in found["data"]


def test_texts_are_judged_by_their_counts(tmp_path, capsys):
    write_reviews(tmp_path)
    code, found = document(["--data.name", str(tmp_path), "--model.task", "text-classification"], capsys)
    assert code == 0
    assert found["data"]["rows"]["test"] == 8


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data.name", "./no_such_folder"], "no such folder"),
        (["--learning_rate", "1e-3"], "Add --recipe NAME or a folder"),
        (["--variant", "baseline"], "Add --recipe NAME or a folder"),
        (["digits"], "is a recipe, expected images. Use hf-accel doctor --recipe digits"),
        (["./a", "--data.name", "./b"], "--data.name ./b names the data, too"),
        (["--recipe", "no_such_recipe"], "there is no recipe of that name"),
        (["--recipe", "digits", "--learning_rate", "fast"], "learning_rate"),
        (["--data.name", "digits", "--images", "-1"], "expected the number of images to read"),
    ],
)
def test_a_mistake_on_the_command_line_is_exit_code_2(argv, message, capsys):
    assert run(main, argv) == 2
    assert message in capsys.readouterr().err


def test_a_package_that_is_too_old_or_missing_is_a_problem_and_an_extra_is_not(monkeypatch, capsys):
    needed = [
        Package("torch", ">=2.11", None, "2.1"),
        Package("timm", ">=1.0", None, None),
        Package("peft", ">=0.18", "lora", None),
        Package("gradio", ">=6", "demo", "6.31"),
    ]
    monkeypatch.setattr(packages, "packages", lambda: needed)
    assert run(main, []) == 1
    shown = capsys.readouterr().out
    assert 'torch 2.1, expected torch>=2.11: pip install "torch>=2.11"' in shown
    assert "timm is not installed, expected timm>=1.0" in shown
    assert 'not installed: lora (pip install "hf_accel[lora]")' in shown
    assert "installed: demo" in shown


def test_the_known_faults_are_printed_as_a_page_and_as_json(capsys):
    assert run(main, ["--faults"]) == 0
    assert capsys.readouterr().out.startswith("# Faults of the libraries")
    assert run(main, ["--faults", "--json"]) == 0
    assert {"library", "what", "here", "link"} <= json.loads(capsys.readouterr().out)[0].keys()
