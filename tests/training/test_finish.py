"""The end of a run: model and scores are saved first, and the page or the card may fail without costing the run."""

import csv
import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from hf_accel import page
from hf_accel.cli import run
from hf_accel.config.recipe import apply_patch, load_recipe
from hf_accel.data.splits import load_splits
from hf_accel.models.load import load_trained
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.run_report import RunReport
from hf_accel.tasks.image_classification import ImageClassification
from hf_accel.tasks.predictions import Predictions
from hf_accel.train import train
from hf_accel.training import finish
from tests.conftest import TINY, write_photos

pytestmark = pytest.mark.slow

EXTRAS = ("report.html", "predictions.csv", "plots/loss.svg", "plots/confusion.svg", "model/README.md",
          "model/notebook.ipynb")  # fmt: skip
CLASSES = {"blue": "$5 and $10_{", "red": "\\frac{$a$}"}  # between two dollars matplotlib reads a formula, and fails


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run over classes whose names plots could stumble over."""
    place = tmp_path_factory.mktemp("trained")
    photos = write_photos(place)
    for split in ("train", "test"):
        for name, strange in CLASSES.items():
            (photos / split / name).rename(photos / split / strange)
    patch = {"data": {"name": str(photos)}, "training": {"output_dir": str(place / "run"), "learning_rate": 1e-5}}
    return train(load_recipe("finetune", overrides=apply_patch(TINY, patch)))


@pytest.fixture
def finished(trained, tmp_path, monkeypatch) -> FinishedRun:
    shutil.copytree(trained, tmp_path / "run")
    return FinishedRun.read(tmp_path / "run")


def shown(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXTRAS if (folder / name).is_file()}


def remove_extras(folder: Path) -> None:
    for name in EXTRAS:
        (folder / name).unlink()


def test_a_latency_that_cannot_be_measured_costs_no_run(tiny_recipe, monkeypatch, capsys):
    def failing(*_):
        raise NotImplementedError("no such operation on the CPU")

    monkeypatch.setattr(finish, "cpu_latency", failing)
    report = RunReport.load(train(tiny_recipe()))
    assert (report.model.cpu_latency_seconds, report.model.cpu_latency_runs) == (None, None)
    assert report.test.accuracy is not None
    assert "latency on the CPU: not measured (no such operation on the CPU)" in capsys.readouterr().err


def test_dollar_signs_in_class_names_are_drawn_as_they_stand(trained):
    assert set(shown(trained)) == set(EXTRAS)
    assert "not written" not in (trained / "log.txt").read_text()
    text = (trained / "report.html").read_text()
    for name in CLASSES.values():
        assert f">{name}</text>" in text  # a label of a plot, letters kept as text in the page


@pytest.mark.parametrize("name", ["report.html", "model/README.md", "model/notebook.ipynb"])
def test_what_is_shared_of_a_run_names_no_folder_of_this_machine(trained, name):
    text = (trained / name).read_text(encoding="utf-8")
    assert str(trained.parent) not in text
    assert str(Path.home()) not in text
    assert trained.parent.name not in text


def test_the_page_names_a_mistake_by_the_file_that_predictions_csv_has(trained):
    shown = re.findall(r'class="where">([^<]+)', (trained / "report.html").read_text(encoding="utf-8"))
    with open(trained / "predictions.csv", encoding="utf-8", newline="") as file:
        wrong = {row["file"] for row in csv.DictReader(file) if row["label"] != row["predicted"]}
    assert wrong
    assert {unescape(name) for name in shown} == wrong


def test_the_page_links_to_every_file_of_the_run(trained):
    links = re.findall(r'<a href="([^#"]+)"', (trained / "report.html").read_text(encoding="utf-8"))
    assert {"report.json", "history.csv", "predictions.csv", "recipe.yaml", "model/README.md"} <= set(links)
    assert all((trained / link).exists() for link in links)


def test_facts_of_a_run_are_in_its_report(trained):
    report = RunReport.load(trained)
    assert (report.data.test_split, report.train.compiled, report.train.compile_failure) == ("test", None, None)
    assert (report.test.views, report.test.test_time_augmentation) == (1, "none")


def test_predictions_are_those_of_the_confusion_matrix(trained):
    report = RunReport.load(trained)
    predictions = Predictions.load(trained / "predictions.csv", report.data.labels)
    assert predictions.rows.tolist() == list(range(8))
    assert predictions.files[0].startswith("test/"), "relative to the data"
    counts = [[0, 0], [0, 0]]
    for label, predicted in zip(predictions.labels, predictions.predicted, strict=True):
        counts[label][predicted] += 1
    assert counts == report.test.confusion


FAILING = {"write_page": "report.html", "draw_plots": "plots", "write_card": "model card", "write_notebook": "notebook.ipynb",
           "mistakes": "gallery of mistakes", "sample": "sample of the data",
           "write_examples": "examples"}  # fmt: skip


@pytest.mark.parametrize("broken", FAILING)
def test_each_part_that_shows_a_run_fails_alone_and_names_the_command_that_makes_it_later(
    finished, broken, monkeypatch, caplog
):
    folder = finished.folder.path
    before = shown(folder)
    remove_extras(folder)
    splits = load_splits(finished.recipe.data, seed=42)
    loaded = load_trained(str(finished.folder.model))

    def fail(*args, **kwargs):
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(ImageClassification if broken in ("mistakes", "sample") else finish, broken, fail)
    predictions = Predictions.load(trained_predictions(finished), finished.report.data.labels)
    failed = finish.write_extras(finished, predictions, splits, loaded.model, loaded.processor)
    assert failed == [FAILING[broken]]
    assert f"{FAILING[broken]}: not written (RuntimeError: no such instruction)" in caplog.text
    assert f"hf-accel page {folder}" in caplog.text
    missing = {"write_page": {"report.html"}, "draw_plots": {"plots/loss.svg", "plots/confusion.svg"},
               "write_card": {"model/README.md"},
               "write_notebook": {"model/notebook.ipynb"}}.get(broken, set())  # fmt: skip
    assert set(before) - set(shown(folder)) == missing | {"predictions.csv"}


def trained_predictions(finished: FinishedRun) -> Path:
    path = finished.folder.predictions
    path.parent.mkdir(exist_ok=True)
    path.write_text("row,label,predicted,confidence\n0,0,1,0.9\n1,0,0,0.8\n")
    return path.rename(finished.folder.path / "kept.csv")


def test_a_plot_that_cannot_be_drawn_costs_neither_page_nor_other_plots(finished, monkeypatch, caplog):
    from hf_accel.report.plots import Plot

    remove_extras(finished.folder.path)
    save = Plot.save

    def fail_once(plot, folder):
        if plot.name == "confusion":
            raise ValueError("cannot be drawn")
        return save(plot, folder)

    monkeypatch.setattr(Plot, "save", fail_once)
    assert finish.write_extras(finished, None, None, None, None) == []
    assert "the plot confusion cannot be drawn" in caplog.text
    assert set(EXTRAS) - set(shown(finished.folder.path)) == {"plots/confusion.svg", "predictions.csv"}


def test_a_run_that_dies_at_its_page_keeps_model_and_scores_and_a_command_makes_the_rest(
    trained, tmp_path, monkeypatch, capsys
):
    recipe = load_recipe(trained / "recipe.yaml", overrides={"training": {"output_dir": str(tmp_path / "run")}})

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(finish, "write_extras", die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    folder = tmp_path / "run"
    assert RunReport.load(folder).test == RunReport.load(trained).test
    assert (folder / "model" / "model.safetensors").is_file()
    assert set(shown(folder)) == {"predictions.csv"}
    assert run(page.main, [str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    assert run(page.main, [str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(folder / "report.html"), "failed": []}
    assert set(shown(folder)) == set(EXTRAS)


def test_the_page_command_writes_the_same_again(finished, capsys):
    folder = finished.folder.path
    before = shown(folder)
    for name in set(EXTRAS) - {"predictions.csv"}:
        (folder / name).unlink()
    assert run(page.main, [str(folder)]) == 0
    after = shown(folder)
    assert set(after) == set(before)
    same = ("report.html", "predictions.csv", "plots/loss.svg", "plots/confusion.svg", "model/notebook.ipynb")
    assert [name for name in same if after[name] != before[name]] == []
    assert json.loads((folder / ".hf_accel.json").read_text())["files"]


def test_the_page_command_shows_no_pictures_of_data_that_has_changed(finished, trained, capsys):
    photos = trained.parent / "photos"
    moved = photos.rename(trained.parent / "elsewhere")
    try:
        assert run(page.main, [str(finished.folder.path)]) == 0
        assert "no rows of the data" in capsys.readouterr().err
    finally:
        moved.rename(photos)
    assert "<img" not in finished.folder.page.read_text()
    extra = photos / "train" / CLASSES["red"] / "new.png"
    shutil.copyfile(extra.with_name("00.png"), extra)
    try:
        assert run(page.main, [str(finished.folder.path)]) == 0
        assert "has changed since the run" in capsys.readouterr().err
    finally:
        extra.unlink()


def test_the_page_of_a_folder_that_is_not_a_run_is_refused(tmp_path, capsys):
    assert run(page.main, [str(tmp_path)]) == 2
    assert "report.json, recipe.yaml, model/config.json not found" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
