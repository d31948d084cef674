"""Every benchmark runs in its tiny form and leaves a table; no figure is asserted."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # benchmarks/ is not installed

from benchmarks import (  # noqa: E402
    accuracy,
    ceiling,
    compare,
    hf_script,
    inputs,
    overhead,
    peers,
    processes,
    scaling,
    schedule,
    timm_script,
)
from benchmarks.machine import matrix_peak  # noqa: E402
from benchmarks.session import middle, ratio_cells  # noqa: E402
from benchmarks.workloads import Size, as_flags  # noqa: E402
from hf_accel.cli import run  # noqa: E402
from hf_accel.comparison import plan as comparison_plan  # noqa: E402
from hf_accel.runs import process  # noqa: E402
from tests.support.tables import unpadded  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Measure in this process, which has imported everything; returns the folder of the results."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        processes, "call_in_process", lambda target, arguments, timeout: processes.call(target, arguments)
    )
    yield tmp_path / "results"
    torch.set_num_threads(threads)
    if cores is not None:
        os.sched_setaffinity(0, cores)


def only_table(folder: Path) -> str:
    (file,) = folder.glob("*.md")
    return unpadded(file.read_text("utf-8"))


@pytest.mark.parametrize(
    ("benchmark_module", "flags", "expected"),
    [
        (
            peers,
            [],
            ["| timm/test_resnet | hf_accel |", "HF example, best flags", "--bf16 true --dataloader_num_workers 2"],
        ),
        (ceiling, ["--bf16", "false"], ["| timm/test_resnet | fp32, channels_last, adamw_torch_fused, cache memory |"]),
        (overhead, [], ["| 8 | hf_accel's Trainer |", "| 8 | bare PyTorch |"]),
        (inputs, [], ["PIL chain, from the file", "hf_accel, cache none", "hf_accel, cache disk"]),
        (scaling, ["--steps", "5"], ["| memory | 1 | 100 |", "| memory | 2 | 100 |"]),
        (
            schedule,
            ["--max_steps", "4"],
            ["; num_train_epochs 1, max_steps 4, ", "| hf_accel | 0.", "| HF example, default flags | 0."],
        ),
    ],
)
def test_a_benchmark_leaves_a_table_with_its_provenance(here, benchmark_module, flags, expected):
    argv = ["--quick", "--pairs", "1", "--results", str(here), *flags]
    assert run(benchmark_module.main, argv) == 0
    text = only_table(here)
    for part in (*expected, "matrix product 256 x 256", f"torch {version('torch')}", "rehearsal in small"):
        assert part in text
    entries = [json.loads(line) for line in next(here.glob("*.jsonl")).read_text("utf-8").splitlines()]
    assert entries
    assert not [entry["result"]["error"] for entry in entries if "error" in entry["result"]]


def test_accuracy_runs_a_recipe_and_names_those_that_are_missing(here, monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(accuracy, "RECIPES", {"resnet20_cifar10": ("cifar10", None), "not_written": ("cifar10", None)})
    argv = ["--quick", "--pairs", "1", "--results", str(here), "--recipe", "resnet20_cifar10", "not_written"]
    assert run(accuracy.main, argv) == 0
    text = only_table(here)
    assert "| resnet20_cifar10 | 0." in text
    assert "not_written: there is no such recipe yet" in text


def test_the_example_evaluates_as_the_models_own_processor_does():
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    processor = TimmWrapperImageProcessor({"input_size": (3, 48, 48), "crop_pct": 0.9})
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8))
    expected = processor([image], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(hf_script.eval_chain(processor.data_config)(image), expected, rtol=0, atol=0)


def test_compare_keeps_the_table_of_hf_accel_compare(here, monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(comparison_plan.Plan, "data_fingerprint", lambda *_: "data")
    monkeypatch.setattr(comparison_plan, "refusals", lambda recipes: [])
    monkeypatch.setattr(process, "TRAIN", (sys.executable, str(REPOSITORY / "tests" / "support" / "stub_train.py")))
    assert run(compare.main, ["--quick", "--pairs", "1", "--results", str(here)]) == 0
    text = only_table(here)
    assert "| variant | images/s |" in text
    assert "| baseline |" in text


def test_finished_measurements_are_taken_over_and_time_is_kept(here, capsys):
    argv = ["--quick", "--pairs", "1", "--results", str(here), "--resume"]
    assert run(overhead.main, [*argv, "--minutes", "0"]) == 0
    assert "**not finished**" in capsys.readouterr().out
    assert not list(here.glob("*"))
    assert run(overhead.main, argv) == 0
    before = only_table(here)
    capsys.readouterr()
    assert run(overhead.main, argv) == 0
    assert "nothing new was measured" in capsys.readouterr().err
    assert only_table(here) == before


def test_a_measurement_in_a_process_of_its_own_answers_or_says_why():
    arguments = {"overrides": {"training": {"seed": 1}}}
    assert processes.call_in_process("benchmarks.workloads:as_flags", arguments) == {"seed": 1}
    failed = processes.call_in_process("benchmarks.workloads:as_flags", {"overrides": None})
    assert "AttributeError" in failed["error"]
    with pytest.raises(processes.OutOfTimeError):
        processes.call_in_process("benchmarks.workloads:as_flags", arguments, timeout=0)


def test_the_mean_of_timms_script_leaves_out_its_warm_up():
    line = (
        "Train: 0 [{:>4d}/{} ({:>3.0f}%)]  Loss: 2.30 (2.31)  Time: 0.5s,   16.00/s  ({:.3f}s, {:>7.2f}/s)  LR: 1e-05\n"
    )
    log = line.format(0, 9, 10, 4.0, 4.0) + line.format(1, 9, 20, 2.5, 6.4) + line.format(9, 9, 100, 0.9, 16 / 0.9)
    assert timm_script.mean_rate(log, batch=16, warmup=1) == pytest.approx(16 * 8 / (9.0 - 5.0), rel=1e-3)


def test_figures_as_text():
    assert middle([1.0, None, 3.0]) == "2.00"
    assert middle([None]) == "-"
    assert ratio_cells([2.0, None], [1.0, 1.0]) == ("2", "1")
    assert ratio_cells([2.0, 2.0], [1.0, 1.0]) == ("2 (2 to 2)", "2")
    assert ratio_cells([None], [1.0]) == ("-", "0")
    assert as_flags({"training": {"seed": 1}, "data": {"augment": {"flip": True}}}) == {
        "seed": 1,
        "data.augment.flip": True,
    }
    assert Size(16, 10, 3).for_workers(4) == Size(16, 16, 8)
    assert matrix_peak(8, torch.float32, "cpu", 0.001) > 0


def test_the_matrix_of_a_precision_that_the_machine_multiplies_slowly_is_smaller(monkeypatch):
    sides = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **options: sides.append(size[0]) or randn(*size, **options))
    monkeypatch.setattr("benchmarks.machine.product_seconds", lambda side, dtype, device: 1.0)
    matrix_peak(2048, torch.float32, "cpu", 8.0)  # 512 s, 64 s, 8 s
    assert set(sides) == {512}


def test_a_mistake_is_one_message(here, capsys):
    assert run(peers.main, ["--quick", "--model", "google/vit", "--results", str(here)]) == 2
    assert "expected timm/NAME" in capsys.readouterr().err
    assert run(peers.main, ["--quick", "--timm", str(here)]) == 2
    assert run(ceiling.main, ["--pairs", "0"]) == 2


@pytest.mark.parametrize("stage", ["zoo", "compact", "tune"])
def test_a_stage_without_recipes_says_so(stage):
    done = subprocess.run(["bash", str(REPOSITORY / "benchmarks" / "gpu.sh"), stage], capture_output=True, text=True)
    assert done.returncode == 0
    assert "do not exist yet" in done.stdout


def test_an_unknown_stage_is_refused():
    done = subprocess.run(["bash", str(REPOSITORY / "benchmarks" / "gpu.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "GPU_REHEARSAL" in done.stderr
