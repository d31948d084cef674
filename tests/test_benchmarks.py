"""Every benchmark runs in its tiny form and leaves a table; no figure is asserted."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # benchmarks/ is not installed

from benchmarks import (  # noqa: E402
    accuracy,
    ceiling,
    compact,
    compare,
    distributed,
    finetuning,
    hf_script,
    inputs,
    label_noise,
    machine,
    overhead,
    peers,
    photographs,
    prediction,
    processes,
    profiles,
    scaling,
    schedule,
    stopwatch,
    time_to_accuracy,
    timm_script,
    trust,
    tune,
    untidy,
    zoo,
)
from benchmarks.session import middle, ratio_cells  # noqa: E402
from benchmarks.workloads import Size, as_flags  # noqa: E402
from hf_accel.cli import run  # noqa: E402
from hf_accel.comparison import plan as comparison_plan  # noqa: E402
from hf_accel.compression.rows import Row  # noqa: E402
from hf_accel.config.flags import overrides_from_flags  # noqa: E402
from hf_accel.config.recipe import apply_patch, load_recipe  # noqa: E402
from hf_accel.errors import UserError  # noqa: E402
from hf_accel.profiling import runs as profile_runs  # noqa: E402
from hf_accel.runs import process  # noqa: E402
from tests.support.profiles import run_here  # noqa: E402
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
        (
            inputs,
            [],
            ["PIL chain, from the file", "hf_accel, cache disk", "| 12 megapixels | hf_accel | ", "Pillow alone |"],
        ),
        (
            prediction,
            [],
            ["| timm/test_resnet | 500 px | hf-accel predict | ", "num_workers 0 | ", "| 100.0% | 1 |"],
        ),
        (distributed, [], ["| resnet20_cifar10 | baseline |", "| resnet20_cifar10 | bf16 |"]),
        (scaling, ["--steps", "5"], ["| memory | 1 | 100 |", "| memory | 2 | 100 |"]),
        (
            schedule,
            ["--max_steps", "4"],
            ["; num_train_epochs 1, max_steps 4, ", "| hf_accel | 0.", "| HF example, default flags | 0."],
        ),
        (
            time_to_accuracy,
            ["--target", "0.3"],
            [
                "| hf_accel, linear probe | the recipe |",
                "| HF example, best flags | --num_train_epochs 2 ",
                "seconds to 0.3",
            ],
        ),
        (
            label_noise,
            [],
            ["| 5 | hf_accel, cross-entropy | 0.", "| 5 | published: baseline of fastai/imagenette | 0.6660 |"],
        ),
        (tune, ["--network", "resnet20", "--budget", "15s"], ["| resnet20 | 2 of 2 | "]),
        (trust, [], ["| 5% | ", "| 20% | ", "| energy: logarithm of the sum of the exponentials | "]),
        (
            untidy,
            ["--row", "20 % of the labels changed, those found left out", "two photographs side by side, both labels"],
            [
                "| 20 % of the labels changed, those found left out | 0.",
                "| two photographs side by side, both labels | ",
            ],
        ),
        (zoo, ["--complete", "--network", "cct_2_3x2"], ["| cct_2_3x2 | as shipped | 0."]),
        (
            compact,
            ["--network", "resnet50"],
            [
                "| resnet50 | PyTorch fp32 |",
                "| resnet50 | ONNX int8 |",
                "| resnet50 | at most 0.30 of the float32 file | 0.",
                "| resnet50 | at least 1.8x in batches of 64 |",
            ],
        ),
        (
            compact,
            ["--complete"],
            ["| resnet20_cifar10 | dense | 0.", "| resnet20_cifar10 | constant_sparsity_60 | 0."],
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


def test_a_technique_that_is_not_installed_is_a_row_that_says_so(here, monkeypatch, tmp_path):
    monkeypatch.setattr(finetuning, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(finetuning, "TECHNIQUES", {"plain": {}, "unheard_of": {"model": {"unheard_of": True}}})
    assert run(finetuning.main, ["--quick", "--pairs", "1", "--results", str(here)]) == 0
    text = only_table(here)
    assert "| efficientnet_lite0 | plain | 0." in text
    assert "| efficientnet_lite0 | unheard_of | refused: finetune: model.unheard_of is not a setting." in text


def test_a_distilled_network_learns_from_the_plain_run_of_the_same_seed_and_flags(monkeypatch, tmp_path):
    monkeypatch.setattr(finetuning, "RUNS", tmp_path)
    calls = []
    monkeypatch.setattr(finetuning, "run_recipe", lambda flags: calls.append(flags) or {"accuracy": 0.9})
    flags = {"training": {"num_train_epochs": 2}}
    finetuning.train("mobilenetv2_100", "distillation", seed=3, quick=True, overrides=flags)
    teacher, student = calls  # the teacher had not been trained
    assert student["model.teacher"] == str(Path(teacher["output_dir"]) / "model")
    assert [call["seed"] for call in calls] == [3, 3]
    Path(teacher["output_dir"]).mkdir(parents=True)
    (Path(teacher["output_dir"]) / "report.json").write_text("{}")
    finetuning.train("mobilenetv2_100", "distillation", seed=3, quick=True, overrides=flags)
    assert len(calls) == 3
    finetuning.train("mobilenetv2_100", "distillation", seed=3, quick=True, overrides={})
    assert len(calls) == 5


ZOO = [*zoo.SHORT.values(), *zoo.PRETRAINED.values(), *zoo.COMPLETE.values()]


@pytest.mark.parametrize("network", ZOO, ids=lambda network: network.recipe)
def test_the_settings_of_a_network_fit_its_recipe(network):
    recipe = load_recipe(network.recipe, overrides=network.settings)
    assert recipe.model.pretrained is (network.weights is not None)


@pytest.mark.parametrize("settings", finetuning.TECHNIQUES.values(), ids=list(finetuning.TECHNIQUES))
def test_a_technique_is_a_valid_change_to_the_recipe(settings):
    needs_teacher = "distillation_weight" in settings.get("training", {})
    load_recipe("finetune", overrides=apply_patch(settings, {"model": {"teacher": "./run"}} if needs_teacher else {}))


def test_the_zoo_trains_variants_in_short_and_the_recipes_as_shipped_in_full(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ACCEL_DATA", str(tmp_path))
    for name in ("cifar10", "efficientnet_lite0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(zoo, "run_or_resume", lambda folder, flags: flags | {"folder": folder})
    short = zoo.train("resnet20", "plain", complete=False, quick=False, overrides={"training": {"seed": 5}}, seed=0)
    assert short["variant"] == "plain"
    assert short["model.name"] == "hf_accel/cifar_resnet20"
    assert (short["data.max_train_rows"], short["seed"]) == (10_000, 5)
    full = zoo.train("mobilenetv2", "as shipped", complete=True, quick=False, overrides={}, seed=1)
    assert full == {"recipe": "zoo_mobilenetv2_cifar10", "seed": 1, "data.name": tmp_path / "cifar10",
                    "folder": zoo.RUNS / "complete" / "mobilenetv2" / "as_shipped" / "seed-1"}  # fmt: skip
    tuned = zoo.train("efficientnet_lite0", "fine-tuned", complete=False, quick=False, overrides={}, seed=0)
    assert tuned["model.name"] == tmp_path / "efficientnet_lite0"
    assert "variant" not in tuned


def test_an_interrupted_run_is_resumed_and_its_wall_time_is_not_known(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(accuracy, "run_recipe", lambda flags: calls.append(flags) or {"wall_seconds": 9.0})
    folder = tmp_path / "run"
    assert accuracy.run_or_resume(folder, {"seed": 0}) == {"wall_seconds": 9.0}
    folder.mkdir()
    assert accuracy.run_or_resume(folder, {"seed": 0}) == {"wall_seconds": None}
    (folder / "report.json").write_text("{}")
    assert accuracy.run_or_resume(folder, {"seed": 0}) == {"wall_seconds": 9.0}
    assert ["overwrite" in flags for flags in calls] == [False, False, True]


def test_the_stopwatch_notes_when_a_command_states_its_accuracy():
    lines = "import time; print('accuracy: 40'); time.sleep(0.3); print('a\\rb accuracy: 55', end='')"
    result = stopwatch.learning_curve([sys.executable, "-c", lines], r"accuracy: (?P<accuracy>\d+)", 100.0)
    (first, low), (second, high) = result["curve"]
    assert (low, high) == (0.4, 0.55)
    assert second - first > 0.2
    assert result["wall_seconds"] >= second
    assert "matched" in stopwatch.learning_curve([sys.executable, "-c", "print(1)"], "(?P<accuracy>x)")["error"]
    assert stopwatch.learning_curve([sys.executable, "-c", "raise SystemExit('no')"], "x")["error"] == "no"


@pytest.mark.parametrize(
    ("pattern", "line", "accuracy"),
    [
        (photographs.OURS, "epoch 1/2  step 2/4  loss 2.3874  validation accuracy 0.2000  F1 0.1717", "0.2000"),
        (photographs.EXAMPLE, "{'eval_loss': '2.359', 'eval_accuracy': '0.1', 'epoch': '2'}", "0.1"),
        (photographs.EXAMPLE, "{'eval_loss': 2.359, 'eval_accuracy': 0.8045, 'epoch': 2.0}", "0.8045"),
        (photographs.TIMM, "Test: [   2/2]  Time: 0.046 (0.097)  Acc@1:  12.500 ( 17.500)  Acc@5:  37 ( 52)", "17.500"),
        (photographs.TIMM, "Test: [   0/2]  Time: 0.154 (0.154)  Acc@1:  37.500 ( 37.500)  Acc@5:  75 ( 75)", None),
        (photographs.AUTOTIMM, "epoch 2: val/accuracy 0.3000", "0.3000"),
    ],
)
def test_the_accuracy_of_each_program_is_read_from_its_line(pattern, line, accuracy):
    found = re.search(pattern, line)
    assert (found and found["accuracy"]) == accuracy


def test_the_speed_ups_compare_a_program_with_its_rival_round_by_round():
    ours = [[10.0, 0.7], [20.0, 0.9]]
    rival = [[30.0, 0.6], [60.0, 0.8], [90.0, 0.7]]
    curves = {
        time_to_accuracy.FINETUNE: [ours, ours],
        time_to_accuracy.LINEAR_PROBE: [None, ours],
        "rival": [rival, rival],
    }
    finetune, probe = time_to_accuracy.speedup_rows(curves, 0.8)
    assert finetune == (
        time_to_accuracy.FINETUNE,
        "rival",
        "3 (3 to 3)",
        "2",
        "3 (3 to 3)",
        "2",
        "+10.0 (+10.0 to +10.0)",
    )
    assert probe[2:4] == ("3", "1")
    never = time_to_accuracy.speedup_rows(curves | {"rival": [rival, [[30.0, 0.2]]]}, 0.8)[0]
    assert never[2:4] == ("3; program never in 1", "1")
    assert never[4] == "3 (3 to 3)"  # its best is reached by the first line of the other


def test_the_rate_that_reaches_the_target_first_is_taken(here, monkeypatch):
    curves = {3e-4: [[9.0, 0.95]], 1e-3: [[5.0, 0.7], [7.0, 0.85]], 3e-3: [[1.0, 0.5]]}
    monkeypatch.setattr(photographs, "write_small", lambda **_: {})
    monkeypatch.setattr(photographs, "ours", lambda **_: {"curve": [[1.0, 0.9]], "wall_seconds": 2.0})
    monkeypatch.setattr(
        photographs,
        "example",
        lambda flags, **_: {"curve": curves[flags.get("learning_rate", 3e-3)], "wall_seconds": 10.0},
    )
    monkeypatch.setattr(time_to_accuracy, "QUICK_RATES", time_to_accuracy.LEARNING_RATES)
    assert run(time_to_accuracy.main, ["--quick", "--pairs", "1", "--results", str(here)]) == 0
    text = only_table(here)
    assert "--learning_rate 0.001 | 7.00 | 1 of 1 | 0.8500 | 7.00 | 0.8500 | 10.0 |" in text
    assert "| HF example, default flags | none | never | 0 of 1 | 0.5000 |" in text


def test_the_photographs_are_evaluated_on_their_test_split_and_weights_become_float32(tmp_path):
    source, network = tmp_path / "photographs", tmp_path / "network"
    for split in ("train", "test"):
        (source / split / "a").mkdir(parents=True)
        (source / split / "a" / f"{split}.jpg").write_bytes(b"")
    network.mkdir()
    (network / "config.json").write_text("{}")
    save_file({"weight": torch.ones(2, dtype=torch.float16), "steps": torch.ones(1, dtype=torch.int64)},
              network / "model.safetensors")  # fmt: skip
    photographs.write_photographs(str(tmp_path / "place"), str(source), str(network))
    data = tmp_path / "place" / "data"
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*.jpg")) == [
        "test/a/test.jpg",
        "train/a/train.jpg",
        "val/a/test.jpg",
    ]
    weights = load_file(tmp_path / "place" / "network" / "model.safetensors")
    assert {name: value.dtype for name, value in weights.items()} == {"weight": torch.float32, "steps": torch.int64}


def test_imagenette_is_sorted_by_its_noisy_labels_for_training_and_by_the_true_ones_for_the_test(tmp_path):
    source, folder = tmp_path / "small", tmp_path / "noisy"
    label_noise.write_small(source)
    label_noise.write_noisy(source, folder)
    shown = {(path.parent.parent.name, path.parent.name, path.name.split("_")[0]) for path in folder.rglob("*.png")}
    assert shown == {
        ("train", "n01", "n01"), ("train", "n01", "n02"), ("train", "n02", "n01"), ("train", "n02", "n02"),
        ("test", "n01", "n01"), ("test", "n02", "n02"),
    }  # fmt: skip
    assert len(list((folder / "train").rglob("*.png"))) == 32
    next((source / "train").rglob("*.png")).unlink()
    with pytest.raises(UserError, match="which is not in"):
        label_noise.write_noisy(source, tmp_path / "again")


def test_label_noise_is_skipped_without_its_data(here, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_ACCEL_DATA", str(tmp_path))
    monkeypatch.setattr(machine, "describe", lambda quick, describe=machine.describe: describe(quick=True))
    assert run(label_noise.main, ["--results", str(here)]) == 0
    assert "skipped: there is no imagenette/" in capsys.readouterr().err
    assert not here.exists()


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


def test_profiles_keep_the_tables_and_the_verdicts_of_hf_accel_profile(here, monkeypatch, tmp_path):
    monkeypatch.setattr(profiles, "RUNS", tmp_path / "runs")
    calls = []
    monkeypatch.setattr(profile_runs, "run_process", partial(run_here, calls))
    assert run(profiles.main, ["--quick", "--workload", "resnet50", "--steps", "1", "--results", str(here)]) == 0
    text = only_table(here)
    assert "**resnet50: Phases of all**" in text
    assert "baseline: The run is bound by compute" in text
    assert len(calls) == 4


@pytest.mark.parametrize("name", profiles.WORKLOADS)
def test_the_recipe_of_every_profile_takes_its_flags(name):
    recipe, _, _, flags = profiles.WORKLOADS[name]
    for variant in profiles.VARIANTS:
        load_recipe(recipe, variant, overrides_from_flags({**profiles.CPU_BATCH, **flags}))


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


def test_a_mistake_is_one_message(here, capsys):
    assert run(peers.main, ["--quick", "--model", "google/vit", "--results", str(here)]) == 2
    assert "expected timm/NAME" in capsys.readouterr().err
    assert run(peers.main, ["--quick", "--timm", str(here)]) == 2
    assert run(ceiling.main, ["--pairs", "0"]) == 2
    assert run(time_to_accuracy.main, ["--quick", "--target", "80"]) == 2
    assert run(time_to_accuracy.main, ["--quick", "--timm", str(here)]) == 2
    assert run(time_to_accuracy.main, ["--quick", "--autotimm", str(here)]) == 2
    assert run(finetuning.main, ["--quick", "--technique", "ema"]) == 2
    assert "expected plain, too" in capsys.readouterr().err
    assert run(distributed.main, ["--quick", "--variants", "bf16"]) == 2
    assert "expected baseline, too" in capsys.readouterr().err
    assert run(zoo.main, ["--quick", "--network", "resnet99"]) == 2
    assert "expected some of resnet20," in capsys.readouterr().err
    assert run(compact.main, ["--quick", "--network", "resnet99"]) == 2
    assert "expected some of resnet50," in capsys.readouterr().err
    assert run(compact.main, ["--quick", "--run", str(here)]) == 2
    assert "Add --network with its name" in capsys.readouterr().err
    assert run(label_noise.main, ["--quick", "--imagenette", str(REPOSITORY)]) == 2
    assert "has no noisy_imagenette.csv" in capsys.readouterr().err


def test_compact_prints_targets_beside_what_is_found_and_names_what_failed():
    fp32 = Row("onnxruntime", "fp32", None, 1000, 900, 0.9, 0.9, 1.0, 0.01, 0.01, 10.0)
    int8 = replace(fp32, format="int8", bytes=250, accuracy=0.88, speedup={"ratio": 2.0, "low": 1.9, "high": 2.1})
    lines = compact.target_lines(compact.Network(least_speedup=1.8, holds_accuracy=True), [fp32, int8])
    assert [found for _, found in lines] == ["0.250", "2.00x", "+2.00 points"]
    assert len(compact.target_lines(compact.Network(), [fp32, int8])) == 1
    assert compact.trained_row("a", "b", [{"error": "full"}, None])[:3] == ("a", "b", "full")
    (row,) = compact.semi_structured_rows({"qkv": {"dense": [0.002, 0.002], "sparse": [0.001, 0.001]}})
    assert row == ("qkv", "768 x 2304", "2.00", "1.00", "2 (2 to 2)", "2")
    assert compact.semi_structured_rows(None)[0][0] == "not measured: no time left"


def test_compact_trains_each_variant_of_a_recipe_on_the_complete_data(monkeypatch, tmp_path):
    monkeypatch.setattr(compact, "data_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(compact, "run_or_resume", lambda folder, flags: flags)
    network = compact.Network("resnet20_cifar10", data="cifar10", variant="polynomial_sparsity_60")
    assert compact.train(network, tmp_path, {"training": {"num_train_epochs": 2}}, quick=False, seed=3) == {
        "recipe": "resnet20_cifar10", "seed": 3, "variant": "polynomial_sparsity_60", "data.name": tmp_path / "cifar10",
        "num_train_epochs": 2,
    }  # fmt: skip
    for recipe, variants in compact.COMPLETE.items():
        for variant in variants[1:]:
            assert load_recipe(recipe, variant).training["sparsity"]


@pytest.mark.gpu
def test_the_linear_layers_of_a_transformer_are_timed_with_sparsity():
    found = compact.semi_structured(quick=True)
    assert found.keys() == compact.LINEAR_LAYERS.keys()


def test_an_unknown_stage_is_refused():
    done = subprocess.run(["bash", str(REPOSITORY / "benchmarks" / "gpu.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "GPU_REHEARSAL" in done.stderr
