"""`hf-accel predict` with a text classifier: texts, files of texts, standard input, and a file of rows that is continued."""

import csv
import io
import json

import pytest
from transformers import AutoModel, pipeline

from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.predict import main
from hf_accel.tasks.text_classification import TextClassification
from tests.support.texts import LABELS, rows, save_text_model, write_csv


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_text_model(tmp_path_factory.mktemp("texts") / "model", "xlnet", LABELS)


def test_texts_and_files_are_told_apart_and_answered_as_by_the_pipeline(model, tmp_path, capsys):
    table = rows(9)
    file = write_csv(tmp_path / "reviews.csv", table)
    (tmp_path / "more.txt").write_text("it is good\nbad thing\n")
    main([str(model), "a fine thing", str(file), str(tmp_path / "more.txt"), "--format", "json", "--batch_size", "4"])
    found = json.loads(capsys.readouterr().out)
    texts = ["a fine thing", *(row["text"] for row in table), "it is good", "bad thing"]
    assert [row["text"] for row in found] == texts
    assert [(row.get("file"), row["row"]) for row in found[:3]] == [(None, 0), (str(file), 0), (str(file), 1)]
    for row, expected in zip(found, pipeline("text-classification", model=str(model), top_k=None)(texts), strict=True):
        assert [each["label"] for each in row["labels"]] == [each["label"] for each in expected]
        scores = [each["score"] for each in row["labels"]]
        assert scores == pytest.approx([each["score"] for each in expected], abs=1e-5)


def test_a_table_shows_the_text_shortened_and_csv_has_it_in_a_column(model, tmp_path, capsys):
    file = write_csv(tmp_path / "a.csv", [{"text": "good thing " * 9}, {"text": "=bad\nthing"}])
    main([str(model), "fine", str(file), "--top_k", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fine ")
    assert f"{file}, row 0: good thing good" in lines[1]
    assert "…" in lines[1]
    main([str(model), str(file), "--format", "csv", "--probabilities"])
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(found[0]) == ["row", "file", "text", "label", "predicted", "confidence", "p(negative)", "p(positive)"]
    assert found[1]["text"].startswith("'=bad"), "a spreadsheet must not run it"


def test_rows_without_text_are_named_and_the_others_are_classified(model, tmp_path, capsys, monkeypatch):
    file = write_csv(tmp_path / "a.csv", [{"text": "good"}, {"text": ""}, {"text": "bad"}])
    for policy, code in (("report", 1), ("skip", 0)):
        assert main([str(model), str(file), "--on_bad_text", policy]) == code
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 2
        assert f"left out: row 1 of {file}: cannot be classified: it has no text in text" in shown.err
        assert "1 of 3 texts could not be read" in shown.err
    with pytest.raises(UserError, match="leave out --on_bad_text error"):
        main([str(model), str(file), "--on_bad_text", "error"])
    with pytest.raises(UserError, match="row 0 of the texts that are given: cannot be classified: it is blank"):
        main([str(model), " "])
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n\nbad\n"))
    assert main([str(model), "-", "--format", "jsonl"]) == 1
    assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == [0, 2]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(UserError, match="no text is named on standard input, expected one text per line"):
        main([str(model), "-"])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_interrupted_file_is_continued_and_equal_texts_are_rows_of_their_own(
    model, tmp_path, capsys, monkeypatch, ending
):
    table = [{"text": text} for text in ("good", "bad", "good", "-1 is\nbad", "fine thing")]
    file, output = write_csv(tmp_path / "a.csv", table), tmp_path / f"rows.{ending}"
    command = [str(model), "good", str(file), "--output", str(output), "--batch_size", "1"]
    score = TextClassification.score_sources

    def interrupted(*args, **kwargs):
        for number, answer in enumerate(score(*args, **kwargs)):
            if number == 5:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(TextClassification, "score_sources", interrupted)
    assert run(main, command) == 130
    monkeypatch.setattr(TextClassification, "score_sources", score)
    part = output.read_text()
    output.write_text(part + part.splitlines()[-1][:9])  # a row of which only a part was written
    assert main(command) == 0
    whole = output.read_text()
    assert whole.startswith(part)
    assert len(whole.splitlines()) == 6 + (ending == "csv")
    assert main(command) == 0, "there is nothing left to do"
    assert output.read_text() == whole
    capsys.readouterr()
    with pytest.raises(UserError, match=r"begun with other settings \(text_column was null and is \[\"text\"\]\)"):
        main([*command, "--data.text_column", "text"])


def test_a_model_that_cannot_be_had_is_named_before_what_it_was_to_classify():
    with pytest.raises(UserError, match=r"model\.name: nobody/reviews is not on this machine"):
        main(["nobody/reviews", "It works."])


def test_settings_of_images_are_refused_for_texts_and_those_of_texts_for_images(model, tmp_path, monkeypatch):
    for flag, value in (("--test_time_augmentation", "flip"), ("--data.max_pixels", "9")):
        with pytest.raises(UserError, match=f"{flag}: has no effect, because .*model classifies texts"):
            main([str(model), "good", flag, value])
    monkeypatch.setattr("hf_accel.models.kind.task_of_model", lambda place: "image-classification")
    with pytest.raises(UserError, match=r"--data\.text_column: has no effect, because .* classifies images"):
        main([str(model), "good", "--data.text_column", "a"])


def test_a_model_that_was_never_trained_to_classify_is_refused(tmp_path):
    folder = save_text_model(tmp_path / "whole", "bert", LABELS)
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "base")
    for path in folder.glob("tokenizer*"):
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"has no weights for classifier\.bias, so it is not a classifier"):
        main([str(tmp_path / "base"), "good"])
