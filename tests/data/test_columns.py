"""Image and label columns are found, labels get numbers and keep names, and unusable ones are refused."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.data_sets import (
    load,
    png,
    refusal,
    tables_cache,  # noqa: F401
    write_folder,
    write_parquet,
)


def test_a_class_that_only_the_test_folder_has_is_refused_by_file(tmp_path):
    write_folder(tmp_path, {"train/ants": 3, "train/bees": 3, "test/ants": 1, "test/bes": 1})
    message = refusal(tmp_path)
    assert str(tmp_path / "test/bes/000.png") in message
    assert "'bes'" in message
    assert "ants, bees" in message


@pytest.mark.parametrize(
    ("labels", "feature", "names"),
    [
        (["pear", "apple", "fig"], None, ["apple", "fig", "pear"]),
        ([2, 0, 1], None, ["0", "1", "2"]),
        ([30, 10, 200], None, ["10", "30", "200"]),
        ([True, False, True], None, ["False", "True"]),
        ([2, 0, 1], datasets.ClassLabel(names=["z", "a", "m", "unused"]), ["z", "a", "m", "unused"]),
    ],
)
def test_labels_of_every_kind_are_numbered_and_keep_their_names(labels, feature, names, tmp_path):
    write_parquet(tmp_path, {"train": labels * 4, "test": labels[:2]}, feature)
    splits = load(tmp_path)
    assert splits.label_names == names
    text = [names[number] for number in splits.train.labels]
    expected = [names[label] if feature else str(label) for label in labels * 4]
    assert text == expected


@pytest.mark.parametrize(
    ("image", "label"), [("image", "label"), ("img", "labels"), ("img", "fine_label"), ("photo", "species")]
)
def test_columns_are_found_by_name_or_as_the_only_ones_of_their_type(image, label, tmp_path):
    feature = datasets.ClassLabel(names=["a", "b"])
    write_parquet(tmp_path, {"train": [0, 1] * 5}, feature, image, label, caption="text", size=3)
    splits = load(tmp_path)
    assert splits.train.image_column == image
    assert splits.train.read(0).shape == (4, 6, 3)


def test_parquet_written_without_the_features_metadata_is_read(tmp_path):
    structs = pa.array([{"bytes": png(n), "path": None} for n in range(10)])
    pq.write_table(pa.table({"image": structs, "label": ["a", "b"] * 5}), tmp_path / "train.parquet")
    assert load(tmp_path).train.read(0).shape == (4, 6, 3)
    pq.write_table(pa.table({"img": [png(n) for n in range(10)], "label": ["a", "b"] * 5}), tmp_path / "train.parquet")
    assert load(tmp_path).train.read(1)[0, 0].tolist()[0] == load(tmp_path).train.rows[1]


def test_an_absent_or_unusable_column_is_refused_and_the_columns_are_listed(tmp_path):
    listed = "Columns: image (Image), kind (string), size (int64)."
    write_parquet(tmp_path, {"train": ["a", "b"] * 5}, label="kind", size=1)
    assert f"no label column can be chosen: there is none. {listed}" in refusal(tmp_path)
    message = refusal(tmp_path, label_column="kinds")
    assert "data.label_column is kinds" in message
    assert listed in message
    assert "column size holds int64, expected encoded images" in refusal(
        tmp_path, label_column="kind", image_column="size"
    )
    assert "column image holds Image, expected one label" in refusal(tmp_path, label_column="image")
    assert load(tmp_path, label_column="kind").label_names == ["a", "b"]


def test_columns_that_could_be_several_are_not_guessed(tmp_path):
    (tmp_path / "data").mkdir()
    picture = [{"bytes": png(0), "path": None}] * 4
    table = datasets.Dataset.from_dict({"left": picture, "right": picture, "label": ["a", "b"] * 2})
    table = table.cast_column("left", datasets.Image()).cast_column("right", datasets.Image())
    table.to_parquet(tmp_path / "data" / "train.parquet")
    assert "several could be it (left, right)" in refusal(tmp_path)
    table.remove_columns(["left", "right"]).to_parquet(tmp_path / "data" / "train.parquet")
    assert "no image column can be chosen: there is none" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("labels", "feature", "got"),
    [
        ([0, 1, 0, 5], None, "5"),
        ([0, 1, 0, 2], datasets.ClassLabel(names=["a", "b"]), "2"),
        ([0, 1, 0, -1], datasets.ClassLabel(names=["a", "b"]), "-1"),
        ([0, 1, 0, None], datasets.ClassLabel(names=["a", "b"]), "None"),
        (["a", "b", "a", None], None, "None"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_that_is_no_class_is_refused_with_its_row(labels, feature, got, split, tmp_path):
    if got == "5" and split == "train":
        labels, got = [0, 1, 0, -1], "-1"
    sound = [0, 1] * 3 if labels[0] == 0 else ["a", "b"] * 3
    # The feature checks labels when a column is cast, so a wrong number is written below it.
    parts = {"train": sound, "test": sound, split: labels}
    write_parquet(tmp_path, parts)
    if feature is not None:
        for path in (tmp_path / "data").iterdir():
            table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
            table = table.with_format("arrow")[:].replace_schema_metadata(None)
            typed = datasets.Features({"image": datasets.Image(), "label": feature})
            pq.write_table(table.cast(typed.arrow_schema).replace_schema_metadata(typed.arrow_schema.metadata), path)
    message = refusal(tmp_path)
    assert message.startswith(
        f"row 3 (3.png) of {tmp_path}, {split} split: label is {got}, expected one of the 2 classes"
    )
    assert "1 of its 4 rows" in message


def test_labels_that_are_neither_classes_text_nor_whole_numbers_are_refused(tmp_path):
    write_parquet(tmp_path, {"train": [0.5, 1.0]})
    assert "column label holds float64, expected one label" in refusal(tmp_path)
    write_parquet(tmp_path, {"train": [[0, 1], [1]]})
    assert "column label holds List, expected one label" in refusal(tmp_path)


def test_one_class_in_a_table_is_refused(tmp_path):
    write_parquet(tmp_path, {"train": [1] * 4}, datasets.ClassLabel(names=["a", "b"]))
    assert "images of one class only, b" in refusal(tmp_path)
