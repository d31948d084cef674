"""The rows of a data set are divided as promised, told apart by fingerprints, and shown before training."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.holding_out import stratified_rows
from hf_accel.data.scored_rows import load_split
from hf_accel.errors import UserError
from tests.support.data_sets import (
    counts,
    load,
    origins,
    png,
    refusal,
    tables_cache,  # noqa: F401
    write_folder,
    write_parquet,
)


def test_the_test_rows_are_the_same_for_every_seed_and_the_held_out_rows_are_not():
    one, two, again = (
        load("digits", 1, validation=0.1),
        load("digits", 2, validation=0.1),
        load("digits", 1, validation=0.1),
    )
    np.testing.assert_array_equal(one.test.rows, two.test.rows)
    assert origins(one.validation) != origins(two.validation)
    assert one.fingerprint == again.fingerprint != two.fingerprint
    for splits in (one, two):
        parts = [origins(splits.train), origins(splits.validation), origins(splits.test)]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 1797


def test_a_split_opens_in_another_process_and_reads_the_same(tmp_path):
    split = load(write_folder(tmp_path, {"a": 4, "b": 4})).train
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.read(2), split.read(2))


@pytest.mark.parametrize("number", [0, 1, 7, 50, 99, 100])
def test_a_stratified_draw_gives_each_class_its_share_to_within_one_row(number):
    labels = np.random.RandomState(3).choice(5, 100, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    rows = stratified_rows(labels, number, seed=1)
    assert len(np.unique(rows)) == number
    assert (np.diff(rows) > 0).all()
    share = np.bincount(labels[rows], minlength=5) - np.bincount(labels) * number / 100
    assert np.abs(share).max() < 1


def test_a_class_of_one_image_stays_in_train(tmp_path):
    splits = load(write_folder(tmp_path, {"many": 20, "one": 1}), validation=0.1)
    assert counts(splits.train) == [14, 1]
    assert (counts(splits.validation), counts(splits.test)) == ([2, 0], [4, 0])


def test_a_set_of_single_images_cannot_be_divided_and_says_so(tmp_path):
    message = refusal(write_folder(tmp_path, {"a": 1, "b": 1}))
    assert "none of its 2 images can be held out for test" in message


def test_nothing_is_held_out_when_validation_is_0_or_there_is_no_selection(tmp_path):
    three = write_parquet(tmp_path, {"train": ["a", "b"] * 10, "validation": ["a", "b"], "test": ["b"]})
    for splits in (load(three), load(three, validation=0.1, selection=False)):
        assert splits.validation is None
        assert len(splits.train) == 20, "every row trains"
        assert len(splits.test) == 1
    own = load(three, validation=0.1)
    assert (len(own.train), len(own.validation)) == (20, 2), "its own validation split comes before a held-out part"


def test_a_test_split_published_without_labels_is_not_used(tmp_path):
    feature = datasets.ClassLabel(names=["a", "b"])
    write_parquet(tmp_path, {"train": [0, 1] * 10, "validation": [0, 1], "test": [-1, -1, -1]}, feature)
    splits = load(tmp_path, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 2)
    assert "its test split has no labels: not used" in splits.notes


def test_limits_on_rows_keep_the_share_of_each_class_and_the_test_rows_of_every_seed(tmp_path):
    write_parquet(tmp_path, {"train": ["a"] * 60 + ["b"] * 40, "test": ["a"] * 30 + ["b"] * 20})
    limits = {"validation": 0.2, "max_train_rows": 50, "max_test_rows": 10}
    one, two = load(tmp_path, 1, **limits), load(tmp_path, 2, **limits)
    assert (counts(one.train), counts(one.validation), counts(one.test)) == ([24, 16], [6, 4], [6, 4])
    assert origins(one.train) != origins(two.train)
    assert origins(one.test) == origins(two.test)
    assert len(load(tmp_path, max_train_rows=1000).train) == 100


def test_rows_are_named_by_their_place_in_the_data_set_after_any_selection(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 20})
    splits = load(tmp_path, validation=0.2, max_train_rows=20)
    for part in (splits.train, splits.validation, splits.test):
        for row in range(len(part)):
            red = part.read(row)[0, 0, 0]
            assert part.where(row) == f"row {red} ({red}.png) of {tmp_path}, train split"
            assert part.labels[row] == red % 2


def test_the_fingerprint_follows_files_and_rows_and_nothing_else(tmp_path):
    folder = write_folder(tmp_path / "photos", {"a": 10, "b": 10})
    first = load(folder, validation=0.1)
    assert load(folder, validation=0.1).fingerprint == first.fingerprint
    assert load(folder, validation=0.2).train.fingerprint != first.train.fingerprint
    folder.rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    assert load(folder, validation=0.1).train.fingerprint == first.train.fingerprint, "a moved folder is the same"
    (folder / "a" / "000.png").write_bytes(png(7, (9, 9)))
    assert load(folder, validation=0.1).fingerprint != first.fingerprint


@pytest.mark.parametrize("kind", ["photos", "tables"])
def test_a_later_copy_of_the_data_is_the_same_data(kind, tmp_path):
    classes = {"a": 10, "b": 10}
    folder = tmp_path / kind
    write_folder(folder, classes) if kind == "photos" else write_parquet(folder, {"train": ["a", "b"] * 10})
    first = load(folder, validation=0.1).fingerprint
    copy = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for path in copy.rglob("*.*"):
        os.utime(path, (1, 1))
    assert load(copy, validation=0.1).fingerprint == first


def test_files_too_large_to_be_read_beforehand_are_told_apart_by_their_dates(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "photos", {"a": 10, "b": 10})
    monkeypatch.setattr("hf_accel.data.listing.HASHED_BYTES", 0)
    first = load(folder, validation=0.1).fingerprint
    assert load(folder, validation=0.1).fingerprint == first
    os.utime(folder / "a" / "000.png", (1, 1))
    assert load(folder, validation=0.1).fingerprint != first


@pytest.mark.parametrize("kind", ["photos", "tables"])
def test_data_too_large_to_be_searched_for_duplicates_says_so(kind, tmp_path, monkeypatch):
    classes = {"a": 10, "b": 10}
    folder = tmp_path / kind
    write_folder(folder, classes) if kind == "photos" else write_parquet(folder, {"train": ["a", "b"] * 10})
    splits = load(folder, validation=0.1)
    assert splits.duplicates_searched
    assert "occur twice" not in " ".join(splits.notes)
    monkeypatch.setattr("hf_accel.data.listing.HASHED_BYTES", 0)
    monkeypatch.setattr("hf_accel.data.encoded.HASHED_BYTES", 0)
    splits = load(folder, validation=0.1)
    assert not splits.duplicates_searched
    (note,) = [note for note in splits.notes if "occur twice" in note]
    assert f"{folder} holds more than 4 GiB" in note
    assert "occur twice" in " ".join(load_split(DataSettings(name=str(folder))).notes)


@pytest.mark.slow
def test_two_processes_give_the_same_fingerprints(tmp_path):
    parquet = write_parquet(tmp_path / "tables", {"train": ["a", "b"] * 10})
    code = (
        "import sys; from hf_accel.data.splits import load_splits; from hf_accel.config.sections import DataSettings\n"
        "for name in sys.argv[1:]: print(load_splits(DataSettings(name=name, validation=0.1), 3).fingerprint)"
    )
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code, "digits", str(parquet)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [load(name, 3, validation=0.1).fingerprint for name in ("digits", parquet)]


@pytest.fixture
def with_bad_images(tmp_path):
    folder = write_folder(tmp_path, {"a": 10, "b": 10})
    (folder / "a" / "003.png").write_bytes(b"")
    (folder / "b" / "004.png").write_bytes(png(4, (100, 100))[:60])
    (folder / "b" / "005.png").unlink()
    (folder / "b" / "005.png").symlink_to("nowhere.png")
    return folder


def test_reading_a_bad_image_names_its_file_and_the_fix(with_bad_images):
    splits = load(with_bad_images, selection=False)
    bad = [(part, row) for part in (splits.train, splits.test) for row in range(len(part)) if "003" in part.where(row)]
    part, row = next((part, row) for part, row in bad if "/a/" in part.where(row))
    with pytest.raises(UserError, match="on_bad_image: skip") as refused:
        part.read(row)
    assert str(refused.value).startswith(str(with_bad_images / "a" / "003.png"))


def test_bad_images_are_left_out_and_listed_when_asked_for(with_bad_images):
    splits = load(with_bad_images, validation=0.2, on_bad_image="skip")
    assert sorted(text.split(":")[0] for text in splits.skipped) == [
        str(with_bad_images / name) for name in ("a/003.png", "b/004.png", "b/005.png")
    ]
    parts = (splits.train, splits.validation, splits.test)
    assert sum(map(len, parts)) == 17
    for part in parts:
        for row in range(len(part)):
            assert part.read(row).shape == (4, 6, 3)
    assert "3 unreadable images are left out" in splits.describe()
    assert splits.fingerprint != load(with_bad_images, validation=0.2).fingerprint


def test_a_bad_row_of_a_table_is_named_by_its_number(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 5, "test": ["a", "b"]})
    table = datasets.Dataset.from_dict({"image": [{"bytes": b"no", "path": None}, None], "label": ["a", "b"]})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    test = load(tmp_path).test
    with pytest.raises(UserError, match=r"^row 0 of .*, test split: "):
        test.read(0)
    with pytest.raises(UserError, match=r"^row 1 of .*, test split: .*empty"):
        test.read(1)
    assert "none of its 2 images can be read" in refusal(tmp_path, on_bad_image="skip")


def test_loading_decodes_nothing_unless_bad_images_are_to_be_skipped(with_bad_images, monkeypatch):
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    load(with_bad_images, validation=0.1)


def test_the_description_of_a_thousand_classes_fits_one_screen(tmp_path):
    labels = [name for number in range(1000) for name in [f"species {number} " + "x" * 60] * (2 + number % 7)]
    write_parquet(tmp_path, {"train": labels, "test": labels[:50]})
    lines = load(tmp_path, validation=0.2).describe().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines[1:])) <= 80, "below the name of the data set"
    assert "1,000 classes" in lines[0]
    assert any("980 more classes" in line for line in lines)


def test_the_description_shows_classes_and_counts(tmp_path):
    write_parquet(tmp_path, {"train": ["a"] * 1500 + ["b"] * 500, "test": ["a", "b", "b"]})
    assert load(tmp_path).describe().splitlines() == [
        f"{tmp_path}: 2 classes, 2,000 train, 3 test images",
        "",
        "  class       train        test",
        "  a           1,500           1",
        "  b             500           2",
    ]


def test_each_split_has_a_fingerprint_of_its_own_with_its_class_names(tmp_path):
    folder = write_folder(
        tmp_path / "photos", {f"{split}/{label}": 6 for split in ("train", "val", "test") for label in "ab"}
    )
    first = load(folder, validation=0.1)
    assert list(first.fingerprints) == ["train", "validation", "test"]
    assert len(set(first.fingerprints.values())) == 3
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert load(copy, validation=0.1).fingerprints == first.fingerprints
    (folder / "test" / "a" / "000.png").write_bytes(png(99))
    changed = load(folder, validation=0.1).fingerprints
    assert [changed[role] == first.fingerprints[role] for role in changed] == [True, True, False]
    (folder / "train" / "b").rename(folder / "train" / "c")
    for split in ("val", "test"):
        (folder / split / "b").rename(folder / split / "c")
    renamed = load(folder, validation=0.1).fingerprints
    assert not set(renamed.values()) & set(changed.values())


def test_adding_pictures_to_a_folder_without_splits_changes_every_fingerprint(tmp_path):
    folder = write_folder(tmp_path, {"a": 10, "b": 10})
    before = load(folder, validation=0.2).fingerprints
    write_folder(folder, {"a": 11})
    after = load(folder, validation=0.2).fingerprints
    assert not set(before.values()) & set(after.values())


def test_other_class_names_alone_are_other_fingerprints(tmp_path):
    for name, names in (("one", ["a", "b"]), ("two", ["a", "c"])):
        write_parquet(tmp_path / name, {"train": [0, 1] * 5}, datasets.ClassLabel(names=names))
    one, two = load(tmp_path / "one").fingerprints, load(tmp_path / "two").fingerprints
    assert not set(one.values()) & set(two.values())


def load_one(folder, role="test", **settings):
    return load_split(DataSettings(name=str(folder), **settings), role)


@pytest.mark.parametrize("role", ["test", "train"])
def test_evaluation_of_a_plain_folder_scores_all_of_it(role, tmp_path):
    scored = load_one(write_folder(tmp_path, {"a": 10, "b": 7}), role)
    assert counts(scored.split) == [10, 7]
    assert scored.split.label_names == ["a", "b"]
    assert any("all its rows (train) are scored" in note for note in scored.notes) == (role == "test")
    assert "has no validation split" in load_one_refused(tmp_path, "validation")


def load_one_refused(folder, role="test", **settings) -> str:
    with pytest.raises(UserError) as refused:
        load_one(folder, role, **settings)
    return str(refused.value)


@pytest.mark.parametrize("folders", [{"cats": 4}, {"test/cats": 4}, {"test_set/cats": 4}])
def test_one_class_or_a_test_folder_alone_can_be_scored(folders, tmp_path):
    write_folder(tmp_path, folders)
    scored = load_one(tmp_path)
    assert (scored.split.label_names, scored.split.labels.tolist()) == (["cats"], [0] * 4)
    assert scored.split.read(3).shape == (4, 6, 3)


def test_evaluation_takes_the_split_that_is_asked_for(tmp_path):
    write_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 3, "val/c": 2, "test/b": 4})
    assert len(load_one(tmp_path, "train").split) == 10
    assert load_one(tmp_path, "validation").split.label_names == ["a", "c"], "its own classes, whatever train has"
    assert counts(load_one(tmp_path, "test").split) == [4]
    shutil.rmtree(tmp_path / "test")
    scored = load_one(tmp_path, "test")
    assert counts(scored.split) == [3, 2]
    assert "no test split: all its rows (val) are scored" in scored.notes


def test_evaluation_keeps_the_limits_skips_bad_images_and_refuses_data_without_labels(tmp_path):
    write_folder(tmp_path, {"a": 30, "b": 10})
    assert counts(load_one(tmp_path, max_test_rows=8).split) == [6, 2]
    (tmp_path / "a" / "003.png").write_bytes(b"")
    scored = load_one(tmp_path, on_bad_image="skip")
    assert (len(scored.split), len(scored.skipped)) == (39, 1)
    write_parquet(tmp_path / "tables", {"test": [-1, -1]}, datasets.ClassLabel(names=["a", "b"]))
    assert "has no labels: not used. Expected labelled images" in load_one_refused(tmp_path / "tables")
    write_folder(tmp_path / "level", {"color/a": 3, "color/b": 3})
    assert "one class only, color" in load_one_refused(tmp_path / "level")


def test_a_scored_split_has_the_fingerprint_it_had_in_training_and_only_classes_with_images(tmp_path):
    feature = datasets.ClassLabel(names=["a", "b", "unused"])
    write_parquet(tmp_path, {"train": [0, 1] * 5, "test": [1, 0, 1]}, feature)
    scored = load_one(tmp_path)
    assert (scored.split.label_names, scored.split.labels.tolist()) == (["a", "b"], [1, 0, 1])
    write_folder(tmp_path / "photos", {f"{split}/{label}": 4 for split in ("train", "test") for label in "ab"})
    assert load_one(tmp_path / "photos").fingerprint == load(tmp_path / "photos").fingerprints["test"]


def test_classes_that_limits_leave_without_images_are_named(tmp_path):
    write_parquet(tmp_path, {"train": ["a"] * 50 + ["b"] * 40 + ["c"] * 2, "test": ["a"] * 9 + ["b"] * 9 + ["c"]})
    notes = load(tmp_path, max_train_rows=10, max_test_rows=2).notes
    assert "train has no image of 1 of the 3 classes: 'c'" in notes
    assert "test has no image of 1 of the 3 classes: 'c'" in notes
    assert not any("has no image" in note for note in load(tmp_path).notes)


def test_a_class_that_skipping_would_remove_from_train_is_refused_by_name(tmp_path):
    write_folder(tmp_path, {"train/a": 5, "train/b": 5, "train/c": 2, "test/a": 2, "test/b": 2, "test/c": 1})
    for number in range(2):
        (tmp_path / "train" / "c" / f"{number:03}.png").write_bytes(b"broken")
    message = refusal(tmp_path, on_bad_image="skip")
    assert "no image of 1 classes can be read: 'c'" in message
    assert str(tmp_path / "train/c/000.png") in message


def test_an_image_that_becomes_unreadable_during_a_run_is_replaced_by_one_of_its_class(tmp_path, caplog):
    folder = write_folder(tmp_path, {"a": 10, "b": 10})
    splits = load(folder, on_bad_image="skip", validation=0.2)
    paths = [splits.train.where(row) for row in range(len(splits.train))]
    for number in (0, 1, len(paths) - 1):
        Path(paths[number]).write_bytes(b"broken")
    for row, path in enumerate(paths):
        pixels = splits.train.read(row)
        assert (pixels[0, 0, 2] == splits.train.read(3)[0, 0, 2]) == ("/a/" in path), "blue tells the classes"
    assert f"{paths[0]} became unreadable during the run" in caplog.text
    assert f"{paths[2]} is taken in its place" in caplog.text
    test = splits.test
    Path(test.where(0)).write_bytes(b"broken")
    with pytest.raises(UserError, match="It could be read when the run began") as refused:
        test.read(0)
    assert "on_bad_image" not in str(refused.value), "the setting is in force"


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_a_note_tells_of_deep_grey_images(mode, tmp_path):
    write_folder(tmp_path, {"a": 10, "b": 10})
    values = np.full((4, 6), 3000, np.uint16 if mode == "I;16" else np.int32)
    assert not any("8 bits" in note for note in load(tmp_path).notes)
    for number in range(10):
        PIL.Image.fromarray(values).save(tmp_path / "a" / f"{number:03}.png", format="TIFF")
    (note,) = [note for note in load(tmp_path).notes if "8 bits" in note]
    assert "0..65535 is scaled to 0..255" in note
    assert "`pipeline` clips such levels at 255" in note


def test_a_class_name_does_not_reach_the_terminal_as_an_escape_sequence(tmp_path):
    write_parquet(tmp_path, {"train": ["\x1b[2J", "b"] * 5, "test": ["\x1b[2J", "b"]})
    lines = load(tmp_path).describe().splitlines()
    assert r"  \x1b[2J           5           1" in lines
    assert "\x1b" not in "".join(lines)
