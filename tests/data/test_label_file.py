"""Labels in a table of their own give the same rows as class folders do, and every mistake in it is named."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes, given_splits
from hf_accel.data.scored_rows import load_split
from tests.support.data_sets import counts, load, png, refusal, tables_cache  # noqa: F401


def pictures(folder, count=20):
    """Images whose red value is their number, without class folders."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(png(number))
    return folder


def rows(count=20, file="file_name", label="label", **more):
    """Even numbers are foxes."""
    return [
        {file: f"{n:02}.png", label: ("fox", "owl")[n % 2]} | {key: value(n) for key, value in more.items()}
        for n in range(count)
    ]


def write(path, table):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, table)))
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [table[0], *(row.values() for row in table)]
        path.write_text("\n".join(delimiter.join(map(str, line)) for line in lines))
    return str(path)


def load_rows(tmp_path, table, name="labels.csv", **settings):
    folder = tmp_path / "photos"
    if not folder.exists():
        pictures(folder)
    return load(folder, labels=write(tmp_path / name, table), **settings)


def refused_rows(tmp_path, table, **settings):
    pictures(tmp_path / "photos")
    return refusal(tmp_path / "photos", labels=write(tmp_path / "labels.csv", table), **settings)


def assert_right(splits):
    for part in (splits.train, splits.test):
        for row in range(len(part)):
            assert part.label_names[part.labels[row]] == ("fox", "owl")[part.read(row)[0, 0, 0] % 2]


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet"])
def test_a_table_of_each_kind_gives_every_image_its_label(name, tmp_path):
    splits = load_rows(tmp_path, rows(), name)
    assert splits.label_names == ["fox", "owl"]
    assert (counts(splits.train), counts(splits.test)) == ([8, 8], [2, 2])
    assert_right(splits)


def test_a_csv_with_semicolons_is_read(tmp_path):
    pictures(tmp_path / "photos")
    (tmp_path / "labels.csv").write_text("file;label\n" + "\n".join(f"{n:02}.png;{'ab'[n % 2]}" for n in range(20)))
    assert load(tmp_path / "photos", labels=str(tmp_path / "labels.csv")).label_names == ["a", "b"]


@pytest.mark.parametrize(("file", "label"), [("image", "category"), ("path", "target"), ("whatever", "kind")])
def test_columns_are_found_by_name_or_because_only_they_can_be_it(file, label, tmp_path):
    assert_right(load_rows(tmp_path, rows(file=file, label=label)))


def test_columns_can_be_named(tmp_path):
    table = rows(file="shown", label="kind", file_name=lambda n: f"x{n}.png", label_id=str)
    assert_right(load_rows(tmp_path, table, image_column="shown", label_column="kind"))
    message = refusal(tmp_path / "photos", labels=str(tmp_path / "labels.csv"), label_column="sort")
    assert "data.label_column is sort, and data.labels" in message
    assert "Columns: shown, kind, file_name, label_id." in message


def test_an_undecided_column_is_asked_for(tmp_path):
    message = refused_rows(tmp_path, rows(label="genus", weight=str))
    assert (
        "no column of labels can be chosen. Columns: file_name, genus, weight. Name one with data.label_column"
        in message
    )


def test_a_table_without_a_row_of_names_is_recognised(tmp_path):
    pictures(tmp_path / "photos")
    (tmp_path / "labels.csv").write_text("\n".join(f"{n:02}.png,fox" for n in range(20)))
    message = refusal(tmp_path / "photos", labels=str(tmp_path / "labels.csv"))
    assert "its first row is an image, expected the names of the columns. Columns: 00.png, fox." in message


@pytest.mark.parametrize(
    "change",
    [
        lambda name, folder: f"photos/{name}",  # relative to the table
        lambda name, folder: str(folder / "photos" / name),
        lambda name, folder: f"./sub/../{name}",
        lambda name, folder: name.removesuffix(".png"),
    ],
)
def test_paths_are_found_below_the_folder_or_next_to_the_table(change, tmp_path):
    table = [row | {"file_name": change(row["file_name"], tmp_path)} for row in rows()]
    assert_right(load_rows(tmp_path, table, label_column="label", image_column="file_name"))


def test_a_path_out_of_the_folders_is_refused(tmp_path):
    table = [*rows(), {"file_name": "../../etc/secret.png", "label": "fox"}]
    message = refused_rows(tmp_path, table)
    assert "row 20: file_name is ../../etc/secret.png, expected the path of a file below" in message


def test_missing_files_are_named_or_left_out(tmp_path):
    table = [*rows(), {"file_name": "gone.png", "label": "fox"}, {"file_name": "lost.png", "label": "owl"}]
    message = refused_rows(tmp_path, table)
    assert "2 of the files that it names are not there" in message
    assert "gone.png, lost.png" in message
    splits = load(tmp_path / "photos", labels=str(tmp_path / "labels.csv"), on_bad_image="skip")
    assert len(splits.train) + len(splits.test) == 20
    assert any("2 rows of data.labels" in note and "not there" in note for note in splits.notes)


def test_a_table_of_other_files_says_where_one_of_them_is(tmp_path):
    pictures(tmp_path / "photos" / "inner")
    labels = write(tmp_path / "labels.csv", rows())
    message = refusal(tmp_path / "photos", labels=labels)
    assert "none of the files that its 20 rows name is there, the first is 00.png" in message
    assert "There is a inner/00.png: do the paths begin at another folder?" in message


def test_a_file_that_is_named_twice_counts_once_and_two_labels_are_refused(tmp_path):
    splits = load_rows(tmp_path, [*rows(), rows()[0]])
    assert len(splits.train) + len(splits.test) == 20
    assert any("1 rows of data.labels" in note and "again" in note for note in splits.notes)
    write(tmp_path / "labels.csv", [*rows(), {"file_name": "00.png", "label": "owl"}])
    message = refusal(tmp_path / "photos", labels=str(tmp_path / "labels.csv"))
    assert "row 20: 00.png is 'owl' here and 'fox' before: correct one" in message


def test_rows_without_a_label_are_left_out(tmp_path):
    table = [row | ({"label": ""} if n < 4 else {}) for n, row in enumerate(rows())]
    splits = load_rows(tmp_path, table)
    assert len(splits.train) + len(splits.test) == 16
    assert any("4 rows of data.labels" in note and "no label" in note for note in splits.notes)


def test_a_column_gives_the_splits(tmp_path):
    table = rows(split=lambda n: "test" if n < 4 else "dev" if n < 8 else "train")
    splits = load_rows(tmp_path, table, validation=0.1)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 4]
    assert sorted(splits.test.read(row)[0, 0, 0] for row in range(4)) == [0, 1, 2, 3]
    assert splits.held_out == ()
    named = load_rows(tmp_path, rows(part=lambda n: "test" if n < 6 else ""), split_column="part")
    assert [len(named.train), len(named.test)] == [14, 6]


def test_a_column_of_truth_values_says_which_rows_validate(tmp_path):
    splits = load_rows(tmp_path, rows(is_valid=lambda n: int(n < 4)))
    assert [len(splits.train), len(splits.test), splits.test_split] == [16, 4, "validation"]


def test_numbers_of_splits_are_not_guessed(tmp_path):
    assert "row 0: split is '1', expected train, validation or test" in refused_rows(tmp_path, rows(split=lambda n: 1))


def test_an_unknown_split_is_named(tmp_path):
    message = refused_rows(tmp_path, rows(split=lambda n: "holdout" if n == 3 else "train"))
    assert "row 3: split is 'holdout', expected train, validation or test" in message


def test_whole_numbers_are_classes_in_their_order(tmp_path):
    table = [row | {"label": n % 12} for n, row in enumerate(rows())]
    assert load_rows(tmp_path, table).label_names == [str(n) for n in range(12)]


def test_a_table_that_is_named_as_the_data_is_explained(tmp_path):
    labels = write(tmp_path / "labels.csv", rows())
    assert f"--data.labels {labels}" in refusal(labels)
    assert "data.name ./nowhere: no such folder" in refusal("./nowhere", labels=labels)
    pictures(tmp_path / "photos")
    assert "Did you mean labels.csv?" in refusal(tmp_path / "photos", labels=str(tmp_path / "labelz.csv"))


def test_images_without_class_folders_are_told_of_the_table_next_to_them(tmp_path):
    labels = write(pictures(tmp_path / "photos") / "train.csv", rows())
    assert f"train.csv may hold their labels: name the table with --data.labels {labels}" in refusal(
        tmp_path / "photos"
    )


def test_the_fingerprint_changes_with_a_label(tmp_path):
    first = load_rows(tmp_path, rows()).fingerprint
    assert load_rows(tmp_path, rows()).fingerprint == first
    changed = [row | ({"label": "owl"} if n == 0 else {}) for n, row in enumerate(rows())]
    assert load_rows(tmp_path, changed).fingerprint != first


def test_the_same_table_is_scored_by_a_model_without_datasets(tmp_path):
    pictures(tmp_path / "photos")
    labels = write(tmp_path / "labels.csv", rows(split=lambda n: "test" if n < 4 else "train"))
    scored = load_split(DataSettings(name=str(tmp_path / "photos"), labels=labels))
    assert (len(scored.split), scored.split.label_names) == (4, ["fox", "owl"])


def frame(tmp_path, **more):
    return pd.DataFrame(rows(**more)).assign(file_name=lambda t: str(tmp_path / "photos") + "/" + t["file_name"])


def test_a_data_frame_is_read_as_a_table_is(tmp_path):
    pictures(tmp_path / "photos")
    settings = DataSettings(name="not read")
    splits = given_splits(frame(tmp_path, split=lambda n: "val" if n < 4 else "train"), settings, 0, Classes())
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert_right(splits)
    parts = {"train": frame(tmp_path)[4:], "test": frame(tmp_path)[:4]}
    by_role = given_splits(parts, settings, 0, Classes(names=["owl", "fox"]))
    assert (by_role.label_names, len(by_role.test)) == (["owl", "fox"], 4)


def test_missing_labels_of_a_data_frame_are_left_out(tmp_path):
    pictures(tmp_path / "photos")
    table = frame(tmp_path).assign(label=[np.nan if n < 4 else n % 2 for n in range(20)])
    splits = given_splits(table, DataSettings(name="not read"), 0, Classes())
    assert (splits.label_names, len(splits.train) + len(splits.test)) == (["0", "1"], 16)
