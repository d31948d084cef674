"""The rows that a Python caller brings become the same splits as those of a data set that a recipe names."""

import datasets
import numpy as np
import pytest
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes, given_split, given_splits
from hf_accel.errors import UserError
from tests.support.given_rows import NAMES, Rows, pictures, pixels, table

SETTINGS = DataSettings(name="not read", validation=0.2)
IMAGES, LABELS = pixels()
PICTURES, WORDS = pictures()
FORMS = {
    "table": table(),
    "tables": table().train_test_split(0.25, seed=0),
    "pairs": list(zip(PICTURES, WORDS, strict=True)),
    "columns": (PICTURES, WORDS),
    "arrays": (IMAGES, np.array(LABELS)),
    "tensors": (torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.tensor(LABELS)),
    "mapping": {"image": PICTURES, "label": WORDS},
    "torch pairs": Rows(lambda row: (PICTURES[row], LABELS[row])),
    "torch mappings": Rows(lambda row: {"image": PICTURES[row], "label": torch.tensor(LABELS[row])}),
    "subset": torch.utils.data.Subset(Rows(lambda row: (PICTURES[row], LABELS[row])), list(range(4, 40))),
    "roles": {
        "train": table(),
        "val": Rows(lambda row: (IMAGES[row], WORDS[row])),
        "test": (PICTURES, WORDS),
    },
}


def splits_of(given, settings=SETTINGS, **classes):
    return given_splits(given, settings, seed=0, classes=Classes(**classes))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_each_row_its_own_pixels_and_class(form):
    splits = splits_of(FORMS[form], names=NAMES)
    assert splits.label_names == NAMES
    parts = [splits.train, splits.validation, splits.test]
    assert all(len(part) for part in parts)
    for part in parts:
        for row in (0, len(part) - 1):
            red, _, blue = part.read(row).reshape(-1, 3).mean(0)
            assert part.label_names[part.labels[row]] == ("red" if red > blue else "blue")
            assert part.read(row).shape == (20, 20, 3)


def test_files_with_labels_are_read_as_a_table_which_can_be_cached(photos):
    files = sorted((photos / "train").rglob("*.png"))
    splits = splits_of((files, [file.parent.name for file in files]))
    assert isinstance(splits.train.dataset, datasets.Dataset)
    assert splits.label_names == ["blue", "red"]
    assert splits.train.where(0) in map(str, files)
    assert splits.train.is_fixed


def test_given_validation_and_test_rows_are_what_they_are_called():
    roles = {"train": table(40), "validation": table(12), "test": table(8)}
    splits = splits_of(roles, DataSettings(name="", validation=0))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (40, 12, 8)


def test_without_test_rows_the_validation_rows_are_the_test_as_in_any_data_set():
    splits = splits_of({"train": table(40), "validation": table(12)})
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (32, 8, 12)
    assert "no test split: the validation split is the test" in splits.notes


def test_numbers_without_names_are_their_own_names_and_names_of_the_caller_count():
    rows = (PICTURES, LABELS)
    assert splits_of(rows).label_names == ["0", "1"]
    assert splits_of(rows, names=["rot", "blau"]).label_names == ["rot", "blau"]
    assert splits_of(rows, of_model=["x", "y"]).label_names == ["x", "y"]


def test_the_order_of_the_models_classes_is_kept_where_the_data_has_the_same():
    for form in ("table", "columns"):
        splits = splits_of(FORMS[form], of_model=["blue", "red"])
        assert splits.label_names == ["blue", "red"]
        red, _, blue = splits.train.read(0).reshape(-1, 3).mean(0)
        assert splits.train.labels[0] == int(red > blue)
    assert splits_of(FORMS["columns"], of_model=["cat", "dog"]).label_names == ["blue", "red"]


def test_the_labels_of_a_torchvision_data_set_are_taken_without_reading_images():
    rows = Rows(lambda row: (PICTURES[row], LABELS[row]))
    rows.targets, rows.classes = LABELS, NAMES
    splits = splits_of(rows)
    assert splits.label_names == NAMES
    assert rows.reads < 40 + 3 * 32 + 10  # the headers of a few rows are looked at


def test_a_target_transform_counts():
    rows = Rows(lambda row: (PICTURES[row], 1 - LABELS[row]))
    rows.targets = LABELS
    train = splits_of({"train": rows, "validation": rows, "test": rows}).train
    assert train.labels.tolist() == [1 - label for label in LABELS]


def test_a_table_with_a_transform_gives_what_the_transform_gives():
    prepared = table().with_transform(
        lambda rows: {"pixel_values": [torch.ones(3, 8, 8) for _ in rows["image"]], "label": rows["label"]}
    )
    splits = splits_of(prepared)
    assert splits.train.is_prepared
    assert splits.label_names == NAMES
    assert splits.train.dataset.image(0).shape == (3, 8, 8)


def test_a_torch_data_set_is_asked_for_a_row_every_time_and_a_note_says_so():
    splits = splits_of(FORMS["torch pairs"])
    assert not splits.train.is_fixed
    assert [note for note in splits.notes if note.startswith("data.cache: not used")]
    assert splits_of(FORMS["columns"]).train.is_fixed


def test_rows_for_a_prediction_need_no_labels():
    split = given_split(PICTURES, SETTINGS, NAMES)
    assert len(split) == 40
    assert not split.is_labelled
    assert given_split(FORMS["columns"], SETTINGS, NAMES).labels.tolist() == LABELS
    assert given_split(FORMS["table"], SETTINGS, ["blue", "red"]).labels.tolist() == [1 - label for label in LABELS]


def test_unlabelled_test_rows_are_not_used():
    splits = splits_of({"train": (PICTURES, WORDS), "test": PICTURES})
    assert "the given test rows have no labels: not used" in splits.notes
    assert len(splits.test) == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photos", "the given train rows: are of the type str, expected a datasets.Dataset"),
        ([], "the given train rows: are empty"),
        ((PICTURES, WORDS[:3]), "40 images and 3 labels, expected one label for each image"),
        ((["a.jpg", "b.jpg"], [0, 1]), "row 0 is 'a.jpg', and there is no such file"),
        ((PICTURES, [0.5] * 40), "row 0 has the label 0.5, expected one class for each image"),
        ((PICTURES, [0, "red"] * 20), "some labels are numbers and some are text"),
        ((PICTURES, [0, None] * 20), "row 1 has no label, and others have one"),
        ((PICTURES, ["red"] * 40), "images of one class only, red"),
        ({"train": (PICTURES, WORDS), "extra": (PICTURES, WORDS)}, "has the key 'extra', expected train, validation"),
        ({"test": (PICTURES, WORDS)}, "has no train rows, only test"),
        (
            {"train": (PICTURES, WORDS), "test": (PICTURES, ["green"] * 40)},
            "row 0 has the label 'green', expected one of",
        ),
        (table().to_iterable_dataset(), "are a IterableDataset, which has no length"),
        ([("red", "blue")] * 2, "and there is no such file"),
        ([(object(), 0), (object(), 1)], "row 0 of the given train rows: is of the type object, expected an image"),
        ([{"picture": PICTURES[0], "label": 0}] * 2, "has the keys picture, label, expected an image under image or"),
    ],
)
def test_rows_that_cannot_be_understood_are_refused_in_one_message(given, message):
    with pytest.raises(UserError) as error:
        splits_of(given)
    assert message in str(error.value)


def test_a_number_beyond_the_names_is_refused():
    for given in ((PICTURES, [0, 2] * 20), table().cast_column("label", datasets.Value("int64"))):
        with pytest.raises(UserError, match="expected 0 to"):
            splits_of(given, names=["one"] if isinstance(given, datasets.Dataset) else NAMES)


def test_a_class_that_the_caller_does_not_name_is_refused():
    with pytest.raises(UserError, match="the train rows have the class 'blue'"):
        splits_of((PICTURES, WORDS), names=["red", "green"])
