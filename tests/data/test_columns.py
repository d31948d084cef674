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
def test_a_label_that_is_not_a_class_is_refused_with_its_row(labels, feature, got, split, tmp_path):
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


def write_table(folder, name, labels, feature, first=0):
    """One parquet file; the red value of an image is its number."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = {"image": [{"bytes": png(first + n), "path": None} for n in range(len(labels))], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / name)


def names_by_red(part) -> dict[int, str]:
    return {int(part.read(row)[0, 0, 0]): part.label_names[part.labels[row]] for row in range(len(part))}


CAT_DOG, DOG_CAT = datasets.ClassLabel(names=["cat", "dog"]), datasets.ClassLabel(names=["dog", "cat"])


@pytest.mark.parametrize("other", ["test", "validation"])
def test_classes_of_every_split_are_matched_by_name(other, tmp_path):
    write_table(tmp_path, "train.parquet", [0, 1, 0, 1, 1], CAT_DOG)
    write_table(tmp_path, f"{other}.parquet", [0, 1, 1], DOG_CAT)
    splits = load(tmp_path)
    assert splits.label_names == ["cat", "dog"]
    assert names_by_red(splits.train) == {0: "cat", 1: "dog", 2: "cat", 3: "dog", 4: "dog"}
    assert names_by_red(splits.test) == {0: "dog", 1: "cat", 2: "cat"}


def test_classes_of_every_file_of_a_split_are_matched_by_name(tmp_path):
    write_table(tmp_path, "train-00000-of-00003.parquet", [0, 1, 0], CAT_DOG)
    write_table(tmp_path, "train-00001-of-00003.parquet", [0, 1, 0], DOG_CAT, first=3)
    write_table(
        tmp_path, "train-00002-of-00003.parquet", [2, 0, 1], datasets.ClassLabel(names=["emu", "cat", "dog"]), 6
    )
    write_table(tmp_path, "test-00000-of-00001.parquet", [0, 1, 2], datasets.ClassLabel(names=["dog", "emu", "cat"]))
    splits = load(tmp_path)
    assert splits.label_names == ["cat", "dog", "emu"]
    train = ["cat", "dog", "cat", "dog", "cat", "dog", "dog", "emu", "cat"]
    assert names_by_red(splits.train) == dict(enumerate(train))
    assert names_by_red(splits.test) == {0: "dog", 1: "emu", 2: "cat"}


CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': {}
          '1': {}
---
"""


def test_the_files_own_order_of_classes_counts_where_the_card_states_another(tmp_path):
    write_table(tmp_path, "train.parquet", [0, 1, 0, 1], CAT_DOG)
    write_table(tmp_path, "test.parquet", [0, 1, 1], CAT_DOG)
    (tmp_path / "README.md").write_text(CARD.format("dog", "cat"))
    splits = load(tmp_path)
    assert names_by_red(splits.train) == {0: "cat", 1: "dog", 2: "cat", 3: "dog"}
    assert names_by_red(splits.test) == {0: "cat", 1: "dog", 2: "dog"}


def test_a_card_may_rename_the_classes_of_its_files(tmp_path):
    write_table(tmp_path, "train.parquet", [0, 1, 0, 1], CAT_DOG)
    write_table(tmp_path, "test.parquet", [0, 1, 1], CAT_DOG)
    (tmp_path / "README.md").write_text(CARD.format("Katze", "Hund"))
    assert names_by_red(load(tmp_path).test) == {0: "Katze", 1: "Hund", 2: "Hund"}


def test_a_class_that_only_another_table_has_is_refused_by_name(tmp_path):
    write_table(tmp_path, "train.parquet", [0, 1, 0, 1], CAT_DOG)
    write_table(tmp_path, "test.parquet", [0, 2, 1], datasets.ClassLabel(names=["dog", "cat", "emu"]))
    message = refusal(tmp_path)
    assert message.startswith(f"row 1 of {tmp_path}, test split: label is 'emu', expected one of the 2 classes")


def test_a_named_class_may_have_no_rows_in_the_test_table(tmp_path):
    write_table(tmp_path, "train.parquet", [0, 1, 0, 1], CAT_DOG)
    write_table(tmp_path, "test.parquet", [1, 2], datasets.ClassLabel(names=["emu", "dog", "cat"]))
    assert names_by_red(load(tmp_path).test) == {0: "dog", 1: "cat"}


def test_label_texts_equal_in_unicode_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_parquet(tmp_path, {"train": [composed, decomposed, "tea", "tea"], "test": [decomposed, "tea", composed]})
    splits = load(tmp_path)
    assert splits.label_names == [composed, "tea"]
    assert splits.train.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_blank_text_is_not_a_class(blank, split, tmp_path):
    parts = {"train": ["a", "b"] * 3, "test": ["a", "b"] * 3}
    parts[split] = ["a", "b", blank, "a"]
    write_parquet(tmp_path, parts)
    message = refusal(tmp_path)
    assert message.startswith(
        f"row 2 (2.png) of {tmp_path}, {split} split: label is {blank!r}, expected one of the 2 classes"
    )


def test_a_test_split_of_blank_labels_has_no_labels(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 10, "test": ["", "", ""]})
    splits = load(tmp_path)
    assert "its test split has no labels: not used" in splits.notes
    assert len(splits.test) == 4


@pytest.mark.parametrize("names", [["$x^2$", "a\nb"], ["\x1b[31mred", "=cmd()"], ["@sum", "-1+2"], ["a,b", 'q"uote']])
def test_odd_label_texts_load_unchanged(names, tmp_path):
    write_parquet(tmp_path, {"train": names * 5, "test": names})
    splits = load(tmp_path)
    assert splits.label_names == sorted(names)
    assert [splits.label_names[number] for number in splits.train.labels] == names * 5
