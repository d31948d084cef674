"""What words of a command line stand for: a text, a file of texts, a folder or a glob, whatever else is there."""

import io
import json
import pickle

import pytest

from hf_accel.data.text_files import TextSource, UnusableTextError, find_texts, listed_texts
from hf_accel.errors import UserError
from tests.support.texts import rows, write_csv


def found(*arguments, **settings):
    texts = find_texts([str(argument) for argument in arguments], **settings)
    listed = list(texts)
    assert len(texts) == len(listed)
    return listed


def test_an_argument_is_a_file_by_its_ending_and_else_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.txt").write_bytes("\ufefffirst\r\n\nthird".encode())
    write_csv(tmp_path / "table.csv", [{"text": "a", "label": "x"}, {"text": "", "label": "y"}])
    (tmp_path / "lines.jsonl").write_text('{"review": "b"}\n{"review": null}\n')
    listed = found("It works.", "more.txt", "table.csv", "lines.jsonl", "more")
    assert [(source.file, source.row, source.text, bool(source.problem)) for source in listed] == [
        (None, 0, "It works.", False),
        ("more.txt", 0, "first", False),
        ("more.txt", 1, "", True),
        ("more.txt", 2, "third", False),
        ("table.csv", 0, "a", False),
        ("table.csv", 1, "", True),
        ("lines.jsonl", 0, "b", False),
        ("lines.jsonl", 1, "", True),
        (None, 4, "more", False),
    ]
    assert "has no text in review (null, blank or not text)" in listed[-2].problem


def test_folders_and_globs_stand_for_their_files(tmp_path):
    for name in ("a/one.txt", "a/b/two.txt", "a/three.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [source.text for source in found(f"{tmp_path}/a/")] == ["a/b/two.txt", "a/one.txt"]
    assert [source.text for source in found(tmp_path / "a" / "*.txt")] == ["a/one.txt"]
    assert [source.text for source in found(tmp_path / "**" / "*.txt")] == ["a/b/two.txt", "a/one.txt"]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("gone.csv", r"gone\.csv: no such file or folder \(did you mean .*gene\.csv\?\)\. Expected a text, a file"),
        ("gone/", r"gone/: no such file or folder"),
        ("notes.md", r"notes\.md: is a file of another kind"),
        ("reviews", r"reviews: is a folder\. Write reviews/ for the texts in it"),
        ("reviews/", r"the folder holds no file of texts"),
        ("x*.csv", r"no file of texts matches this pattern"),
    ],
)
def test_what_could_be_a_mistake_is_refused(tmp_path, monkeypatch, argument, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "gene.csv").write_text("text\nx\n")
    with pytest.raises(UserError, match=problem):
        find_texts([argument])


def test_a_long_text_is_not_looked_up_as_the_name_of_a_file():
    assert [source.text for source in found("word " * 1000, "~nobody said so", "a\0b")][1:] == [
        "~nobody said so",
        "a\0b",
    ]


def test_columns_are_found_as_training_finds_them_or_are_named(tmp_path):
    titled = write_csv(tmp_path / "titled.csv", [{"title": "Great", "content": "It works.", "label": "x"}])
    assert [source.text for source in found(titled)] == ["Great\nIt works."]
    assert [source.text for source in found(titled, text_column="title")] == ["Great"]
    with pytest.raises(UserError, match=r"data\.text_column is body"):
        found(titled, text_column=["title", "body"])
    other = write_csv(tmp_path / "other.csv", [{"phrase": "a", "label": "x"}])
    assert [source.text for source in found(other)] == ["a"]


def test_a_line_that_is_not_utf8_is_named_and_the_others_are_read(tmp_path):
    (tmp_path / "mixed.txt").write_bytes(b"good\n\xff\xfe bad\nfine\n")
    assert [source.problem for source in found(tmp_path / "mixed.txt")] == ["", "it is not UTF-8", ""]


def test_standard_input_has_a_text_per_line():
    assert [(source.text, source.where) for source in listed_texts(io.StringIO("a\n\nb\n"))] == [
        ("a", "row 0 of standard input"),
        ("", "row 1 of standard input"),
        ("b", "row 2 of standard input"),
    ]
    stream = io.TextIOWrapper(io.BytesIO(b"a\r\n\xff\n"))
    assert [source.text for source in listed_texts(stream)] == ["a", ""]


def test_the_error_of_a_row_survives_the_way_to_another_process():
    with pytest.raises(UnusableTextError) as refused:
        TextSource("", 3, "a.csv", "it is blank").require_text()
    copied = pickle.loads(pickle.dumps(refused.value))
    assert (str(copied), copied.where, copied.reason) == (str(refused.value), "row 3 of a.csv", "it is blank")


def test_a_table_of_another_encoding_or_with_broken_lines_is_refused_with_its_name(tmp_path):
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows(1)[0]) + "\n{not json\n")
    with pytest.raises(UserError, match=r"broken\.jsonl"):
        find_texts([str(tmp_path / "broken.jsonl")])
