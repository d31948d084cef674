"""What a table says of the labels of an image, in every form, becomes the same matrix; what it does not say is refused by row."""

import datasets
import numpy as np
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.multi_label import load_multi_label_split, load_multi_label_splits
from hf_accel.errors import UserError
from tests.support.label_sets import (
    LABELS,
    label_sets,
    picture,
    rows_of,
    write_labelled,
    write_pictures,
    write_table,
)


def load(name, seed=0, selection=True, **settings):
    return load_multi_label_splits(DataSettings(name=str(name), **settings), seed, selection)


def refusal(name, **settings):
    with pytest.raises(UserError) as refused:
        load(name, **settings)
    return str(refused.value)


def sets_of(split):
    return [[split.label_names[number] for number in np.flatnonzero(row)] for row in split.labels]


def write_parquet(folder, sets, cells, feature=None, role="train"):
    folder.mkdir(parents=True, exist_ok=True)
    images = [picture(labels, number) for number, labels in enumerate(sets)]
    columns = cells if isinstance(cells, dict) else {"labels": cells}
    table = datasets.Dataset.from_dict({"image": images, **columns}).cast_column("image", datasets.Image())
    table = table if feature is None else table.cast_column("labels", feature)
    table.to_parquet(folder / f"{role}.parquet")
    return folder


@pytest.mark.parametrize("form", ["text", "columns", "lists"])
def test_metadata_files_state_the_labels_in_three_forms(form, tmp_path):
    splits = load(write_labelled(tmp_path / "data", form, train=16, test=8), selection=False)
    assert splits.label_names == LABELS
    assert sets_of(splits.train) == label_sets(16)
    assert sets_of(splits.test) == label_sets(8)
    assert splits.train.labels.dtype == np.int64
    assert splits.test.file_names()[:2] == ["test/016.png", "test/017.png"]
    assert "2 of the 16 train images have no label" in splits.notes


@pytest.mark.parametrize("separator", ["|", ";", ",", ", "])
def test_names_stand_between_separators_and_one_of_lower_rank_is_part_of_a_name(separator, tmp_path):
    sets = [["a", "b"], ["b"], [], ["a"]]
    names = write_pictures(tmp_path, sets)
    rows = [{"file_name": name, "tags": separator.join(labels)} for name, labels in zip(names, sets, strict=True)]
    write_table(tmp_path / "metadata.csv", rows)
    splits = load(tmp_path, selection=False)
    assert sets_of(load_multi_label_split(DataSettings(name=str(tmp_path)), "train").split) == sets
    assert splits.label_names == ["a", "b"]
    if separator == "|":
        write_table(tmp_path / "metadata.csv", [{**row, "tags": row["tags"].replace("b", "b; c")} for row in rows])
        assert load(tmp_path, selection=False).label_names == ["a", "b; c"]


def test_a_list_that_was_written_as_text_is_read_as_a_list(tmp_path):
    names = write_pictures(tmp_path, label_sets(8))
    rows = [{"file_name": name, "labels": str(labels)} for name, labels in zip(names, label_sets(8), strict=True)]
    write_table(tmp_path / "metadata.csv", rows)
    assert sets_of(load_multi_label_split(DataSettings(name=str(tmp_path)), "train").split) == label_sets(8)
    write_table(tmp_path / "metadata.csv", [*rows[:2], {**rows[2], "labels": "[cat, dog]"}])
    assert "row 2: labels is '[cat, dog]', expected a list of names between quotation marks" in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["names", "class labels", "columns", "numbers", "text"])
def test_parquet_files_hold_lists_columns_or_text(kind, tmp_path):
    sets = label_sets(16)
    numbers = [[LABELS.index(name) for name in labels] for labels in sets]
    columns = {name: [name in labels for labels in sets] for name in LABELS}
    cells = {"names": sets, "class labels": numbers, "columns": columns, "numbers": numbers,
             "text": ["|".join(labels) for labels in sets]}[kind]  # fmt: skip
    feature = datasets.List(datasets.ClassLabel(names=LABELS)) if kind == "class labels" else None
    splits = load(write_parquet(tmp_path / "data", sets, cells, feature), selection=False)
    names = ["0", "1", "2"] if kind == "numbers" else LABELS
    assert splits.label_names == names
    found = sets_of(splits.train) + sets_of(splits.test)
    expected = [[names[number] for number in row] for row in numbers]
    assert sorted(found) == sorted(expected)


def test_the_order_of_columns_and_of_stated_names_is_kept_and_numbers_are_ordered_by_value(tmp_path):
    sets = label_sets(8)
    flags = {name: [int(name in labels) for labels in sets] for name in reversed(LABELS)}
    assert load(write_parquet(tmp_path / "flags", sets, flags)).label_names == LABELS[::-1]
    numbers = [[9, 10], [100], [10], [9], [100], [9], [10], [9]]
    assert load(write_parquet(tmp_path / "numbers", sets, numbers)).label_names == ["9", "10", "100"]


def test_labels_may_be_in_a_table_of_their_own_with_a_column_for_the_splits(tmp_path):
    sets = label_sets(16)
    names = write_pictures(tmp_path / "photos", sets)
    roles = ["train"] * 8 + ["test"] * 8
    rows = [row | {"split": role} for row, role in zip(rows_of(names, sets, "columns"), roles, strict=True)]
    write_table(tmp_path / "labels.csv", rows)
    splits = load(tmp_path / "photos", labels=str(tmp_path / "labels.csv"), selection=False)
    assert (sets_of(splits.train), sets_of(splits.test)) == (sets[:8], sets[8:])
    chosen = ["red", "blue"]
    named = load(tmp_path / "photos", labels=str(tmp_path / "labels.csv"), selection=False, label_column=chosen)
    assert named.label_names == chosen
    assert sets_of(named.train) == [[name for name in chosen if name in labels] for labels in sets[:8]]
    missing = refusal(tmp_path / "photos", labels=str(tmp_path / "labels.csv"), label_column=["red", "sun"])
    assert "data.label_column is sun, and data.labels" in missing
    assert "Columns: file_name, blue, green, red, split." in missing


@pytest.mark.parametrize("cell", ["-1", "", "2", "maybe"])
def test_a_cell_of_a_label_that_is_not_0_or_1_is_refused_by_its_row(cell, tmp_path):
    names = write_pictures(tmp_path, label_sets(8))
    rows = rows_of(names, label_sets(8), "columns")
    rows[5]["green"] = cell
    write_table(tmp_path / "metadata.csv", rows)
    message = refusal(tmp_path, label_column=LABELS)
    assert f"metadata.csv, row 5: green is {cell!r}, expected 0 or 1" in message


def test_a_label_of_another_split_alone_is_refused_by_its_row(tmp_path):
    folder = write_parquet(tmp_path, label_sets(8), label_sets(8))
    write_parquet(folder, label_sets(4), [["red"], [], ["violet"], ["red"]], role="test")
    message = refusal(folder)
    assert "test split, row 2: has the label 'violet', expected some of the 3 labels of the train split" in message


def test_a_test_split_has_the_separator_of_the_train_split(tmp_path):
    folder = write_parquet(tmp_path, label_sets(4), ["a|b; c", "a", "b; c", ""])
    write_parquet(folder, label_sets(2), ["b; c", "a"], role="test")
    assert sets_of(load(folder, selection=False).test) == [["b; c"], ["a"]]


def test_a_test_split_without_a_label_is_not_used(tmp_path):
    folder = write_parquet(tmp_path, label_sets(16), label_sets(16))
    write_parquet(folder, label_sets(4), [[], [], [], []], datasets.List(datasets.Value("string")), role="test")
    splits = load(folder)
    assert "its test split has no labels: not used" in splits.notes
    assert splits.test_split == "train"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[]] * 8, "has no labelled images to train on, expected two or more classes"),
        ([["red"]] * 8, "has images of one class only, red to train on, expected two or more classes"),
        ([1, 0, 1, 0, 1, 0, 1, 0], "labels holds 0 and 1 only, which is one label. Expected several such columns"),
        ([0.5] * 8, "row 0: labels is 0.5, expected a list of labels"),
        ([["a"], ["b", None]] * 4, "row 1: labels is ['b', None], which holds None"),
    ],
)
def test_cells_that_give_no_two_labels_are_refused(cells, message, tmp_path):
    settings = {} if isinstance(cells[0], list) else {"label_column": "labels"}
    assert message in refusal(write_parquet(tmp_path, label_sets(8), cells), **settings)


def test_columns_that_could_be_anything_are_asked_for(tmp_path):
    columns = {"weight": list(range(8)), "caption": ["a"] * 8}
    message = refusal(write_parquet(tmp_path, label_sets(8), columns))
    assert "no columns of labels can be chosen. Columns: image (Image), weight (int64), caption (string)" in message
    assert "Name one, or several of 0 and 1, with data.label_column" in message


def test_digits_and_class_folders_have_one_label_each(tmp_path):
    assert "is the built-in data set, whose images have one label each" in refusal("digits")
    write_pictures(tmp_path / "photos" / "red", label_sets(2))
    message = refusal(tmp_path / "photos")
    assert "metadata.csv" in message
    assert "states the labels of its images" in message


def test_other_data_is_scored_as_a_whole(tmp_path):
    sets = label_sets(8)
    scored = load_multi_label_split(DataSettings(name=str(write_parquet(tmp_path, sets, sets))), "test")
    assert sets_of(scored.split) == sets
    assert "no test split: all its rows (train) are scored" in scored.notes


def test_equal_images_with_other_labels_are_named_and_a_damaged_one_is_left_out(tmp_path):
    folder = write_labelled(tmp_path / "data", train=16, test=8)
    (folder / "train" / "003.png").write_bytes((folder / "train" / "005.png").read_bytes())
    (folder / "test" / "017.png").write_bytes(b"no image")
    splits = load(folder, selection=False, on_bad_image="skip")
    (conflict,) = [note for note in splits.notes if "occur with different labels" in note]
    assert "train/005.png as 'blue + red' and train/003.png as 'blue + green'" in conflict
    assert len(splits.test) == 7
    assert "test/017.png" in splits.skipped[0]


def test_an_image_that_becomes_unreadable_is_replaced_by_one_with_the_same_labels(tmp_path):
    folder = write_labelled(tmp_path / "data", train=16, test=8)
    train = load(folder, selection=False, on_bad_image="skip").train
    (folder / "train" / "003.png").write_bytes(b"no image")
    assert (train.read(3) == train.read(11)).all()  # eight rows later the same set of labels returns
