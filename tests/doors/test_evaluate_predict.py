import csv
import io
import json
import os
import subprocess
import sys

import pytest
from transformers import pipeline

from hf_accel import evaluate, predict
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A trained run on two colours, made once for this file."""
    from hf_accel.config.recipe import apply_patch, load_recipe
    from tests.conftest import TINY, write_photos

    place = tmp_path_factory.mktemp("trained")
    patch = {"data": {"name": str(write_photos(place))}, "training": {"output_dir": str(place / "run")}}
    more = {"training": {"num_train_epochs": 6}}
    return train(load_recipe("finetune", overrides=apply_patch(apply_patch(TINY, patch), more)))


def test_evaluate_repeats_the_test_figures_of_the_run(run_folder, capsys):
    report = RunReport.load(run_folder)
    assert evaluate.main([str(run_folder), "--format", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["rows"] == report.data.test_rows
    for name in ("accuracy", "f1_macro", "f1_micro", "f1_weighted"):
        assert scores[name] == getattr(report.test, name)
    assert scores["loss"] == pytest.approx(report.test.loss, rel=1e-5)
    assert scores["per_class"] == report.test.per_class


def test_evaluate_prints_a_table_and_csv_and_scores_the_other_splits(run_folder, capsys):
    evaluate.main([str(run_folder / "model"), "--split", "validation"])
    table = capsys.readouterr().out
    assert "validation split, 5 images" in table
    assert "f1_macro" in table
    assert "blue" in table
    evaluate.main([str(run_folder), "--split", "train", "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["rows"] == "19"


def test_evaluate_matches_classes_by_name_and_refuses_unknown_ones(run_folder, photos, capsys):
    for split in ("train", "test"):
        (photos / split / "blue").rename(photos / split / "zebra")
    with pytest.raises(UserError, match="does not know the class 'zebra'"):
        evaluate.main([str(run_folder), "--data.name", str(photos)])


def plain_folder(place, photos, **numbers):
    """Class folders without splits, with so many of the photographs of each class."""
    for label, number in numbers.items():
        (place / label).mkdir(parents=True)
        for file in sorted((photos / "train" / label).iterdir())[:number]:
            (place / label / file.name).write_bytes(file.read_bytes())
    return place


def scored(capsys, *argv):
    """The scores of `evaluate ... --format json`, and what it said on stderr."""
    capsys.readouterr()
    assert evaluate.main([*map(str, argv), "--format", "json"]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


def test_all_of_a_plain_folder_is_scored(run_folder, photos, tmp_path, capsys):
    folder = plain_folder(tmp_path / "plain", photos, blue=10, red=7)
    scores, said = scored(capsys, run_folder, "--data.name", folder)
    assert scores["rows"] == 17
    assert [row["support"] for row in scores["per_class"]] == [10, 7]
    assert scores["data_changed"] is None
    assert "all its rows (train) are scored" in said
    assert "warning" not in said


@pytest.mark.parametrize("place", ["plain", "plain/test"])
def test_a_folder_of_one_class_is_scored_and_the_absent_class_is_said(run_folder, photos, tmp_path, capsys, place):
    plain_folder(tmp_path / place, photos, red=9)
    scores, said = scored(capsys, run_folder, "--data.name", tmp_path / "plain")
    assert scores["rows"] == 9
    assert [(row["label"], row["support"]) for row in scores["per_class"]] == [("blue", 0), ("red", 9)]
    assert "no image of 1 of the model's 2 classes: 'blue'" in said
    assert scores["notes"][-1] in said


def test_the_classes_of_a_folder_are_matched_by_name_and_not_by_order(run_folder, photos, tmp_path, capsys):
    """red alone would be class 0 of its folder; it is class 1 of the model, which tells the colours apart."""
    alone, _ = scored(capsys, run_folder, "--data.name", plain_folder(tmp_path / "alone", photos, red=12))
    both, _ = scored(capsys, run_folder, "--data.name", plain_folder(tmp_path / "both", photos, blue=12, red=12))
    assert alone["per_class"][1]["recall"] == both["per_class"][1]["recall"]


def test_to_hold_rows_out_of_what_is_only_scored_is_refused(run_folder, photos):
    with pytest.raises(UserError, match=r"--data\.validation"):
        evaluate.main([str(run_folder), "--data.name", str(photos), "--data.validation", "0.2"])


@pytest.fixture
def run_without_splits(tmp_path, photos, tiny_recipe):
    """A run whose test rows are a fifth of a plain folder, and that folder."""
    folder = plain_folder(tmp_path / "plain", photos, blue=12, red=12)
    return train(tiny_recipe({"data": {"name": str(folder)}})), folder


def test_a_run_is_scored_on_its_own_rows_and_refused_where_they_moved(run_without_splits, photos, capsys):
    run, folder = run_without_splits
    report = RunReport.load(run)
    assert set(report.data.fingerprints) == {"train", "validation", "test"}
    scores, said = scored(capsys, run)
    assert (scores["rows"], scores["data_changed"]) == (report.data.test_rows, False)
    assert "warning" not in said
    for name in ("accuracy", "f1_macro"):
        assert scores[name] == getattr(report.test, name)
    fewer, _ = scored(capsys, run, "--data.max_test_rows", 2)
    assert (fewer["rows"], fewer["data_changed"]) == (2, False)
    named, said = scored(capsys, run, "--data.name", folder)
    assert named["rows"] == 24
    assert "was trained on rows of this data" in said
    for number in range(4):
        (folder / "blue" / f"new{number}.png").write_bytes((photos / "test" / "blue" / f"0{number}.png").read_bytes())
    for split in ("test", "validation"):
        with pytest.raises(UserError, match=rf"has changed since .*{split}: ") as refused:
            evaluate.main([str(run), "--split", split])
        assert "--data.name" in str(refused.value)
    scores, said = scored(capsys, run, "--split", "train")
    assert scores["data_changed"] is True
    assert "the train rows are not those" in said


def test_test_rows_that_were_added_are_scored_with_a_warning(tiny_recipe, photos, capsys):
    run = train(tiny_recipe())
    (photos / "train" / "red" / "more.png").write_bytes((photos / "train" / "red" / "00.png").read_bytes())
    scores, said = scored(capsys, run)
    assert (scores["rows"], scores["data_changed"]) == (8, False)  # there is more to train on: the test is the same
    assert "warning" not in said
    (photos / "test" / "red" / "more.png").write_bytes((photos / "train" / "red" / "00.png").read_bytes())
    scores, said = scored(capsys, run)
    assert (scores["rows"], scores["data_changed"]) == (9, True)
    assert "warning: the test rows are not those that" in said
    assert "8 rows before, 9 now" in said
    report = json.loads((run / "report.json").read_text())
    del report["data"]["fingerprints"]  # of an earlier version
    (run / "report.json").write_text(json.dumps(report))
    assert scored(capsys, run)[0]["data_changed"] is None


HOSTILE = "=1+1\x1b[2J"  # a class name: a formula, and an escape sequence that clears the screen
SCORES = {"model": "m", "data": "d", "split": "test", "rows": 1234, "test_time_augmentation": "none", "accuracy": 0.5,
          "top5_accuracy": None, "f1_macro": 0.25, "f1_micro": 0.5, "f1_weighted": 0.4, "loss": 12.5}  # fmt: skip
CLASSES = [
    {"label": HOSTILE, "precision": 0.5, "recall": 1.0, "f1": 0.6667, "support": 1200},
    {"label": "b", "precision": None, "recall": 0.0, "f1": 0.0, "support": 34},
]


def test_the_table_of_scores_is_aligned_and_shows_dashes_for_missing_figures(capsys):
    evaluate.render({**SCORES, "per_class": CLASSES}, "table")
    assert capsys.readouterr().out.splitlines() == [
        "m on d, test split, 1,234 images",
        "  accuracy          0.5000",
        "  top5_accuracy          -",
        "  f1_macro          0.2500",
        "  f1_micro          0.5000",
        "  f1_weighted       0.4000",
        "  loss             12.5000",
        "",
        "  class        precision  recall      F1  images",
        r"  =1+1\x1b[2J     0.5000  1.0000  0.6667   1,200",
        "  b                    -  0.0000  0.0000      34",
    ]


def test_csv_of_scores_quotes_a_formula_and_leaves_figures_alone(capsys):
    evaluate.render({**SCORES, "model": HOSTILE, "loss": -0.5, "per_class": CLASSES}, "csv")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["model"], row["loss"], row["top5_accuracy"]) == (r"'=1+1\x1b[2J", "-0.5", "")


@pytest.mark.parametrize("form", ["table", "csv"])
def test_predictions_do_not_act_in_a_terminal_or_a_spreadsheet(form, capsys):
    labels = [{"label": HOSTILE, "score": 0.75}, {"label": "b", "score": 0.25}]
    predict.render([{"file": "@a.png", "labels": labels}, {"file": "long name.png", "labels": labels[::-1]}], form)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    if form == "table":
        assert out.splitlines() == [
            r"@a.png         =1+1\x1b[2J 0.750  b 0.250",
            r"long name.png  b 0.250            =1+1\x1b[2J 0.750",
        ]
    else:
        assert out.splitlines()[:3] == [
            "file,rank,label,score",
            r"'@a.png,1,'=1+1\x1b[2J,0.750000",
            "'@a.png,2,b,0.250000",
        ]


def test_evaluate_needs_to_know_the_data_of_a_bare_model(tmp_path):
    with pytest.raises(UserError, match=r"--data\.name"):
        evaluate.main([str(tmp_path)])


def test_predict_agrees_with_the_pipeline(run_folder, photos, capsys):
    import hf_accel.cifar_nets  # noqa: F401

    files = sorted((photos / "test" / "red").iterdir())
    predict.main([str(run_folder), *map(str, files), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    expected = pipeline("image-classification", model=str(run_folder / "model"))([str(file) for file in files])
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row, scores in zip(rows, expected, strict=True):
        assert [x["label"] for x in row["labels"]] == [x["label"] for x in scores]
        assert [x["score"] for x in row["labels"]] == pytest.approx([x["score"] for x in scores], abs=1e-5)


def test_predict_takes_folders_and_globs_and_prints_tables_and_csv(run_folder, photos, capsys):
    predict.main([str(run_folder), str(photos / "test"), "--top_k", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 8
    predict.main([str(run_folder), str(photos / "test" / "*" / "0[01].png"), "--format", "csv", "--batch_size", "3"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 4 * 2
    assert {row["rank"] for row in rows} == {"1", "2"}


def test_predict_names_a_broken_file_or_leaves_it_out(run_folder, photos, capsys):
    (photos / "test" / "red" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        predict.main([str(run_folder), str(photos / "test")])
    predict.main([str(run_folder), str(photos / "test"), "--on_bad_image", "skip"])
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 8
    assert "bad.png" in shown.err


@pytest.mark.parametrize("argv", [["nothing.png"], ["--top_k", "0", "x.png"]])
def test_predict_refuses_a_pattern_that_matches_nothing(run_folder, argv):
    with pytest.raises(UserError):
        predict.main([str(run_folder), *argv])


def launch(module, *argv):
    """Two ranks on the CPU; without --multi_gpu accelerate would silently start one."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--main_process_port", "0", "-m", module, *map(str, argv)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_figures_of_one(run_folder, photos, capsys):
    """An odd number of images, so that a sampler that pads would count one twice."""
    (photos / "test" / "red" / "00.png").unlink()
    for module, main, argv in (
        ("hf_accel.evaluate", evaluate.main, [run_folder, "--data.name", photos, "--format", "json"]),
        ("hf_accel.predict", predict.main, [run_folder, photos / "test", "--format", "json"]),
    ):
        main(list(map(str, argv)))
        one = json.loads(capsys.readouterr().out)
        two = json.loads(launch(module, *argv))
        if module == "hf_accel.evaluate":
            assert one["rows"] == two["rows"] == 7
            assert {k: v for k, v in one.items() if k != "loss"} == {k: v for k, v in two.items() if k != "loss"}
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        else:
            assert len(one) == len(two) == 7
            assert [row["file"] for row in one] == [row["file"] for row in two]
            for a, b in zip(one, two, strict=True):
                assert [x["score"] for x in a["labels"]] == pytest.approx([x["score"] for x in b["labels"]], abs=1e-5)


def test_training_in_two_processes_says_so_and_matches_one(tiny_recipe, tmp_path):
    def recipe(folder, batch):
        training = {"per_device_train_batch_size": batch, "output_dir": str(tmp_path / folder), "optim": "sgd",
                    "label_smoothing_factor": 0}  # fmt: skip
        # 24 images less 8 held out are two whole batches: a last, smaller one would be padded on the second rank
        return tiny_recipe({"training": training, "model": {"freeze_batch_norm": True}, "data": {"validation": 0.33}})

    one = RunReport.load(train(recipe("one", 8)))
    recipe("two", 4).write(tmp_path / "two.yaml")
    launch("hf_accel.train", "--recipe", tmp_path / "two.yaml")
    two = RunReport.load(tmp_path / "two")
    assert (one.train.world_size, two.train.world_size) == (1, 2)
    assert (one.settings.get("ddp_find_unused_parameters"), two.settings["ddp_find_unused_parameters"]) == (None, False)
    assert one.train.effective_batch_size == two.train.effective_batch_size == 8
    assert sum(map(sum, two.test.confusion)) == 8
    assert two.train.final_loss == pytest.approx(one.train.final_loss, rel=1e-3)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-3)
