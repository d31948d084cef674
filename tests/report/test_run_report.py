"""A report is written whole, read back equal, and never shows a missing figure as 0."""

import csv
import enum
import json
import math
import random
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from hf_accel.errors import UserError
from hf_accel.formatting import (
    format_count,
    format_duration,
    format_gib,
    format_percent,
    format_quantity,
    format_score,
)
from hf_accel.report.calibration import CalibrationSummary
from hf_accel.report.history import HISTORY_COLUMNS, history_from_log
from hf_accel.report.run_report import (
    DataSummary,
    DetailedScores,
    ModelSummary,
    PruningSummary,
    QuantizationSummary,
    ReferenceScores,
    RunReport,
    Scores,
    TrainSummary,
)


def full_report() -> RunReport:
    return RunReport(
        recipe="digits",
        variant="default",
        settings={"learning_rate": 0.01, "bf16": True},
        notes=["bf16: AMD EPYC has avx512_bf16"],
        environment={
            "device": "cpu",
            "cpu": "AMD EPYC",
            "cores": 2,
            "python": "3.11.7",
            "torch": "2.15.0",
            "transformers": "5.23.0",
            "timm": "1.0.31",
            "hf_accel": "0.1.0",
            "commit": "0123456789abcdef-dirty",
            "command": "hf-accel train --recipe digits",
        },
        data=DataSummary(
            name="digits",
            fingerprint="f00d",
            train_rows=1258,
            validation_rows=179,
            test_rows=360,
            labels=["null", "één"],
            skipped=["a.png"],
        ),
        model=ModelSummary(name="timm/resnet20", parameters=272474, flops_per_image=41_000_000, pretrained=False),
        train=TrainSummary(
            steps=150,
            epochs=7.5,
            world_size=1,
            resumes=0,
            effective_batch_size=64,
            seconds=125.4,
            images_per_second=1234.5,
            step_seconds_median=0.0413,
            data_wait_fraction=0.031,
            compile_seconds=12.3,
            peak_memory_gib=None,
            peak_rss_gib=0.6138,
        ),
        history=[{**dict.fromkeys(HISTORY_COLUMNS), "step": 1, "loss": 2.3}],
        validation=Scores(loss=0.07, accuracy=0.98, f1_macro=0.9799),
        test=DetailedScores(
            loss=0.08,
            accuracy=0.97777,
            f1_macro=0.9776,
            per_class=[{"label": "null", "precision": 1.0, "recall": 0.5, "f1": 0.67, "support": 2}],
            confusion=[[1, 1], [0, 2]],
        ),
    )


TABLE = """\
digits, default: timm/resnet20 on digits, 2 classes

                 validation          test
  accuracy           0.9800        0.9778
  F1 (macro)         0.9799        0.9776
  top-5                   -             -

  train time     2 min 05 s  150 steps, 7.5 epochs
  images/s            1,234  effective batch 64
  step              41.3 ms  median
  data wait           3.1 %  of the train time
  peak memory      0.61 GiB  on the host, resident

Measured on CPU AMD EPYC, 2 cores; Python 3.11.7, torch 2.15.0, transformers 5.23.0, timm 1.0.31,
hf_accel 0.1.0, commit 0123456789 with changes.
n = 1 run, processes: 1; rows of train / validation / test: 1,258 / 179 / 360, skipped images: 1.
Train time, images/s and step leave out evaluation, saving, compilation (12.3 s) and warm-up steps."""


def test_the_keys_are_those_promised():
    promised = {
        "data": "name fingerprint fingerprints train_rows validation_rows test_rows test_split labels "
        "duplicates_searched skipped",
        "model": "name parameters flops_per_image pretrained cpu_latency_seconds cpu_latency_runs",
        "train": "steps skipped_steps epochs world_size parallel resumes repeated_steps effective_batch_size seconds "
        "feature_seconds images_per_second step_seconds_median data_wait_fraction transform_fraction compiled compile_failure "
        "compile_seconds peak_memory_gib peak_rss_gib peak_anonymous_gib "
        "read_bytes energy_joules final_loss accuracy out_of_memory",
        "pruning": "asked weights zeros file_bytes compressed_bytes flops_per_image images_per_second history",
        "quantization": "layers begin freeze test_accuracy",
        "validation": "loss accuracy top5_accuracy f1_macro f1_micro f1_weighted mean_average_precision",
        "reference": "name accuracy f1_macro seconds train_rows",
        "calibration": "temperature unsure_below unlike_below sure_precision validation_rows validation_ece_before "
        "validation_ece_after ece_before ece_after adaptive_ece_before adaptive_ece_after reliability_before "
        "reliability_after test_sure test_sure_accuracy test_unlike",
        "test": "loss accuracy top5_accuracy f1_macro f1_micro f1_weighted mean_average_precision views "
        "test_time_augmentation per_class confusion",
    }
    written = replace(
        full_report(),
        pruning=PruningSummary(),
        quantization=QuantizationSummary(),
        reference=ReferenceScores(),
        calibration=CalibrationSummary(),
    ).to_dict()
    assert " ".join(written) == (
        "schema recipe variant task settings notes environment data model train history phases sparsity pruning quantization "
        "validation test reference calibration thresholds"
    )
    assert {name: " ".join(written[name]) for name in promised} == promised
    assert " ".join(HISTORY_COLUMNS) == (
        "step epoch seconds loss learning_rate grad_norm validation_loss validation_accuracy"
    )
    assert written["schema"] == 1


def test_the_zeros_of_a_pruned_model_are_read_back_and_shown(tmp_path):
    report = full_report()
    report.sparsity = [{"name": "conv1", "shape": [4, 3, 3, 3], "weights": 108, "zeros": 81}]
    report.pruning = PruningSummary(asked=0.75, weights=108, zeros=81, history=[[1, 0.2], [2, 0.75]])
    read = RunReport.load(report.save(tmp_path))
    assert read == report
    assert read.pruning.images_per_second is None
    assert "  sparsity           75.0 %  zeros of 108 prunable weights\n" in read.table()


def test_the_accuracy_as_int8_is_read_back_and_shown(tmp_path):
    report = full_report()
    report.quantization = QuantizationSummary(layers=9, begin=0.5, freeze=0.75, test_accuracy=0.9123)
    read = RunReport.load(report.save(tmp_path))
    assert read == report
    assert "  as int8            0.9123  test accuracy with int8 weights and activations\n" in read.table()


def test_a_report_is_read_back_equal_from_its_file_and_its_folder(tmp_path):
    report = full_report()
    path = report.save(tmp_path / "outputs" / "digits")
    assert path == tmp_path / "outputs" / "digits" / "report.json"
    assert RunReport.load(path) == report
    assert RunReport.load(path.parent) == report


def test_an_almost_empty_report_is_read_back_equal_and_holds_null_not_0(tmp_path):
    report = RunReport(recipe="digits", variant="default")
    path = report.save(tmp_path)
    assert RunReport.load(path) == report
    written = json.loads(path.read_text())
    assert written["validation"] is None
    assert written["test"] is None
    assert written["phases"] is None
    assert set(written["train"].values()) == {None}


def test_not_a_number_and_infinity_become_null(tmp_path):
    report = RunReport(
        recipe="digits",
        variant="default",
        train=TrainSummary(final_loss=math.nan, images_per_second=math.inf),
        history=[{"step": 1, "loss": np.float32("nan")}],
    )
    path = report.save(tmp_path)
    assert "NaN" not in path.read_text()
    loaded = RunReport.load(path)
    assert loaded.train.final_loss is None
    assert loaded.train.images_per_second is None
    assert loaded.history == [{"step": 1, "loss": None}]


def test_numpy_numbers_enums_tuples_and_paths_are_written_as_json_types(tmp_path):
    strategy = enum.Enum("Strategy", {"EPOCH": "epoch"}, type=str)
    report = full_report()
    report.train.accuracy = np.float32(0.5)
    report.data.test_rows = np.int64(7)
    report.settings = {"eval_strategy": strategy.EPOCH, "betas": (0.9, 0.99), "output_dir": Path("outputs/x")}
    written = json.loads(report.save(tmp_path).read_text())
    assert written["train"]["accuracy"] == 0.5
    assert written["data"]["test_rows"] == 7
    assert written["settings"] == {"eval_strategy": "epoch", "betas": [0.9, 0.99], "output_dir": "outputs/x"}


def test_a_value_that_json_cannot_hold_is_refused_and_the_old_report_stays(tmp_path):
    path = full_report().save(tmp_path)
    before = path.read_text()
    broken = full_report()
    broken.settings = {"callback": object()}
    with pytest.raises(TypeError, match="JSON types"):
        broken.save(tmp_path)
    assert path.read_text() == before


def test_a_crash_while_writing_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch):
    path = full_report().save(tmp_path)
    before = path.read_text()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        RunReport(recipe="other", variant="default").save(tmp_path)
    assert path.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", "report.json"]


def test_rows_of_numbers_take_one_line_each_and_text_is_left_as_it_is(tmp_path):
    report = full_report()
    report.notes = ["[\n  1,\n  2\n]", "[ 1, 2 ]"]
    path = report.save(tmp_path)
    assert "      [1, 1],\n      [0, 2]\n" in path.read_text()
    assert RunReport.load(path) == report


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"schema": 1, "recipe": "dig', "damaged"),
        ("", "damaged"),
        ("[]", "schema is None, expected 1"),
        ("{}", "schema is None, expected 1"),
        ('{"schema": 7, "recipe": "x", "variant": "y"}', "schema is 7, expected 1"),
        ('{"schema": 1, "variant": "y"}', "recipe is absent"),
        ('{"schema": 1, "recipe": "x", "variant": "y", "speed": 3}', "unknown speed"),
        ('{"schema": 1, "recipe": "x", "variant": "y", "train": {"sped": 3}}', "train: unknown sped"),
        ('{"schema": 1, "recipe": "x", "variant": "y", "train": 3}', "train: got int"),
        ('{"schema": 1, "recipe": "x", "variant": "y", "train": null}', "train is NoneType, expected TrainSummary"),
        ('{"schema": 1, "recipe": "x", "variant": "y", "data": {"labels": null}}', "labels is NoneType, expected list"),
    ],
)
def test_a_damaged_or_unknown_report_is_refused_with_its_path(text, named, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match=named) as refused:
        RunReport.load(tmp_path)
    assert str(tmp_path / "report.json") in str(refused.value)


def test_a_missing_report_is_refused_with_what_to_do(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"No such file.*Name the folder of a run"):
            RunReport.load(path)


def test_a_report_of_fewer_keys_still_loads(tmp_path):
    (tmp_path / "report.json").write_text(
        '{"schema": 1, "recipe": "x", "variant": "y", "train": {"steps": 3}, "test": {"accuracy": 0.5}}'
    )
    report = RunReport.load(tmp_path)
    assert (report.train.steps, report.train.seconds, report.test.accuracy, report.history) == (3, None, 0.5, [])


def test_the_history_is_also_a_csv_with_empty_cells_for_missing_figures(tmp_path):
    report = full_report()
    report.save(tmp_path)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{**dict.fromkeys(HISTORY_COLUMNS, ""), "step": "1", "loss": "2.3"}]


def test_the_table_is_pinned():
    assert full_report().table() == TABLE


def test_the_table_is_the_same_from_shuffled_keys(tmp_path):
    def shuffled(values):
        if isinstance(values, dict):
            items = [(key, shuffled(value)) for key, value in values.items()]
            return dict(random.Random(1).sample(items, len(items)))
        return [shuffled(value) for value in values] if isinstance(values, list) else values

    values = shuffled(full_report().to_dict())
    assert list(values) != list(full_report().to_dict())
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert RunReport.load(tmp_path).table() == TABLE


def test_missing_figures_are_dashes_in_the_table():
    text = RunReport(recipe="digits", variant="default").table()
    figures = [line.split()[1:3] for line in text.splitlines() if line.startswith(("  accuracy", "  F1", "  top-5"))]
    assert figures == [["-", "-"], ["(macro)", "-"], ["-", "-"]]
    for label in ("train time", "images/s", "step", "data wait", "peak memory"):
        line = next(line for line in text.splitlines() if line.startswith(f"  {label} "))
        assert line.removeprefix(f"  {label}").split()[0] == "-"
    assert "0" not in text
    assert "nan" not in text


def test_a_figure_that_is_0_is_shown_as_0():
    report = RunReport(recipe="x", variant="y", test=DetailedScores(accuracy=0.0), train=TrainSummary(steps=0))
    assert "0.0000" in report.table()
    assert "0 steps" in report.table()


def test_the_table_stays_within_100_columns_whatever_the_names_are():
    report = full_report()
    report.recipe = "a_recipe_of_a_long_name_" * 6
    report.model.name = "/".join(["organisation-with-a-name"] * 6)
    report.data.name = "x" * 150
    report.environment |= {"device": "NVIDIA H200 " * 9, "driver": "570.1", "cuda": "13.2"}
    report.train.seconds = report.train.images_per_second = 1e12
    assert max(map(len, report.table().splitlines())) <= 100
    assert "driver 570.1, CUDA 13.2" in report.table()


def test_the_table_ends_with_the_files_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = full_report()
    report.save(tmp_path / "run")
    (tmp_path / "run" / "model").mkdir()
    assert report.table(tmp_path / "run") == f"{TABLE}\n\nrun/model\nrun/report.json\nrun/history.csv"


def test_training_and_evaluation_entries_of_a_step_become_one_row():
    log = [
        {"loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.5, "epoch": 0.5, "train_seconds": 3.0, "step": 5},
        {"loss": 1.0, "learning_rate": 0.05, "grad_norm": 1.0, "epoch": 1.0, "train_seconds": 6.0, "step": 10},
        {"eval_loss": 0.9, "eval_accuracy": 0.7, "eval_runtime": 2.0, "epoch": 1.0, "step": 10},
        {"eval_loss": 0.8, "eval_accuracy": 0.8, "epoch": 1.2, "step": 12},
    ]
    assert history_from_log(log) == [
        dict(zip(HISTORY_COLUMNS, (5, 0.5, 3.0, 2.0, 0.1, 1.5, None, None), strict=True)),
        dict(zip(HISTORY_COLUMNS, (10, 1.0, 6.0, 1.0, 0.05, 1.0, 0.9, 0.7), strict=True)),
        dict(zip(HISTORY_COLUMNS, (12, 1.2, None, None, None, None, 0.8, 0.8), strict=True)),
    ]
    assert history_from_log(reversed(log)) == history_from_log(log)
    assert history_from_log([]) == []


def test_the_summary_of_training_and_the_test_scores_give_no_row():
    log = [
        {"loss": 2.0, "epoch": 1.0, "step": 5},
        {"train_runtime": 9.0, "train_loss": 2.0, "train_seconds": 8.0, "epoch": 1.0, "step": 6},
        {"test_loss": 1.0, "test_accuracy": 0.5, "epoch": 1.0, "step": 6},
    ]
    assert [row["step"] for row in history_from_log(log)] == [5]


def test_the_first_evaluation_of_a_step_counts_because_a_later_one_is_of_the_best_checkpoint():
    log = [
        {"eval_loss": 0.9, "eval_accuracy": 0.6, "step": 10},
        {"eval_loss": 0.5, "eval_accuracy": 0.9, "step": 10},
    ]
    assert history_from_log(log)[0]["validation_accuracy"] == 0.6


def test_a_figure_of_0_is_kept_in_the_history():
    log = [{"loss": 0.0, "learning_rate": 0.0, "step": 1}, {"loss": 5.0, "step": 1}]
    assert history_from_log(log)[0]["loss"] == 0.0
    assert history_from_log(log)[0]["learning_rate"] == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (0.0, "0.0 ms"),
        (0.0413, "41.3 ms"),
        (0.99996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_in_the_unit_people_would_say(seconds, text):
    assert format_duration(seconds) == text


def test_figures_are_formatted_with_about_three_digits_and_missing_ones_as_a_dash():
    assert [format_quantity(v) for v in (12345.6, 99.96, 31.42, 9.996, 1.234, 0.0)] == [
        "12,346",
        "100",
        "31.4",
        "10.0",
        "1.23",
        "0.00",
    ]
    assert (format_count(1797), format_score(0.97778), format_percent(0.031)) == ("1,797", "0.9778", "3.1 %")
    assert format_gib(0.6138) == "0.61 GiB"
    for format_figure in (format_count, format_quantity, format_score, format_percent, format_gib, format_duration):
        assert format_figure(None) == format_figure(math.nan) == format_figure(math.inf) == "-"


def test_every_section_of_the_report_can_be_built_without_figures():
    for section in (DataSummary, ModelSummary, TrainSummary, Scores, DetailedScores, ReferenceScores):
        assert all(getattr(section(), f.name) in (None, [], {}) for f in fields(section))


def test_reading_a_report_and_printing_its_table_import_nothing_heavy(tmp_path):
    path = full_report().save(tmp_path)
    script = f"""
import sys
from hf_accel import RunReport
print(RunReport.load({str(path)!r}).table())
heavy = {{"torch", "transformers", "datasets", "evaluate", "sklearn", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{TABLE}\n"), done.stderr
