"""Labels stated next to the pictures come before the names of folders."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.data_sets import counts, load, png, refusal, tables_cache, write_folder  # noqa: F401


def write_metadata(folder, rows, form="csv"):
    """rows: dictionaries of one set of keys."""
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    elif form == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines))


def flat(folder, count, label=lambda n: ("fox", "owl")[n % 2], start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(start, start + count):
        (folder / f"{n}.png").write_bytes(png(n))
    return [{"file_name": f"{n}.png", "label": label(n)} for n in range(start, start + count)]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_stated_labels_of_a_flat_folder_are_read(form, tmp_path):
    write_metadata(tmp_path, flat(tmp_path, 20), form)
    splits = load(tmp_path)
    assert splits.label_names == ["fox", "owl"]
    assert (counts(splits.train), counts(splits.test)) == ([8, 8], [2, 2])
    for row in range(len(splits.train)):
        assert splits.train.read(row)[0, 0, 0] % 2 == splits.train.labels[row]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_each_split_may_state_its_labels(form, tmp_path):
    for split, count, start in (("training_set", 8, 0), ("test", 4, 100)):
        write_metadata(tmp_path / split, flat(tmp_path / split, count, start=start), form)
    splits = load(tmp_path)
    assert (counts(splits.train), counts(splits.test)) == ([4, 4], [2, 2])
    assert splits.test.read(0)[0, 0, 0] >= 100


def test_one_file_at_the_root_may_state_the_labels_of_every_split(tmp_path):
    rows = []
    for split, count, start in (("train", 8, 0), ("val", 4, 100)):
        rows += [
            row | {"file_name": f"{split}/{row['file_name']}"} for row in flat(tmp_path / split, count, start=start)
        ]
    write_metadata(tmp_path, rows)
    splits = load(tmp_path)
    assert (counts(splits.train), counts(splits.test)) == ([4, 4], [2, 2])


def test_a_split_column_says_where_a_row_belongs(tmp_path):
    rows = [row | {"split": "Testing" if n < 4 else "train"} for n, row in enumerate(flat(tmp_path, 12))]
    write_metadata(tmp_path, rows)
    splits = load(tmp_path)
    assert (counts(splits.train), counts(splits.test)) == ([4, 4], [2, 2])
    write_metadata(tmp_path, [row | {"split": n} for n, row in enumerate(rows)])
    assert "row 0: split is '0', expected train, validation or test" in refusal(tmp_path)


def test_stated_labels_come_before_the_names_of_folders(tmp_path):
    write_folder(tmp_path, {"batch1": 10, "batch2": 10})
    rows = [
        {"file_name": f"batch{b}/{n:03}.png", "label": "fox" if n < 5 else "owl"} for b in (1, 2) for n in range(10)
    ]
    write_metadata(tmp_path, rows)
    splits = load(tmp_path)
    assert splits.label_names == ["fox", "owl"]
    assert counts(splits.train) == [8, 8]


def test_metadata_without_labels_leaves_the_folders_and_says_so(tmp_path):
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    write_metadata(tmp_path, [{"file_name": "cat/000.png", "caption": "a cat"}])
    splits = load(tmp_path)
    assert splits.label_names == ["cat", "dog"]
    assert any(
        note.startswith("metadata.csv has no label column (its columns: file_name, caption)") for note in splits.notes
    )


def test_a_label_column_of_any_name_can_be_named(tmp_path):
    rows = [{"file_name": row["file_name"], "species": row["label"]} for row in flat(tmp_path, 10)]
    write_metadata(tmp_path, rows)
    message = refusal(tmp_path)
    assert "are not in class folders" in message
    assert "has no label column (its columns: file_name, species): not read; name it with data.label_column" in message
    assert load(tmp_path, label_column="species").label_names == ["fox", "owl"]


def test_whole_numbers_keep_their_order(tmp_path):
    write_metadata(tmp_path, flat(tmp_path, 24, label=lambda n: (2, 10, 9)[n % 3]))
    assert load(tmp_path).label_names == ["2", "9", "10"]


def test_pictures_that_are_not_named_are_counted(tmp_path):
    rows = flat(tmp_path, 20)
    write_metadata(tmp_path, rows[:16])
    splits = load(tmp_path)
    assert len(splits.train) + len(splits.test) == 16
    assert any(
        note.startswith("4 files are not images, or are not named by the stated labels") for note in splits.notes
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, {"file_name": "../secret.png", "label": "fox"}], "row 10: file_name is '../secret.png'"),
        (lambda rows: [*rows, {"file_name": "/etc/passwd", "label": "fox"}], "row 10: file_name is '/etc/passwd'"),
        (lambda rows: [*rows, {"file_name": "a/../../x.png", "label": "fox"}], "below the data folder"),
        (lambda rows: [*rows, {"file_name": "", "label": "fox"}], "row 10: file_name is ''"),
        (lambda rows: [*rows, rows[0] | {"label": "owl"}], "0.png is 'owl' here and 'fox' elsewhere"),
        (lambda rows: [row | {"label": " "} if n == 3 else row for n, row in enumerate(rows)], "label is ' '"),
        (lambda rows: [row | {"file_name": f"gone{n}.png"} for n, row in enumerate(rows)], "none of the 10 files"),
    ],
)
def test_metadata_that_is_wrong_is_refused_by_its_row(change, message, tmp_path):
    write_metadata(tmp_path, change(flat(tmp_path, 10)))
    assert message in refusal(tmp_path)


def test_metadata_that_cannot_be_read_is_refused_by_name(tmp_path):
    rows = flat(tmp_path, 4)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png"\n')
    assert "metadata.jsonl, line 1: is not JSON" in refusal(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("[1]\n")
    assert "metadata.jsonl, line 1: is [1], expected an object" in refusal(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "label": [1]}))
    assert "label is [1], expected one label" in refusal(tmp_path)
    write_metadata(tmp_path, rows)
    assert "there is another metadata file next to it" in refusal(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\n\xff.png,a\n")
    assert "metadata.csv: cannot be read" in refusal(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,a,b\n")
    assert "row 0: has 3 values, expected 2" in refusal(tmp_path)


def test_other_stated_labels_are_another_fingerprint(tmp_path):
    rows = flat(tmp_path, 20)
    write_metadata(tmp_path, rows)
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    write_metadata(tmp_path, [rows[0] | {"label": "owl"}, rows[1] | {"label": "fox"}, *rows[2:]])
    assert load(tmp_path).fingerprint != first


def test_a_pipe_or_device_that_is_named_is_never_opened(tmp_path):
    rows = flat(tmp_path, 10)
    (tmp_path / "3.png").unlink()
    os.mkfifo(tmp_path / "3.png")
    write_metadata(tmp_path, rows)
    assert "3.png: is not a regular file" in refusal(tmp_path)
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").symlink_to("/dev/zero")
    assert "3.png: is not a regular file" in refusal(tmp_path)
