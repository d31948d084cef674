import csv
import io
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import pipeline

from hf_accel import demo, evaluate
from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.predict import main as predict_main
from hf_accel.report.run_report import RunReport
from hf_accel.runs import manifest
from hf_accel.tasks.image_classification import ImageClassification
from hf_accel.tasks.predictions import PredictionShape
from hf_accel.tasks.printed_predictions import render as render_predictions
from hf_accel.tasks.texts import TEXTS
from hf_accel.train import train
from tests.support.two_processes import output_of_two, train_in_two_processes

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


def test_evaluate_writes_a_row_for_each_image_in_the_shape_of_the_runs_own(run_folder, tmp_path, capsys):
    for split, ending in (("test", "csv"), ("validation", "jsonl")):
        output = tmp_path / f"rows.{ending}"
        scores, said = scored(capsys, run_folder, "--split", split, "--output", output, "--probabilities")
        assert f"{output}: the predictions for {scores['rows']} rows" in said
        text = output.read_text()
        rows = list(csv.DictReader(io.StringIO(text)) if ending == "csv" else map(json.loads, text.splitlines()))
        assert len(rows) == scores["rows"]
        assert sum(row["label"] == row["predicted"] for row in rows) == round(scores["accuracy"] * len(rows))
        for row in rows:
            of_all = (
                row["probabilities"]
                if "probabilities" in row
                else {name: row[f"p({name})"] for name in ("blue", "red")}
            )
            assert max(map(float, of_all.values())) == pytest.approx(float(row["confidence"]), abs=1e-6)
            assert row["file"].startswith("test/" if split == "test" else "train/")
    own = list(csv.DictReader(io.StringIO((run_folder / "predictions.csv").read_text())))
    again = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [{name: row[name] for name in own[0]} for row in again] == own
    with pytest.raises(UserError, match="exists already"):
        evaluate.main([str(run_folder), "--output", str(tmp_path / "rows.csv")])
    with pytest.raises(UserError, match="--output FILE"):
        evaluate.main([str(run_folder), "--probabilities"])


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
    evaluate.render({**SCORES, "per_class": CLASSES}, "table", TEXTS["image-classification"])
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
    evaluate.render(
        {**SCORES, "model": HOSTILE, "loss": -0.5, "per_class": CLASSES}, "csv", TEXTS["image-classification"]
    )
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["model"], row["loss"], row["top5_accuracy"]) == (r"'=1+1\x1b[2J", "-0.5", "")


@pytest.mark.parametrize("form", ["table", "csv"])
def test_predictions_do_not_act_in_a_terminal_or_a_spreadsheet(form, capsys):
    shape = PredictionShape([HOSTILE, "b"], top_k=2)
    rows = [
        shape.row(np.array(scores), file=file) for file, scores in (("@a.png", [0.75, 0.25]), ("long name.png", [0, 1]))
    ]
    render_predictions(iter(rows), form, shape)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    if form == "table":
        assert out.splitlines() == [
            r"@a.png         =1+1\x1b[2J 0.750  b 0.250",
            r"long name.png  b 1.000            =1+1\x1b[2J 0.000",
        ]
    else:
        assert out.splitlines()[:2] == [
            "row,file,label,predicted,confidence,predicted_2,confidence_2",
            r",'@a.png,,'=1+1\x1b[2J,0.750000,b,0.250000",
        ]


def test_a_table_keeps_its_columns_from_batch_to_batch_and_json_is_one_list(capsys):
    shape = PredictionShape(["a", "b"], top_k=1)
    rows = [shape.row(np.array([0.75, 0.25]), file=file) for file in ("long name.png", "b.png", "c.png")]
    render_predictions(iter(rows), "table", shape, rows_at_once=1)
    assert capsys.readouterr().out.splitlines() == [f"{row.file:13}  a 0.750" for row in rows]
    for count in (0, 3):
        render_predictions(iter(rows[:count]), "json", shape)
        assert [row["file"] for row in json.loads(capsys.readouterr().out)] == [row.file for row in rows[:count]]


def test_evaluate_needs_to_know_the_data_of_a_bare_model(tmp_path):
    with pytest.raises(UserError, match=r"--data\.name"):
        evaluate.main([str(tmp_path)])


def test_predict_agrees_with_the_pipeline(run_folder, photos, capsys):
    import hf_accel.cifar_nets  # noqa: F401

    files = sorted((photos / "test" / "red").iterdir())
    predict_main([str(run_folder), *map(str, files), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    expected = pipeline("image-classification", model=str(run_folder / "model"))([str(file) for file in files])
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row, scores in zip(rows, expected, strict=True):  # pixels differ by up to two levels of 255
        assert [x["label"] for x in row["labels"]] == [x["label"] for x in scores]
        assert [x["score"] for x in row["labels"]] == pytest.approx([x["score"] for x in scores], abs=1e-3)


def test_predict_in_bf16_is_a_setting_of_the_rows(run_folder, photos, tmp_path, capsys, monkeypatch):
    command = [str(run_folder), str(photos / "test"), "--format", "csv"]
    shown = {}
    for native in (True, False):
        monkeypatch.setattr("hf_accel.machine.precision.native_bf16", lambda device, native=native: (native, ""))
        for asked in ("true", "auto", "false"):
            predict_main([*command, "--bf16", asked])
            shown[native, asked] = capsys.readouterr().out
    assert shown[True, "auto"] == shown[True, "true"] == shown[False, "true"] != shown[True, "false"]
    assert shown[False, "auto"] == shown[False, "false"] == shown[True, "false"]
    output = ["--output", str(tmp_path / "rows.csv")]
    predict_main([*command, *output])
    with pytest.raises(UserError, match=r"begun with other settings \(bf16 was null and is true\)"):
        predict_main([*command, *output, "--bf16", "true"])


def test_scoring_keeps_the_memory_that_a_batch_has_freed(run_folder, photos, monkeypatch):
    # glibc's default cost two thirds of the time: every batch had the pages of its activations zeroed again
    asked = []
    monkeypatch.setattr("hf_accel.machine.allocator.keep_freed_memory", lambda: asked.append("kept"))
    evaluate.main([str(run_folder)])
    assert asked == ["kept"]
    predict_main([str(run_folder), str(photos / "test")])
    assert asked == ["kept", "kept"]


def test_predict_takes_folders_and_globs_and_prints_tables_and_csv(run_folder, photos, capsys):
    predict_main([str(run_folder), str(photos / "test"), "--top_k", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 8
    images = str(photos / "test" / "*" / "0[01].png")
    predict_main([str(run_folder), images, "--format", "csv", "--batch_size", "3", "--probabilities"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 4
    for row in rows:
        assert float(row[f"p({row['predicted']})"]) == max(float(row["p(blue)"]), float(row["p(red)"]))


def test_predict_reads_a_list_on_standard_input(run_folder, photos, capsys, monkeypatch):
    lines = [photos / "test" / "red" / "00.png", photos / "gone.png", "", photos / "test" / "blue"]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert predict_main([str(run_folder), "-", "--format", "jsonl"]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 5
    assert json.loads(shown.out.splitlines()[0])["file"] == str(lines[0])
    assert "gone.png" in shown.err
    assert "1 of 6 images could not be read" in shown.err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(UserError, match="no image is named on standard input"):
        predict_main([str(run_folder), "-"])
    with pytest.raises(UserError, match="cannot be combined"):
        predict_main([str(run_folder), "-", "a.png"])


def test_predict_names_a_broken_file_and_classifies_the_others(run_folder, photos, capsys):
    bad = photos / "test" / "red" / "bad.png"
    bad.write_bytes(b"no image")
    for policy, code in (("report", 1), ("skip", 0)):
        assert predict_main([str(run_folder), str(photos / "test"), "--on_bad_image", policy]) == code
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 8
        assert f"left out: {bad}: cannot be read as an image" in shown.err
        assert "1 of 9 images could not be read" in shown.err
    with pytest.raises(UserError, match=r"bad\.png"):
        predict_main([str(run_folder), str(photos / "test"), "--on_bad_image", "error"])
    with pytest.raises(UserError, match=r"^[^ ]*bad\.png: cannot be read as an image"):
        predict_main([str(run_folder), str(bad)])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_interrupted_file_of_predictions_is_continued(run_folder, photos, tmp_path, capsys, monkeypatch, ending):
    output = tmp_path / f"rows.{ending}"
    command = [str(run_folder), str(photos / "test"), "--output", str(output), "--batch_size", "2"]
    score = ImageClassification.score_sources
    scored = []

    def interrupted(task, loaded, sources, *args, **kwargs):
        for answer in score(task, loaded, sources, *args, **kwargs):
            if len(scored) == 3:
                raise KeyboardInterrupt
            scored.append(answer.source)
            yield answer

    monkeypatch.setattr(ImageClassification, "score_sources", interrupted)
    assert run(predict_main, command) == 130
    assert f"3 rows are in {output}" in capsys.readouterr().err
    monkeypatch.setattr(ImageClassification, "score_sources", score)
    part = output.read_text()
    output.write_text(part + part.splitlines()[-1][:9])  # a row of which only a part was written
    assert predict_main(command) == 0
    assert output.read_text().startswith(part)
    whole = output.read_text()
    assert predict_main(command) == 0, "there is nothing left to do"
    assert output.read_text() == whole
    output.unlink()
    assert predict_main(command) == 0
    (files, scores), (all_files, all_scores) = (
        (*map(list, zip(*read_rows(text), strict=True)),) for text in (whole, output.read_text())
    )
    assert files == all_files
    assert scores == pytest.approx(all_scores, abs=1e-5)  # a batch of other images rounds otherwise


def read_rows(text: str) -> list[tuple[str, float]]:
    """File and confidence of each row of a CSV or JSON lines file."""
    rows = map(json.loads, text.splitlines()) if text.startswith("{") else csv.DictReader(io.StringIO(text))
    return [(row["file"], float(row["confidence"])) for row in rows]


def test_a_file_of_other_origin_or_of_another_model_is_left_as_it_is(run_folder, photos, tmp_path):
    output = tmp_path / "rows.csv"
    command = [str(run_folder), str(photos / "test" / "red"), "--output", str(output)]
    output.write_text("mine")
    with pytest.raises(UserError, match="does not say that hf-accel predict wrote it"):
        predict_main(command)
    assert output.read_text() == "mine"
    output.unlink()
    predict_main(command)
    whole = output.read_text()
    with pytest.raises(UserError, match="top_k was 1 and is 2"):
        predict_main([*command, "--top_k", "2"])
    other = tmp_path / "other"
    shutil.copytree(run_folder / "model", other)
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.5 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    manifest.commit(other)
    with pytest.raises(UserError, match="rows of another model"):
        predict_main([str(other), *command[1:]])
    assert output.read_text() == whole
    for name, problem in (("rows.txt", r"ends in \.csv"), ("no/rows.csv", "does not exist")):
        with pytest.raises(UserError, match=problem):
            predict_main([*command[:-1], str(tmp_path / name)])


def test_nothing_is_written_where_no_image_can_be_read(run_folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        predict_main([str(run_folder), str(tmp_path / "bad.png"), "--output", str(tmp_path / "rows.csv")])
    assert [path.name for path in tmp_path.glob("rows*")] == []


@pytest.mark.parametrize("main", [predict_main, evaluate.main, demo.main])
def test_a_mistyped_folder_is_answered_as_one_and_not_as_an_id_on_the_hub(main, tmp_path, monkeypatch):
    (tmp_path / "outputs" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    more = ["a.png"] if main is predict_main else []
    for name in ("outputs/digts", "./outputs/digts", str(tmp_path / "outputs" / "digts")):
        with pytest.raises(UserError, match=r"digts: no such folder\. Did you mean digits\?"):
            main([name, *more])
    monkeypatch.chdir("outputs")
    with pytest.raises(UserError, match=r"^digts: no such folder, .*owner/name\. Did you mean digits\?"):
        main(["digts", *more])


def test_a_mistyped_image_is_answered_with_its_neighbours(run_folder, photos):
    with pytest.raises(UserError, match=r"0O\.png: no such file or folder \(did you mean .*/red/0\d\.png"):
        predict_main([str(run_folder), str(photos / "test" / "red" / "0O.png")])


@pytest.mark.parametrize("argv", [["nothing.png"], ["--top_k", "0", "x.png"]])
def test_predict_refuses_a_pattern_that_matches_nothing(run_folder, argv):
    with pytest.raises(UserError):
        predict_main([str(run_folder), *argv])


def test_two_processes_give_the_figures_of_one(run_folder, photos, capsys):
    """An odd number of images, so that a sampler that pads would count one twice."""
    (photos / "test" / "red" / "00.png").unlink()
    for module, main, argv in (
        ("hf_accel.evaluate", evaluate.main, [run_folder, "--data.name", photos, "--format", "json"]),
        ("hf_accel.predict", predict_main, [run_folder, photos / "test", "--format", "json"]),
    ):
        main(list(map(str, argv)))
        one = json.loads(capsys.readouterr().out)
        two = json.loads(output_of_two("-m", module, *argv))
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
        # 17 images: the last step has one, and the second process none
        data = {"validation": 0, "max_train_rows": 17}
        return tiny_recipe({"training": training, "model": {"freeze_batch_norm": True}, "data": data})

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    assert one.train.world_size == 1
    assert (one.settings.get("ddp_find_unused_parameters"), two.settings["ddp_find_unused_parameters"]) == (None, False)
    assert one.train.effective_batch_size == two.train.effective_batch_size == 8
    assert sum(map(sum, two.test.confusion)) == 8
    assert two.train.final_loss == pytest.approx(one.train.final_loss, rel=1e-3)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-3)
