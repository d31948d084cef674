"""Multi-label classification through the doors: train, evaluate, predict, the page, the card, and the Python API."""

import csv
import importlib.util
import json
import re

import numpy as np
import PIL.Image
import pytest
from sklearn.metrics import average_precision_score
from transformers import pipeline

import hf_accel
from hf_accel import audit, compress, evaluate, page, tune
from hf_accel.config.domains import MULTI_LABEL
from hf_accel.errors import UserError
from hf_accel.models.kind import task_of_model
from hf_accel.predict import main as classify_command
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.finish import report_on
from tests.support.label_sets import LABELS, label_sets, multi_label_recipe, picture

pytestmark = pytest.mark.slow
LONGER = {"training": {"num_train_epochs": 6, "learning_rate": 3e-2}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def folder(place):
    return train(multi_label_recipe(place, LONGER))


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scores_in(rows):
    return np.array([[float(row[f"p({name})"]) for name in LABELS] for row in rows])


def test_it_learns_images_whose_thirds_have_a_label_each(folder, rows):
    report = RunReport.load(folder)
    assert report.task == MULTI_LABEL
    assert report.test.mean_average_precision > 0.95
    assert report.validation.mean_average_precision > 0.95
    assert report.test.confusion is None
    assert len(report.thresholds) == 3
    assert report.data.labels == LABELS
    labels = np.array([[name in labels for name in LABELS] for labels in label_sets(16)])
    assert [row["label"] for row in rows] == ["|".join(labels) for labels in label_sets(16)]
    precision = average_precision_score(labels, scores_in(rows), average="macro")
    assert report.test.mean_average_precision == pytest.approx(precision, abs=1e-6)
    predicted = scores_in(rows) >= report.thresholds
    assert report.test.accuracy == (predicted == labels).all(axis=1).mean()
    selecting = [note for note in report.notes if note.startswith("metric_for_best_model")]
    assert "mean_average_precision" in selecting[0]
    assert all("validation_mean_average_precision" in row for row in report.history)


def test_the_saved_model_says_what_it_is_and_the_pipeline_gives_the_same_scores(folder, place, rows):
    import hf_accel.cifar_nets  # noqa: F401  registers the network

    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["hf_accel_thresholds"] == RunReport.load(folder).thresholds
    assert "hf_accel_confidence" not in config
    assert task_of_model(str(folder / "model")) == MULTI_LABEL
    classify = pipeline("image-classification", model=str(folder / "model"))
    files = [str(place / "labelled" / row["file"]) for row in rows[:4]]
    for answers, scores in zip(classify(files, function_to_apply="sigmoid", top_k=3), scores_in(rows[:4]), strict=True):
        found = {answer["label"]: answer["score"] for answer in answers}
        np.testing.assert_allclose([found[name] for name in LABELS], scores, atol=1e-5)
    assert classify(files[1], top_k=3) == classify(files[1], function_to_apply="sigmoid", top_k=3)


def test_evaluate_repeats_the_scores_of_the_run_and_scores_other_data(folder, place, capsys):
    assert evaluate.main([str(folder), "--format", "json"]) == 0
    scores, report = json.loads(capsys.readouterr().out), RunReport.load(folder)
    for name in ("mean_average_precision", "accuracy", "f1_macro", "f1_micro", "loss"):
        assert scores[name] == pytest.approx(getattr(report.test, name), abs=1e-6)
    for found, of_run in zip(scores["per_class"], report.test.per_class, strict=True):
        assert found == pytest.approx(of_run)
    assert (
        evaluate.main([str(folder), "--data.name", str(place / "labelled"), "--output", str(place / "rows.csv")]) == 0
    )
    printed = capsys.readouterr().out
    assert "mean_average_precision" in printed
    assert "top5" not in printed
    assert "class AP precision recall F1 threshold images" in " ".join(printed.split())
    assert (place / "rows.csv").read_text() == (folder / "predictions.csv").read_text()


def test_predict_gives_all_labels_above_their_thresholds(folder, place, tmp_path, capsys):
    thresholds = RunReport.load(folder).thresholds
    files = [str(place / "labelled" / "test" / f"{number:03}.png") for number in (40, 43, 47)]
    assert classify_command([str(folder), *files, "--format", "json", "--probabilities"]) == 0
    for row in json.loads(capsys.readouterr().out):
        expected = {name for name, at in zip(LABELS, thresholds, strict=True) if row["probabilities"][name] >= at}
        assert set(row["predicted"]) == expected
        assert [label["score"] for label in row["labels"]] == sorted(
            (row["probabilities"][n] for n in expected), reverse=True
        )
    assert classify_command([str(folder), *files, "--output", str(tmp_path / "rows.csv")]) == 0
    with (tmp_path / "rows.csv").open() as file:
        written = [row["predicted"] for row in csv.DictReader(file)]
    assert [set(cell.split("|")) - {""} for cell in written] == [set(), {"blue", "green"}, set(LABELS)]
    capsys.readouterr()
    assert classify_command([str(folder), *files]) == 0
    assert "no label" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--top_k: .* gives an image all labels above their thresholds. Leave it out"):
        classify_command([str(folder), *files, "--top_k", "2"])


def test_the_page_and_the_card_show_the_labels(folder):
    html, card = (folder / "report.html").read_text(), (folder / "model" / "README.md").read_text()
    for words in ("Test mAP", "Exact match", '<th scope="col">AP</th>', "Threshold", "Validation mAP", "blue + green"):
        assert words in html
    assert "Confusion" not in html
    assert "pipeline_tag: image-classification" in card
    assert re.search(r"\| class +\| +AP \| +precision \| +recall \| +F1 \| +threshold \| +images \|", card)
    assert 'classify("photo.jpg", top_k=3)' in card
    assert "type: mAP" in card
    assert page.main([str(folder)]) == 0
    assert (folder / "report.html").read_text() == html


def test_other_doors_refuse_it_by_name(folder, place, tmp_path):
    recipe = tmp_path / "several.yaml"
    multi_label_recipe(place).write(recipe)
    refusals = [
        (lambda: audit.main([str(folder)]), "only the labels of image-classification are judged"),
        (lambda: compress.main([str(folder)]), "only models for image-classification are exported"),
        (lambda: tune.main(["--recipe", str(recipe), "--output_dir", str(tmp_path / "tune")]), "does not search"),
        (lambda: page.main([str(folder), "--explain"]), "gives an image any number of labels"),
        (lambda: classify_command([str(folder), "a.png", "--explain", str(tmp_path)]), "any number of labels"),
    ]
    for call, message in refusals:
        with pytest.raises(UserError, match=message):
            call()


def test_python_predicts_with_a_folder_and_with_a_trainer_alike(place, folder, rows):
    image = str(place / "labelled" / rows[3]["file"])
    (found,) = hf_accel.predict(folder, image)
    assert [name for name, _ in found.labels] == sorted(("blue", "green"), key=dict(found.top).get, reverse=True)
    assert dict(found.top) == pytest.approx(dict(zip(LABELS, scores_in(rows)[3], strict=True)), abs=1e-5)
    assert found.label == found.top[0][0]


def test_rows_of_python_are_trained_and_scored_at_the_thresholds_that_they_give(place, tmp_path):
    sets = label_sets(40)
    images = [np.asarray(picture(labels, number)) for number, labels in enumerate(sets)]
    matrix = np.array([[int(name in labels) for name in LABELS] for labels in sets])
    recipe = multi_label_recipe(place, LONGER, {"training": {"output_dir": str(tmp_path)}})
    trainer = build_trainer(recipe, (images, matrix), label_names=LABELS)
    trainer.train()
    report = report_on(trainer)
    assert report.test.mean_average_precision > 0.9
    assert trainer.model.config.hf_accel_thresholds == report.thresholds
    assert trainer.evaluate((images, sets))["eval_mean_average_precision"] > 0.9
    found = hf_accel.predict(trainer, [PIL.Image.fromarray(images[3])])[0]
    logits = trainer.predict([images[3]]).predictions[0]
    np.testing.assert_allclose(sorted(score for _, score in found.top), np.sort(1 / (1 + np.exp(-logits))), rtol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio")
def test_the_demo_page_names_the_labels_above_their_thresholds(folder, place, rows):
    from hf_accel.hub.space_app import load_classifier

    answer, names, is_multi_label = load_classifier(str(folder / "model"))
    assert is_multi_label
    scores, remark = answer(PIL.Image.open(place / "labelled" / rows[3]["file"]).convert("RGB"))
    assert names == LABELS
    np.testing.assert_allclose(scores, scores_in(rows)[3], atol=1e-5)
    assert remark.startswith("**Labels:** ")
    listed = dict(part.split(" ") for part in remark.removeprefix("**Labels:** ").strip().split(", "))
    assert listed == {name: f"{100 * scores[names.index(name)]:.0f}%" for name in ("blue", "green")}


def test_without_validation_rows_the_thresholds_are_a_half(place, tmp_path):
    patch = {"data": {"validation": 0}, "training": {"output_dir": str(tmp_path / "run")}}
    report = RunReport.load(train(multi_label_recipe(place, patch)))
    assert report.thresholds is None
    assert {row["threshold"] for row in report.test.per_class} == {0.5}
