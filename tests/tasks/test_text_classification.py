"""A run on texts: what it leaves, who can load it, and the plain method that stands next to it."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from huggingface_hub import ModelCard
from transformers import pipeline

from hf_accel import evaluate, page, verify
from hf_accel.cli import run as run_command
from hf_accel.config.domains import default_recipe
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import DataSettings
from hf_accel.data.text import load_text_splits
from hf_accel.errors import UserError
from hf_accel.hub.publication import published_files
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.run_report import RunReport
from hf_accel.tasks import TASKS
from hf_accel.tasks.text_reference import tfidf_reference
from hf_accel.tasks.texts import TEXTS
from hf_accel.train import train
from hf_accel.training import finish
from hf_accel.training.build import build_trainer
from tests.support.damage import flip_a_bit
from tests.support.texts import rows, text_recipe, write_csv, write_reviews


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A trained run, made once for this file."""
    place = tmp_path_factory.mktemp("texts")
    training = {"num_train_epochs": 3, "train_sampling_strategy": "group_by_length"}
    return train(text_recipe(place, {"data": {"max_length": 16}, "training": training}))


def test_a_run_on_texts_leaves_what_a_run_on_images_leaves(run_folder):
    names = ("recipe.yaml", "report.json", "report.html", "history.csv", "predictions.csv", "log.txt", "plots",
             "model/model.safetensors", "model/tokenizer.json", "model/README.md", "model/notebook.ipynb")  # fmt: skip
    assert [name for name in names if not (run_folder / name).exists()] == []
    report = RunReport.load(run_folder)
    assert report.task == "text-classification"
    assert (report.data.train_rows, report.data.validation_rows, report.data.test_rows) == (19, 5, 8)
    assert report.model.flops_per_image > 0
    assert report.model.cpu_latency_seconds > 0
    assert report.validation.f1_macro is not None
    assert sum(map(sum, report.test.confusion)) == 8
    assert any(note.startswith("texts: at most 16 tokens (") for note in report.notes)
    assert not any("not written" in line for line in (run_folder / "log.txt").read_text().splitlines())


def test_every_row_has_its_prediction_which_evaluate_repeats(run_folder, capsys):
    with (run_folder / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["row"]) for row in table] == list(range(8))
    assert [row["label"] for row in table] == [row["label"] for row in rows(32)[24:]]
    report = RunReport.load(run_folder)
    assert sum(row["label"] == row["predicted"] for row in table) == round(8 * report.test.accuracy)
    assert evaluate.main([str(run_folder), "--format", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["loss"] == pytest.approx(report.test.loss, rel=1e-5)
    assert scores["per_class"] == report.test.per_class
    evaluate.main([str(run_folder), "--split", "validation"])
    assert "validation split, 5 texts" in capsys.readouterr().out


def test_a_damaged_tokenizer_is_refused_as_damaged_weights_are(run_folder, tmp_path, capsys):
    copy = shutil.copytree(run_folder, tmp_path / "run")
    assert run_command(verify.main, [str(copy)]) == 0
    flip_a_bit(copy / "model" / "tokenizer.json")
    assert run_command(verify.main, [str(copy)]) == 1
    capsys.readouterr()
    assert run_command(evaluate.main, [str(copy)]) == 2
    assert "tokenizer.json: its SHA-256 is" in " ".join(capsys.readouterr().err.split())


def test_other_texts_are_scored_by_the_model_of_a_run(run_folder, tmp_path, capsys):
    other = write_csv(tmp_path / "more.csv", rows(12, seed=4))
    assert evaluate.main([str(run_folder), "--data.name", str(other), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12


def test_the_saved_folder_loads_as_a_pipeline_with_the_same_answers(run_folder):
    classify = pipeline("text-classification", model=str(run_folder / "model"), truncation=True)
    with (run_folder / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    answers = classify([row["text"] for row in rows(32)[24:]])
    assert [answer["label"] for answer in answers] == [row["predicted"] for row in table]
    np.testing.assert_allclose([a["score"] for a in answers], [float(row["confidence"]) for row in table], atol=1e-4)


def test_the_words_for_images_are_not_said_of_texts(run_folder):
    report = RunReport.load(run_folder)
    table, shown = report.table(run_folder), (run_folder / "report.html").read_text()
    assert "samples/s" in table
    assert "Samples per second" in shown
    assert "19 texts to train on" in shown
    card = (run_folder / "model" / "README.md").read_text()
    for text in (table, shown.split("<main")[1], card):
        assert "images" not in text.replace("images/page.png", "").casefold()
    assert 'pipeline("text-classification"' in card


def test_the_page_shows_texts_of_both_classes_and_the_surest_mistakes(run_folder):
    shown_page = (run_folder / "report.html").read_text()
    sample = shown_page.split('<h2 id="data">')[1].split("<h2")[0]
    assert '<ul class="gallery texts">' in sample
    train = {row["text"] for row in rows(32)[:24]}
    shown = re.findall(r"<blockquote>(.*?)</blockquote>", sample, re.DOTALL)
    assert len(shown) == 19
    assert set(shown) <= train
    with (run_folder / "predictions.csv").open(newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["label"] != row["predicted"]]
    wrong.sort(key=lambda row: -float(row["confidence"]))
    mistakes = (
        re.findall(r"row (\d+)</span>", re.split("<h[23]", shown_page.split('<h2 id="mistakes">')[-1])[0])
        if wrong
        else []
    )
    assert mistakes == [row["row"] for row in wrong]


def test_examples_with_the_answers_of_the_model_are_on_the_card_where_they_may_be_published(run_folder, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "run")
    load_recipe(copy / "recipe.yaml", overrides={"push": {"examples": True}}).write(copy / "recipe.yaml")
    assert not (copy / "model" / "examples").exists(), "the data is a folder of this machine"
    page.main([str(copy)])
    kept = [file.read_text() for file in sorted((copy / "model" / "examples").glob("*.txt"))]
    widget = ModelCard.load(copy / "model" / "README.md").data.widget
    assert [entry["text"] for entry in widget] == kept
    assert set(kept) <= {row["text"] for row in rows(32)[24:]}
    (answer,) = pipeline("text-classification", model=str(copy / "model"), truncation=True)([kept[0]])
    assert widget[0]["output"][0] == {"label": answer["label"], "score": pytest.approx(answer["score"], abs=1e-3)}
    assert set(published_files(FinishedRun.read(copy), "jane/model")) >= {
        f"examples/{number}.txt" for number in (1, 2, 3)
    }


def test_a_plain_method_is_scored_on_the_same_rows_and_shown(run_folder):
    report = RunReport.load(run_folder)
    assert report.reference.name == "TF-IDF + logistic regression"
    assert report.reference.train_rows == 19
    assert 0 <= report.reference.f1_macro <= report.reference.accuracy <= 1
    assert "TF-IDF + logistic regression: test accuracy" in report.table()
    assert "test, TF-IDF + logistic regression" in (run_folder / "report.html").read_text()


def test_the_plain_method_learns_what_words_say(tmp_path):
    splits = load_text_splits(DataSettings(name=str(write_reviews(tmp_path, train=200, test=60))), seed=0)
    assert tfidf_reference(splits).f1_macro > 0.95


@pytest.mark.slow
def test_the_plain_method_has_its_known_score_on_real_reviews(data_dir):
    splits = load_text_splits(DataSettings(name=str(data_dir / "amazon_reviews"), validation=0.1), seed=42)
    assert 0.85 <= tfidf_reference(splits).f1_macro <= 0.89


def test_a_plain_method_that_fails_does_not_cost_the_run(tmp_path, monkeypatch, caplog):
    def fail(splits):
        raise ValueError("empty vocabulary")

    trainer = build_trainer(text_recipe(tmp_path))
    monkeypatch.setattr(TASKS["text-classification"], "reference", fail)
    assert finish.reference_scores(trainer, trainer.recipe) is None
    assert "reference: not scored (ValueError: empty vocabulary)" in caplog.text


def test_a_run_on_images_has_no_reference(tiny_recipe):
    trainer = build_trainer(tiny_recipe())
    assert finish.reference_scores(trainer, trainer.recipe) is None


def test_transforms_of_images_are_refused_for_texts_by_name(tmp_path):
    with pytest.raises(UserError, match="train_transform and eval_transform are of images"):
        build_trainer(text_recipe(tmp_path), train_transform=lambda image: image)


def test_with_a_frozen_backbone_the_whole_network_computes_every_step(tmp_path):
    trainer = build_trainer(text_recipe(tmp_path, {"model": {"freeze": "backbone"}}))
    reason = "because the texts of a batch are padded to the longest of them"
    assert f"linear probe: the whole network computes every step, {reason}" in trainer.notes


def test_tasks_and_their_words_have_the_same_names():
    assert TASKS.keys() == TEXTS.keys()


def test_without_a_recipe_the_model_says_what_it_classifies(run_folder, tmp_path, capsys):
    other = write_csv(tmp_path / "more.csv", rows(12, seed=4))
    copy = shutil.copytree(run_folder / "model", tmp_path / "alone")
    assert evaluate.main([str(copy), "--data.name", str(other), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12
    assert default_recipe({}) == default_recipe({"model": {"task": "other"}}) == "finetune"
