"""No group is on both sides of a split that is made here, and folds divide the training rows once."""

from dataclasses import replace

import datasets
import numpy as np
import pytest

from hf_accel.data.holding_out import fold_rows, hold_out
from tests.support.data_sets import load, png, refusal, tables_cache, write_folder  # noqa: F401
from tests.support.image_splits import SMALL, make_split, noise


def write_sites(folder, sites, labels):
    """A table with a column `site`; red and green of an image hold the number of its row."""
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(len(sites))], "label": labels, "site": sites}
    folder.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
    return folder


SITES = [f"site {n // 6}" for n in range(120)]  # 20 of them
LABELS = [("fox", "owl")[(n // 3) % 2] for n in range(120)]


@pytest.mark.parametrize("settings", [{"validation": 0.2}, {"folds": 4, "fold": 2}])
def test_no_group_is_in_two_splits(settings, tmp_path):
    splits = load(write_sites(tmp_path / "data", SITES, LABELS), group_column="site", **settings)
    parts = [splits.train, splits.validation, splits.test]
    of_parts = [{SITES[row] for row in part.row_numbers()} for part in parts]
    assert sum(map(len, of_parts)) == len(set.union(*of_parts)) == 20
    assert sum(map(len, parts)) == 120
    for part in parts:
        assert 0.3 < np.mean(part.labels) < 0.7
    assert any("whole groups by site" in note for note in splits.notes)


def test_the_test_groups_do_not_depend_on_the_seed(tmp_path):
    folder = write_sites(tmp_path / "data", SITES, LABELS)
    one, two = (load(folder, seed, group_column="site", validation=0.2) for seed in (1, 2))
    assert set(one.test.rows) == set(two.test.rows)
    assert set(one.validation.rows) != set(two.validation.rows)


def test_a_class_of_one_group_stays_in_train(tmp_path):
    labels = ["rare" if site == "site 7" else label for site, label in zip(SITES, LABELS, strict=True)]
    splits = load(write_sites(tmp_path / "data", SITES, labels), group_column="site", validation=0.3)
    assert set(np.unique(splits.train.labels)) == {0, 1, 2}


def test_too_few_groups_are_refused(tmp_path):
    folder = write_sites(tmp_path / "data", ["a"] * 20, LABELS[:20])
    assert "none of its 1 groups (data.group_column) can be held out for test" in refusal(folder, group_column="site")
    write_sites(folder, ["a", "b"] * 30, LABELS[:60])
    message = refusal(folder, group_column="site", validation=0.2)
    assert "none of its 1 groups (data.group_column) can be held out for validation" in message
    assert "has 1 groups. Expected a group for each fold" in refusal(folder, group_column="site", folds=3)


def test_a_column_that_is_absent_or_empty_is_refused(tmp_path):
    folder = write_sites(tmp_path / "data", ["a", None, *SITES[2:]], LABELS)
    assert "row 1 of" in (message := refusal(folder, group_column="site"))
    assert "site is empty, expected the group of each row" in message
    assert "data.group_column is patient, and" in refusal(folder, group_column="patient")
    photos = write_folder(tmp_path / "photos", {"a": 4, "b": 4})
    assert "data.group_column is site, and" in refusal(photos, group_column="site")


def test_groups_that_the_data_divides_are_reported(tmp_path):
    for split in ("train", "test"):
        write_sites(tmp_path, SITES, LABELS)
        (tmp_path / "train.parquet").rename(tmp_path / f"{split}-0.parquet")
    splits = load(tmp_path, group_column="site")
    assert any(
        note.startswith("warning: 20 of the 20 groups of test by site are also in train") for note in splits.notes
    )


def test_groups_may_come_from_a_table_of_labels(tmp_path):
    folder = write_folder(tmp_path / "photos", {"all": 24})
    lines = [f"all/{n:03}.png,{'ab'[n % 2]},{n // 4}" for n in range(24)]
    (tmp_path / "labels.csv").write_text("file,label,patient\n" + "\n".join(lines))
    splits = load(folder, labels=str(tmp_path / "labels.csv"), group_column="patient", validation=0.3)
    parts = (splits.train, splits.validation, splits.test)
    of_parts = [{part.read(row)[0, 0, 0] // 4 for row in range(len(part))} for part in parts]
    assert sum(map(len, of_parts)) == len(set.union(*of_parts)) == 6


def test_folds_divide_the_training_rows_once_whatever_the_seed():
    split = make_split(noise(*SMALL))
    parts = [fold_rows(split, 4, fold, seed=0) for fold in range(4)]
    held = np.concatenate([validation.rows for _, validation in parts])
    assert sorted(held) == list(range(24))
    for train, validation in parts:
        assert not set(train.rows) & set(validation.rows)
        assert np.bincount(validation.labels).tolist() == [2, 2, 2]


def test_a_fold_is_the_validation_split(tmp_path):
    folder = write_folder(tmp_path, {"a": 20, "b": 20})
    one, two = load(folder, 1, folds=4, fold=3), load(folder, 2, folds=4, fold=3)
    assert [len(one.train), len(one.validation), len(one.test)] == [24, 8, 8]
    assert set(one.validation.rows) == set(two.validation.rows)
    assert set(one.validation.rows) != set(load(folder, 1, folds=4, fold=2).validation.rows)
    assert "validation: fold 3 of 0 to 3, stratified, the same for every seed" in one.notes


def test_folds_beyond_the_rows_of_every_class_are_refused(tmp_path):
    folder = write_folder(tmp_path, {"a": 5, "b": 5})
    assert "at most 4 images of a class. Set it to 4 or less." in refusal(folder, folds=9)


def test_folds_of_data_with_three_splits_are_refused(tmp_path):
    folder = write_folder(tmp_path, {f"{split}/{label}": 4 for split in ("train", "val", "test") for label in "ab"})
    assert "data.folds divides the train split of" in refusal(folder, folds=2)


def test_a_share_of_the_groups_is_held_out_as_near_as_groups_allow():
    split = make_split(noise(*SMALL))
    grouped = replace(split, groups=np.arange(24) // 6)
    train, held = hold_out(grouped, 0.1, 0, "validation")
    assert (len(train), len(held)) == (18, 6)
