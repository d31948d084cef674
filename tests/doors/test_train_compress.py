"""`compress:` in a recipe: one command trains a model and exports it."""

import json
import re

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel.cli import run
from hf_accel.compression import compress as room
from hf_accel.compression import export, packages
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import CompressionSettings
from hf_accel.errors import UserError
from hf_accel.models.exported import RESULT, Exported
from hf_accel.report.run_report import RunReport
from hf_accel.train import main, train
from tests.support.two_processes import train_in_two_processes


def test_a_missing_package_is_named_before_anything_is_written(tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packages, "NEEDED", ("onnxruntime", "not_there"))
    tiny_recipe({"compress": {"formats": ["int8"]}}).write(tmp_path / "mine.yaml")
    assert run(main, ["--recipe", str(tmp_path / "mine.yaml")]) == 2
    message = 'finetune: compress: not_there is not installed. pip install "hf_accel[onnx]"'
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_preprocessing_that_cannot_be_exported_is_refused_before_training(tiny_recipe, tmp_path, monkeypatch, capsys):
    def refuse(loaded):
        raise UserError(f"{type(loaded.processor).__name__} cannot be recorded")

    monkeypatch.setattr(export, "recorded_preprocessing", refuse)
    tiny_recipe({"compress": {}}).write(tmp_path / "mine.yaml")
    assert run(main, ["--recipe", str(tmp_path / "mine.yaml")]) == 2
    assert "cannot be recorded" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_a_failed_export_costs_a_warning_and_not_the_run(tiny_recipe, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(room, "compress", fail)
    folder = train(tiny_recipe({"compress": {"formats": ["int8", "fp16"]}, "training": {"max_steps": 1}}))
    assert RunReport.load(folder).test is not None
    assert not (folder / "exported").exists()
    warned = capsys.readouterr().err
    assert "exported: not written (OSError: no space left). Model and scores are saved; " in warned
    assert f"`hf-accel compress {folder} --formats int8 fp16` exports it later" in warned


@pytest.mark.slow
def test_an_interrupted_export_names_the_command_that_makes_it(tiny_recipe, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "compress", interrupt)
    tiny_recipe({"compress": {"formats": ["int8"]}, "training": {"max_steps": 1}}).write(tmp_path / "mine.yaml")
    assert run(main, ["--recipe", str(tmp_path / "mine.yaml")]) != 0
    exporting = f"`hf-accel compress {tmp_path / 'run'} --formats int8` exports it"
    rest = f"`hf-accel page {tmp_path / 'run'}` writes the rest."
    assert f"the model and its scores are saved. {exporting}, and {rest}" in capsys.readouterr().err


def test_a_file_that_is_exported_is_a_section_that_no_training_depends_on():
    plain, compressed = (load_recipe("digits", overrides=patch) for patch in ({}, {"compress": {"formats": ["int8"]}}))
    assert (plain.compress, compressed.compress) == (None, CompressionSettings(formats=["int8"]))
    assert "compress" not in plain.to_dict()
    assert compressed == plain
    assert compressed.to_dict()["compress"]["formats"] == ["int8"]


@pytest.fixture
def super_60(tmp_path):
    def make(folder, batch):
        return load_recipe(
            "resnet20_cifar10",
            "super_60",
            overrides={
                "model": {"args": {"depth": 8, "width": 8}, "channels_last": False},
                "data": {"name": "digits", "image_size": 16, "augment": {"crop": "none", "flip": False}},
                "training": {"per_device_train_batch_size": batch, "num_train_epochs": 4, "learning_rate": 0.1,
                             "output_dir": str(tmp_path / folder)},
                "compress": {"keep": True, "images": 100, "calibration_images": 64},  # whatever the speed of the int8 file
            },
        )  # fmt: skip

    return make


@pytest.mark.slow
def test_a_super_recipe_gives_in_two_processes_what_it_gives_alone(super_60, tmp_path):
    """Batch norm takes the statistics of each process's half of a batch, so the weights differ, and the accuracy a little."""
    one, two = (
        RunReport.load(train(super_60("one", 64))),
        train_in_two_processes(super_60("two", 32), tmp_path / "two.yaml"),
    )
    assert one.train.steps == two.train.steps
    assert one.pruning.zeros == two.pruning.zeros == round(0.6 * one.pruning.weights)
    assert one.test.accuracy > 0.8
    assert two.test.accuracy == pytest.approx(one.test.accuracy, abs=0.03)
    for folder in (tmp_path / "one", tmp_path / "two"):
        result = json.loads((folder / "exported" / RESULT).read_text())
        assert result["agreement"]["same_answers"] >= 0.999
        assert 0.55 < result["zero_weights"] < 0.6  # the first layer and the classifier are dense
        rows = {row["format"]: row for row in result["rows"] if row["runtime"] == "onnxruntime"}
        shown = (folder / "report.html").read_text().split('<h2 id="exported">')[1].split("<h2")[0]
        assert {"ONNX fp32", "ONNX int8"} <= set(re.findall(r'<th scope="row">(.*?)</th>', shown))
        assert rows["int8"]["bytes"] < rows["fp32"]["bytes"]
        assert rows["int8"]["accuracy"] == pytest.approx(rows["fp32"]["accuracy"], abs=0.05)
        exported = Exported(folder / "exported" / rows["int8"]["file"])
        assert len(exported.label_names) == 10
