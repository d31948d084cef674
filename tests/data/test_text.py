"""Data sets of texts: which files and columns are read, which rows have no text, and which rows train and score."""

import json

import datasets
import numpy as np
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.text import load_text_split, load_text_splits
from hf_accel.errors import UserError
from tests.support.texts import rows, write_csv, write_reviews


def splits(name, seed=0, **settings):
    return load_text_splits(DataSettings(name=str(name), **settings), seed)


def write_lines(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")
    return path


def saved_as(kind, folder):
    """20 rows, all of them train."""
    table = rows(20)
    if kind == "csv":
        write_csv(folder / "train.csv", table)
    elif kind == "tsv":
        lines = [f"{row['text']}\t{row['label']}" for row in [{"text": "text", "label": "label"}, *table]]
        folder.mkdir()
        (folder / "train.tsv").write_text("\n".join(lines), "utf-8")
    elif kind == "jsonl":
        write_lines(folder / "train.jsonl", table)
    elif kind == "file":
        return write_csv(folder / "mine.csv", table)
    elif kind == "parquet":
        folder.mkdir()
        datasets.Dataset.from_list(table).to_parquet(folder / "train.parquet")
    elif kind == "save_to_disk":
        datasets.Dataset.from_list(table).save_to_disk(folder)
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_list(table)}).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "file", "parquet", "save_to_disk", "several saved"])
def test_every_form_of_a_table_gives_the_same_rows(kind, tmp_path):
    found = splits(saved_as(kind, tmp_path / "data"), validation=0.25)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 4, 4]
    assert found.label_names == ["negative", "positive"]
    expected = rows(20)
    for part in (found.train, found.validation, found.test):
        numbers = part.row_numbers()
        assert part.texts() == [expected[row]["text"] for row in numbers]
        assert [part.label_names[label] for label in part.labels] == [expected[row]["label"] for row in numbers]
    assert found.test_split == "train"
    assert "12 train, 4 validation, 4 test texts" in found.describe()


def test_files_are_split_by_their_names_and_the_fingerprint_follows_their_content(tmp_path):
    first, copy = (write_reviews(tmp_path / name) for name in ("one", "two"))
    one, two = splits(first), splits(copy)
    assert (len(one.train), len(one.test)) == (24, 8)
    assert one.fingerprint == two.fingerprint
    assert (
        splits(first, validation=0.2, seed=1).fingerprints["train"]
        != splits(first, validation=0.2).fingerprints["train"]
    )
    write_csv(copy / "test.csv", rows(8, seed=5))
    assert splits(copy).fingerprints["test"] != one.fingerprints["test"]


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        ({"sentence": "s"}, None, ("sentence",)),
        ({"text": "t", "content": "c"}, None, ("text",)),
        ({"title": "t", "content": "c"}, None, ("title", "content")),
        ({"anything": "x", "number": 1}, None, ("anything",)),
        ({"text": "t", "other": "o"}, "other", ("other",)),
        ({"head": "h", "body": "b"}, ["head", "body"], ("head", "body")),
    ],
)
def test_the_columns_of_text_are_found_or_named(columns, named, expected, tmp_path):
    table = [columns | {"label": number % 2} for number in range(10)]
    found = splits(write_lines(tmp_path / "train.jsonl", table), text_column=named)
    assert found.train.columns == expected
    assert found.train.texts(0, 1) == ["\n".join(columns[name] for name in expected)]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"one": "a", "two": "b"}, {}, r"no text column can be chosen: several could be it \(one, two\)"),
        ({"number": 5}, {}, "no text column can be chosen: there is none"),
        ({"text": "a"}, {"text_column": "review"}, "data.text_column is review, and .* has no such column"),
        ({"text": "a", "stars": 5}, {"text_column": "stars"}, "column stars holds int64, expected text"),
        ({"text": "a"}, {"label_column": "kind"}, "data.label_column is kind, and .* has no such column"),
    ],
)
def test_a_column_that_cannot_be_read_is_refused_with_all_columns(columns, settings, message, tmp_path):
    table = [columns | {"label": number % 2} for number in range(10)]
    with pytest.raises(UserError, match=message) as refusal:
        splits(write_lines(tmp_path / "train.jsonl", table), **settings)
    assert "Columns: " in str(refusal.value)


@pytest.mark.parametrize("bad", [None, "", " \n\t", 7])
def test_a_row_without_text_is_named_and_refused_or_left_out(bad, tmp_path):
    table = [{"text": f"a text {number}", "label": number % 2} for number in range(20)]
    table[4]["text"] = bad
    path = write_lines(tmp_path / "train.jsonl", table)
    with pytest.raises(UserError, match=r"row 4 of .*train split: has no text in text .* 1 of its 20 rows have none"):
        splits(path)
    found = splits(path, on_bad_text="skip")
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("row 4 of ")
    kept = np.concatenate([found.train.row_numbers(), found.test.row_numbers()])
    assert sorted(kept) == [row for row in range(20) if row != 4]
    assert "1 unreadable texts are left out" in found.describe()


def test_data_without_any_text_is_refused_even_if_bad_rows_are_skipped(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", [{"text": " ", "label": number % 2} for number in range(6)])
    with pytest.raises(UserError, match="6 of its 6 rows have none"):
        splits(path, on_bad_text="skip")


def test_a_column_without_text_is_left_out_of_a_joined_text(tmp_path):
    table = [{"title": "" if number else "T", "content": "c", "label": number % 2} for number in range(10)]
    found = splits(write_lines(tmp_path / "train.jsonl", table))
    row = list(found.train.row_numbers()).index(1)
    assert found.train.texts(row, row + 1) == ["c"]


def test_words_that_pandas_takes_for_missing_are_texts(tmp_path):
    path = write_csv(
        tmp_path / "train.csv", [{"text": t, "label": n % 2} for n, t in enumerate(["NA", "null", "None", "x"] * 3)]
    )
    assert {text for texts in splits(path).train.portions() for text in texts} == {"NA", "null", "None", "x"}


def test_texts_that_are_in_two_splits_are_counted(tmp_path):
    write_csv(tmp_path / "train.csv", rows(10))
    write_csv(tmp_path / "test.csv", [*rows(10)[:3], *rows(4, seed=9)])
    assert "3 of the 7 test texts are also train texts, word for word" in splits(tmp_path).notes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: (folder / "photo.png").write_bytes(b""),
            "none of its 1 files holds a table. Expected a folder of CSV",
        ),
        (
            lambda folder: [write_csv(folder / "a.csv", rows(4)), write_lines(folder / "b.jsonl", rows(4))],
            "several kinds",
        ),
        (
            lambda folder: write_csv(folder / "train.csv", [r | {"label": "same"} for r in rows(4)]),
            "texts of one class only",
        ),
        (lambda folder: write_csv(folder / "test.csv", rows(4)), "has no train split, only test"),
        (lambda folder: (folder / "train.jsonl").write_text("{"), "cannot be opened"),
    ],
)
def test_a_folder_that_is_not_a_data_set_of_texts_is_refused(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        splits(tmp_path)


def test_a_name_that_leads_nowhere_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        splits(tmp_path / "absent")
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match="is a file of another kind"):
        splits(tmp_path / "book.pdf")


def test_a_split_is_scored_alone_with_the_classes_that_it_has(tmp_path):
    write_reviews(tmp_path)
    write_csv(tmp_path / "test.csv", [row for row in rows(8, seed=3) if row["label"] == "positive"])
    scored = load_text_split(DataSettings(name=str(tmp_path)))
    assert (len(scored.split), scored.split.label_names, scored.taken) == (4, ["positive"], "test")
    (tmp_path / "test.csv").unlink()
    scored = load_text_split(DataSettings(name=str(tmp_path)))
    assert (len(scored.split), scored.taken) == (24, "train")


def test_real_reviews_have_titles_and_known_classes(data_dir):
    found = splits(data_dir / "amazon_reviews", validation=0.1)
    assert found.train.columns == ("title", "content")
    assert [len(part) for part in (found.train, found.validation, found.test)] == [2930, 326, 815]
    assert found.label_names == ["negative", "positive"]
