"""A run learns on its validation rows how far its answers can be trusted, and everything that answers uses it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from hf_accel.models.confidence import CONFIG_KEY, Confidence, softmax
from hf_accel.models.load import load_trained
from hf_accel.predict import main as predict_main
from hf_accel.report.run_report import RunReport
from hf_accel.runs.manifest import MANIFEST
from hf_accel.tasks import TASKS
from hf_accel.tasks.predictions import Predictions
from hf_accel.train import train
from hf_accel.training import confidence
from hf_accel.training.prediction import predict

pytestmark = pytest.mark.slow


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(confidence, "FEWEST_ROWS", 2)


@pytest.fixture
def run(few_rows, tiny_recipe):
    return train(tiny_recipe())


def test_a_run_reports_and_saves_what_its_validation_rows_tell(run):
    report = RunReport.load(run)
    found = report.calibration
    assert (found.validation_rows, found.sure_precision) == (report.data.validation_rows, 0.95)
    learned = load_trained(run / "model").confidence
    assert learned == Confidence(found.temperature, found.unsure_below, found.unlike_below)
    assert sum(rows for *_, rows in found.reliability_after) == report.data.test_rows
    assert 0 <= found.ece_after <= 1
    for name in ("report.html", "model/README.md"):
        assert "calibrated on" in (run / name).read_text(), name
    assert "calibrated on" in " ".join(report.table().split())
    assert (run / "plots" / "reliability.svg").is_file()
    predictions = Predictions.load(run / "predictions.csv", report.data.labels)
    assert len(predictions.labels) == report.data.test_rows, "the columns are those of every run"


def test_predict_gives_calibrated_probabilities_and_a_verdict_everywhere(run, photos, capsys, tmp_path):
    set_confidence(run, temperature=2.0, unsure_below=0.9999, unlike_below=-100.0)
    files = [str(photos / "test" / "red"), str(photos / "test" / "blue")]
    task, loaded = TASKS["image-classification"], load_trained(run / "model")
    loaded.model.eval()
    expected = [softmax(answer.logits / 2) for answer in task.score_sources(loaded, task.find_sources(files))]
    assert predict_main([str(run), *files, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose([row["confidence"] for row in rows], np.max(expected, 1), rtol=1e-5)
    assert {row["verdict"] for row in rows} == {"unsure"}
    assert predict_main([str(run), *files, "--output", str(tmp_path / "rows.csv")]) == 0
    assert {row["verdict"] for row in csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())} == {"unsure"}
    predict_main([str(run), files[0]])
    assert "unsure" in capsys.readouterr().out
    assert [answer.verdict for answer in predict(run, files[0])] == ["unsure"] * 4
    set_confidence(run, temperature=2.0, unlike_below=100.0)
    predict_main([str(run), files[0]])
    assert "unlike the training data" in capsys.readouterr().out


def set_confidence(run, **values):
    (run / "model" / MANIFEST).unlink(missing_ok=True)
    file = run / "model" / "config.json"
    config = json.loads(file.read_text())
    config[CONFIG_KEY] = Confidence(**values).to_dict()
    file.write_text(json.dumps(config))


def test_with_several_views_the_confidence_is_that_of_one_and_the_test_rows_do_not_test_it(few_rows, tiny_recipe):
    found = RunReport.load(train(tiny_recipe({"data": {"test_time_augmentation": "flip"}}))).calibration
    assert found.temperature is not None
    assert (found.ece_before, found.test_sure) == (None, None)


@pytest.mark.parametrize(
    ("patch", "fewest"), [({"model": {"sure_precision": None}}, 2), ({"data": {"validation": 0.0}}, 2), ({}, 30)]
)
def test_without_enough_validation_rows_or_if_switched_off_nothing_is_learned(patch, fewest, tiny_recipe, monkeypatch):
    monkeypatch.setattr(confidence, "FEWEST_ROWS", fewest)
    run = train(tiny_recipe(patch))
    assert RunReport.load(run).calibration is None
    assert CONFIG_KEY not in json.loads((run / "model" / "config.json").read_text())


def test_a_run_that_starts_from_a_trained_model_does_not_inherit_what_that_one_learned(run, tiny_recipe, tmp_path):
    start = {"model": {"name": str(run / "model"), "pretrained": True, "args": {}}}
    again = train(
        tiny_recipe(start, {"data": {"validation": 0.0}, "training": {"output_dir": str(tmp_path / "again")}})
    )
    assert not load_trained(again / "model").confidence.is_learned


def test_the_figures_of_the_test_rows_are_those_of_its_answers(run):
    report = RunReport.load(run)
    assert replace(report.calibration, test_unlike=0.0).sentences("image")[0].startswith("Confidence: calibrated on")
    assert report.calibration.test_sure + report.calibration.test_unlike <= 1
