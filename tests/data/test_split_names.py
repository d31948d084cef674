"""Names of splits are understood in their usual spellings, and names that only resemble them are recognised as such."""

import pytest

from hf_accel.data.split_names import resembling_splits, split_role


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "train",
            "train Train TRAINING training_set Training-Set train_data trainData train_images images_train TrainSet",
        ),
        ("train", "train2017 training_images_2012 img.train data-train trainset dataset_train train-dataset"),
        ("validation", "val valid validation Validation_Set val_images VAL2017 valset dev dev_set images-val"),
        ("test", "test Testing test_set testset test_data eval evaluation eval_images test-images TEST2015"),
    ],
)
def test_the_usual_spellings_of_a_split_are_understood(role, names):
    assert {name: split_role(name) for name in names.split()} == dict.fromkeys(names.split(), role)


@pytest.mark.parametrize(
    "name",
    ["trains", "trainer", "cat", "images", "data", "test1", "seg_train", "contest", "tests", "evaluate", "validity"],
)
def test_other_names_are_not_splits(name):
    assert split_role(name) is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cat", "dog", "test"], ["test"]),
        (["cat", "dog", "test1"], ["test1"]),
        (["cat", "train_2", "val-old"], ["train_2", "val-old"]),
        (["seg_train", "seg_test", "seg_pred"], ["seg_train", "seg_test"]),
        (["train_cats", "test_cats", "readme"], ["train_cats", "test_cats"]),
        (["cat", "holdout", "unlabeled"], ["holdout", "unlabeled"]),
        (["train_station", "test_tube", "airport"], []),
        (["cats_train", "dogs_train"], []),
        (["cat", "dog"], []),
    ],
)
def test_names_that_resemble_splits_are_recognised_among_their_neighbours(names, found):
    assert resembling_splits(names) == found


@pytest.mark.parametrize(
    "name",
    [
        "dataset" * 36 + "x",
        "train" + "1" * 250 + "x",
        "train" + "_a" * 120 + "!xy",
        "img" * 80,
        "dataset" * 9 + "x",
        "train" + "dataset" * 8 + "x",
        "train" + "_a" * 28 + "!xy",
    ],
)
def test_long_names_are_matched_quickly(name):
    assert split_role(name) is None
    assert resembling_splits([name, name + "_"]) == []
