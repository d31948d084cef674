"""An image folder that is only scored is read without `datasets`, and as training reads it."""

import datasets
import numpy as np
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import LabelMap
from hf_accel.data.labels import numbered
from hf_accel.data.rows import FileRows
from hf_accel.data.scored_rows import load_split
from hf_accel.errors import UserError
from tests.support.data_sets import load, write_folder, write_metadata


@pytest.mark.parametrize(
    "labels",
    [
        ["pear", "apple", None, " ", "cafe\u0301", "caf\u00e9", "Z"],
        [30, 10, 200, -1, None, 10],
        [True, False, None, True],
        [None, ""],
    ],
)
def test_labels_are_numbered_as_those_of_a_table_are(labels):
    table = datasets.Dataset.from_dict({"label": labels})
    expected = LabelMap.of(table, "label")
    numbers, names = numbered(labels)
    assert names == expected.names
    np.testing.assert_array_equal(numbers, expected.ids(table, "label"))


def test_rows_of_files_are_those_of_a_table(tmp_path):
    write_folder(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 3})
    scored, trained = load_split(DataSettings(name=str(tmp_path))).split, load(tmp_path).test
    assert isinstance(scored.dataset, FileRows)
    assert scored.file_names() == trained.file_names()
    assert scored.fingerprint == trained.fingerprint
    np.testing.assert_array_equal(scored.labels, trained.labels)
    part, other = scored.select([4, 1]), trained.select([4, 1])
    assert [part.where(row) for row in range(2)] == [other.where(row) for row in range(2)]
    assert part.dataset[0:2] == other.dataset[0:2]
    np.testing.assert_array_equal(part.read(0), other.read(0))


def test_a_row_without_a_label_and_a_column_that_is_not_there_are_refused(tmp_path):
    folder = write_metadata(tmp_path / "one", ["a", "b", None])
    with pytest.raises(UserError, match=r"002\.png: label is None, expected one of the 2 classes"):
        load_split(DataSettings(name=str(folder)))
    with pytest.raises(UserError, match=r"has no labels: not used\. Expected labelled images"):
        load_split(DataSettings(name=str(write_metadata(tmp_path / "two", ["", ""]))))
    write_folder(tmp_path / "three", {"a": 2})
    with pytest.raises(UserError, match=r"data\.label_column is kind, and .* Columns: image, label"):
        load_split(DataSettings(name=str(tmp_path / "three"), label_column="kind"))


def test_a_table_needs_the_library_and_an_image_folder_does_not(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos", {"a": 2, "b": 1})
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "train.parquet").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert load_split(DataSettings(name=str(tmp_path / "photos"))).split.labels.tolist() == [0, 0, 1]
    for name in (tmp_path / "tables", "digits"):
        with pytest.raises(UserError, match=r"is read with the library datasets, .* pip install datasets"):
            load_split(DataSettings(name=str(name)))
