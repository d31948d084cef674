"""Every kind of `data.name` opens, and a name that is not a data set is refused in one message."""

import subprocess
import sys

import datasets
import numpy as np
import pytest

from hf_accel.errors import UserError
from tests.support.data_sets import (
    counts,
    load,
    png,
    refusal,
    tables_cache,  # noqa: F401
    write_folder,
    write_parquet,
)
from tests.support.hub_server import HubServer

ANTS_AND_BEES = datasets.ClassLabel(names=["ants", "bees"])


def test_the_built_in_digits_are_real_images_with_a_stratified_test_fifth():
    splits = load("digits", validation=0.1)
    assert splits.label_names == list("0123456789")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1294, 144, 359)
    assert min(counts(splits.test)) >= 34
    pixels = splits.train.read(0)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert max(splits.train.read(row).max() for row in range(20)) == 255


def test_cifar10_keeps_its_label_names_its_own_test_split_and_its_pixels(data_dir):
    splits = load(data_dir / "cifar10", validation=0.1)
    assert splits.label_names[:2] == ["airplane", "automobile"]
    assert counts(splits.train) == [4500] * 10
    assert counts(splits.validation) == [500] * 10
    assert counts(splits.test) == [1000] * 10
    assert splits.test.rows is None, "untouched"
    reference = datasets.load_dataset(str(data_dir / "cifar10"), split="train")
    for row in (0, 17, 44_999):
        original = reference[int(splits.train.rows[row])]
        np.testing.assert_array_equal(splits.train.read(row), np.asarray(original["img"]))
        assert splits.train.labels[row] == original["label"]


def test_cifar100_is_read_by_its_fine_labels_unless_the_coarse_ones_are_named(data_dir):
    assert len(load(data_dir / "cifar100").label_names) == 100
    coarse = load(data_dir / "cifar100", label_column="coarse_label", max_train_rows=1000, max_test_rows=200)
    assert len(coarse.label_names) == 20
    assert counts(coarse.train) == [50] * 20
    assert counts(coarse.test) == [10] * 20


def test_photographs_with_train_and_val_are_tested_on_val_and_selected_on_held_out_rows(data_dir):
    splits = load(data_dir / "hymenoptera", validation=0.1, on_bad_image="skip")
    assert splits.label_names == ["ants", "bees"]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (220, 24, 153)
    assert splits.skipped == []
    assert "the validation split is the test" in splits.describe()
    pixels = splits.train.read(0)
    assert min(pixels.shape[:2]) <= 256
    assert splits.test.where(0).endswith("hymenoptera/val/ants/10308379_1b6c72e180.jpg")


def test_a_folder_of_class_folders_is_a_data_set_and_hidden_folders_are_not_classes(tmp_path):
    write_folder(tmp_path, {"dogs": 10, "cats/indoor": 5, "cats/outdoor": 5, ".ipynb_checkpoints": 3})
    write_folder(tmp_path, {"dogs/.thumbnails": 2, "__MACOSX": 2, "nothing": 0})
    (tmp_path / "notes.txt").write_text("not an image")
    splits = load(tmp_path)
    assert splits.label_names == ["cats", "dogs"]
    assert (counts(splits.train), counts(splits.test)) == ([8, 8], [2, 2])
    assert "no image in nothing: not a class" in splits.notes
    assert any(note.startswith("1 files are not images") for note in splits.notes)


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("training", "val", "eval"), ("Train", "valid", "TEST")]
)
def test_the_three_levels_of_an_image_folder_are_found_under_their_usual_names(names, tmp_path):
    train, validation, test = names
    write_folder(tmp_path, {f"{train}/a": 6, f"{train}/b": 6, f"{validation}/a": 2, f"{validation}/b": 1})
    write_folder(tmp_path, {f"{test}/a": 3, f"{test}/b": 2, ".cache/a": 1})
    splits = load(tmp_path, validation=0.5)
    assert [counts(part) for part in (splits.train, splits.validation, splits.test)] == [[6, 6], [2, 1], [3, 2]]


def test_a_class_may_be_called_train_when_the_user_says_so(tmp_path):
    write_folder(tmp_path, {"bus": 5, "train": 5})
    message = refusal(tmp_path)
    assert "train look like splits, next to bus" in message
    assert "--data.layout classes" in message
    assert load(tmp_path, layout="classes").label_names == ["bus", "train"]


def test_a_missing_folder_is_refused_with_its_neighbours_and_without_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for name in ("./photo", str(tmp_path / "photo"), "photos/trian", "~/nothing/here", "a/b/c"):
        message = refusal(name)
        assert "no such folder" in message, name
    assert "Did you mean photos?" in refusal("./photo")
    assert "Did you mean train?" in refusal("photos/trian")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "the folder is empty"),
        (["a.txt", ".hidden/a/1.png"], "none of its 1 files is parquet or an image"),
        (["1.png", "2.png"], "are not in class folders"),
        (["cats/1.png", "cats/2.png", "dogs/readme.txt"], "one class only, cats"),
        (["photos/cats/1.png", "photos/dogs/1.png"], r"one class only, photos.* \(cats, dogs\)"),
        (["val/a/1.png", "test/b/1.png"], "no train split, only test, val"),
        (["train/a/1.png", "train/a/2.png", "val/a/1.png", "val/b/1.png"], "one class only, a"),
    ],
)
def test_folders_that_are_not_a_data_set_are_refused(files, message, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(0))
    with pytest.raises(UserError, match=message) as refused:
        load(tmp_path)
    assert str(refused.value).startswith(f"data.name {tmp_path}")


def test_a_file_is_not_a_data_set(tmp_path):
    (tmp_path / "cats.zip").write_bytes(b"")
    assert "is a file, expected a folder" in refusal(tmp_path / "cats.zip")


def test_a_table_that_cannot_be_opened_is_refused_with_the_cause(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    assert "cannot be opened: " in refusal(tmp_path)
    write_parquet(tmp_path / "good", {"train": ["a", "b"] * 2})
    assert "BuilderConfig 'other' not found" in refusal(tmp_path / "good", config="other")


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        try:
            raise OSError(28, "No space left on device")
        except OSError as cause:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from cause

    monkeypatch.setattr(datasets, "load_dataset", full)
    assert "no space left" in refusal(write_parquet(tmp_path, {"train": ["a", "b"]}))


@pytest.mark.parametrize("name", ["uoft-cs/cifar10", "photos"])
def test_an_unreachable_hub_says_what_would_be_downloaded_and_how_to_do_without(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def unreachable(*_, **__):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = refusal(name)
    assert f"/datasets/{name} cannot be reached" in message
    assert "no such local folder" in message
    assert "--data.name ./FOLDER" in message


def test_a_name_that_the_hub_does_not_have_or_cannot_have_is_refused(monkeypatch):
    def absent(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'no/such' doesn't exist on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    assert "the Hub says: Dataset 'no/such' doesn't exist" in refusal("no/such")
    assert "neither a local folder nor a name the Hub can have" in refusal("my photos")


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_downloaded_once_and_then_opens_without_a_network(tmp_path):
    table = write_parquet(tmp_path / "hub", {"train": [0, 1] * 10, "test": [0, 1]}, ANTS_AND_BEES, image="img")
    code = (
        "from hf_accel.data.splits import load_splits; from hf_accel.config.sections import DataSettings\n"
        "splits = load_splits(DataSettings(name='someone/insects'), 0)\n"
        "print(splits.label_names, len(splits.train), splits.train.where(0), splits.fingerprint)"
    )
    with HubServer() as hub:
        hub.add_dataset("someone/insects", table)
        environment = hub.environment(tmp_path / "home")
        runs = [
            subprocess.run(
                [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
            )
            for env in (environment, {**environment, "HF_HUB_OFFLINE": "1"})
        ]
    assert runs[0].stdout.startswith("['ants', 'bees'] 20 row 0 (0.png) of someone/insects, train split")
    assert runs[1].stdout == runs[0].stdout


@pytest.mark.slow
def test_classes_of_a_data_set_of_the_hub_are_matched_by_name(tmp_path):
    table = write_parquet(tmp_path / "hub", {"train": [0, 1] * 10}, ANTS_AND_BEES)
    write_parquet(tmp_path / "hub", {"test": [0, 0, 1]}, datasets.ClassLabel(names=["bees", "ants"]))
    code = (
        "from hf_accel.data.splits import load_splits; from hf_accel.config.sections import DataSettings\n"
        "splits = load_splits(DataSettings(name='someone/insects'), 0)\n"
        "print([splits.label_names[n] for n in splits.test.labels], splits.fingerprint)"
    )
    with HubServer() as hub:
        hub.add_dataset("someone/insects", table)
        environment = hub.environment(tmp_path / "home")
        runs = [
            subprocess.run(
                [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
            )
            for env in (environment, environment, {**environment, "HF_HUB_OFFLINE": "1"})
        ]
    assert runs[0].stdout.startswith("['bees', 'bees', 'ants']")
    assert {run.stdout for run in runs} == {runs[0].stdout}


def test_the_name_of_the_built_in_data_set_is_questioned_next_to_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "digits", {"one": 5, "two": 5})
    message = refusal("digits")
    assert "is the built-in data set, and there is a folder" in message
    assert "Write ./digits" in message
    assert load("./digits").label_names == ["one", "two"]
    (tmp_path / "digits" / "recipe.yaml").write_text("")  # the folder of a run
    assert len(load("digits").label_names) == 10


def test_parquet_files_outside_the_splits_are_named_in_a_note(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 5})
    table = datasets.Dataset.from_dict({"image": [{"bytes": png(200), "path": None}] * 2, "label": ["a", "b"]})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data" / "more.parquet")
    splits = load(tmp_path)
    assert "1 parquet files do not belong to the splits found: data/more.parquet not read" in splits.notes


def test_a_note_says_that_pictures_next_to_parquet_files_are_not_rows(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 5})
    write_folder(tmp_path, {"samples": 3})
    assert "the folder holds parquet files: its 3 picture files are not read as rows" in load(tmp_path).notes


def test_links_and_special_files_of_an_image_folder_are_named_in_a_note(tmp_path):
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "cat" / "loop").symlink_to("..")
    (tmp_path / "dog" / "copy").symlink_to("../cat")
    splits = load(tmp_path)
    assert (counts(splits.train), counts(splits.test)) == ([8, 8], [2, 2])
    assert any(
        note.startswith("2 entries (cat/loop, …) lead to folders above, or to files that") for note in splits.notes
    )
