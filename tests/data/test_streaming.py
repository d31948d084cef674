"""Rows of shards have the numbers, labels and pixels that they have when the same files are loaded."""

import pickle
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.scored_rows import load_split
from hf_accel.data.streaming import StreamedRows
from hf_accel.errors import UserError
from tests.conftest import write_photos
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
from tests.support.shards import add_file, pack_parquet, pack_tar


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def shards(images, tmp_path_factory):
    """24 training rows in 4 shards of 7, 7, 7 and 3, and 8 test rows in 2; parts of 3 rows."""
    return pack_parquet(images, tmp_path_factory.mktemp("packed") / "shards", 7, 3)


def test_a_streamed_split_has_the_rows_labels_pixels_and_fingerprint_of_the_loaded_one(shards):
    loaded, streamed = load(shards), load(shards, streaming=True)
    assert streamed.train.is_streamed
    assert streamed.label_names == loaded.label_names == ["blue", "red"]
    assert streamed.fingerprints == loaded.fingerprints
    for one, other in ((loaded.train, streamed.train), (loaded.test, streamed.test)):
        assert one.labels.tolist() == other.labels.tolist()
        for row in range(len(one)):
            np.testing.assert_array_equal(one.read(row), other.read(row))
    assert "images are streamed; number of shards: 4 (train), 2 (test)" in streamed.notes
    assert any("not looked for: the images are streamed" in note for note in streamed.notes)


def test_one_split_is_scored_from_its_shards(shards):
    streamed, loaded = (load_split(DataSettings(name=str(shards), streaming=s), "test") for s in (True, False))
    assert streamed.split.is_streamed
    assert streamed.fingerprint == loaded.fingerprint
    assert streamed.split.labels.tolist() == loaded.split.labels.tolist()


def test_an_archive_has_the_same_rows(images, shards, tmp_path):
    archives = load(pack_tar(images, tmp_path / "archives", 7), streaming=True)
    tables = load(shards, streaming=True)
    assert archives.label_names == ["0", "1"]
    for one, other in ((archives.train, tables.train), (archives.test, tables.test)):
        assert one.labels.tolist() == other.labels.tolist()
        for row in range(len(one)):
            np.testing.assert_array_equal(one.read(row), other.read(row))


def test_the_label_of_an_archive_may_be_text_or_stand_in_a_json_file(tmp_path):
    for split in ("train", "test"):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as archive:
            for row, name in enumerate(["ant", "bee", "ant"]):
                add_file(archive, f"{row}.png", png(row))
                add_file(archive, f"{row}.json", f'{{"label": "{name}"}}'.encode())
    splits = load(tmp_path, streaming=True)
    assert (splits.label_names, counts(splits.train)) == (["ant", "bee"], [2, 1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": png(1)}, r"row 1: has no label \(.png\), expected a .cls or .json file"),
        ({"1.cls": b"0"}, r"row 1: has 0 images \(.cls\), expected one"),
        ({"1.png": png(1), "1.json": b"[]"}, "row 1: its json file holds no label"),
    ],
)
def test_an_archive_with_half_a_row_is_refused(files, message, tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name, content in files.items():
            add_file(archive, name, content)
    with pytest.raises(UserError, match=message):
        load(tmp_path, streaming=True)


def test_only_the_parts_that_the_window_needs_are_kept_and_each_is_read_once(shards):
    rows = load(shards, streaming=True, shuffle_buffer=4).train.dataset
    rows = rows.select(np.arange(len(rows)))  # begins with nothing
    kept = []
    for row in range(len(rows)):
        rows[row]
        kept.append(sum(map(len, rows._kept.values())))
    assert rows.parts_read == len(rows.places) == 10
    assert max(kept) <= 4 + 2 * 3, "the window, and the parts at its ends"
    test = load(shards, streaming=True).test.dataset
    for row in range(len(test)):
        test[row]
        assert len(test._kept) == 1


def test_rows_travel_to_a_worker_without_what_was_read(shards):
    rows = load(shards, streaming=True).train.dataset
    before = rows[5]
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy.parts_read, copy._kept) == (0, {})
    assert copy[5] == before


def test_selected_rows_keep_their_shards(shards):
    rows = load(shards, streaming=True).train.dataset
    assert rows.shard_numbers().tolist() == [0] * 7 + [1] * 7 + [2] * 7 + [3] * 3
    some = rows.select(np.array([2, 9, 23]))
    assert isinstance(some, StreamedRows)
    assert some.shard_numbers().tolist() == [0, 1, 3]
    assert [some[n] for n in range(3)] == [rows[n] for n in (2, 9, 23)]


def test_a_row_may_not_name_a_file(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 3, "test": ["a", "b"]})
    (file,) = (tmp_path / "data").glob("train*")
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    rows = {"image": [{"bytes": None, "path": str(secret)}] * 2, "label": ["a", "b"]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))
    table.to_parquet(file)
    with pytest.raises(UserError, match="cannot be read as an image: it is empty: its row holds no bytes"):
        load(tmp_path, streaming=True).train.read(0)


def test_no_rows_are_held_out_of_a_stream(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 5})
    assert "there is no test split, and with data.streaming none is held out" in refusal(tmp_path, streaming=True)
    write_parquet(tmp_path, {"train": ["a", "b"] * 5, "test": ["a", "b"]})
    message = refusal(tmp_path, streaming=True, validation=0.1)
    assert "there is no validation split" in message
    assert "set data.validation: 0" in message


def test_a_folder_of_images_and_the_digits_are_not_streamed(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5})
    assert "reads parquet files and webdataset archives (.parquet, .tar), and none of its 10" in refusal(
        tmp_path, streaming=True
    )
    assert "Set data.streaming to false" in refusal("digits", streaming=True)


def test_shards_that_disagree_are_refused(images, tmp_path):
    pack_parquet(images, tmp_path, 12, 4)
    other = tmp_path / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(other)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "blue"])})
    datasets.Dataset(table).cast(features).to_parquet(other)
    assert "list the classes in different orders" in refusal(tmp_path, streaming=True)
    pq.write_table(table.drop_columns("label"), other)
    assert "has the columns image, and" in refusal(tmp_path, streaming=True)


def test_labels_that_are_not_all_of_one_type_are_refused(tmp_path):
    write_parquet(tmp_path, {"train": [0, 1] * 3, "test": [0, 1]})
    write_parquet(tmp_path / "texts", {"train": ["a", "b"]})
    (file,) = (tmp_path / "texts" / "data").iterdir()
    file.rename(tmp_path / "data" / "train-00001-of-00002.parquet")
    assert "column label of its split cannot be read: " in refusal(tmp_path, streaming=True)


def test_an_image_that_cannot_be_read_is_replaced_where_it_trains(tmp_path):
    write_parquet(tmp_path, {"train": ["a", "b"] * 4, "test": ["a", "b"]})
    (file,) = (tmp_path / "data").glob("train*")
    table = pq.read_table(file).to_pylist()
    table[2]["image"]["bytes"] = b"broken"
    datasets.Dataset.from_list(table).cast_column("image", datasets.Image(decode=False)).to_parquet(file)
    with pytest.raises(UserError, match=r"row 2 of .*, train split: cannot be read"):
        load(tmp_path, streaming=True).train.read(2)
    train = load(tmp_path, streaming=True, on_bad_image="skip").train
    assert len(train) == 8
    np.testing.assert_array_equal(train.read(2), train.read(4))


HUB_CODE = """
from hf_accel.data.splits import load_splits
from hf_accel.config.sections import DataSettings
splits = load_splits(DataSettings(name='someone/insects', streaming=True), 0)
print(splits.label_names, splits.train.labels.tolist())
print(splits.train.read(13).tobytes().hex())
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_streamed_and_not_downloaded(shards, tmp_path):
    with HubServer() as hub:
        hub.add_dataset("someone/insects", shards)
        home = tmp_path / "home"
        done = subprocess.run(
            [sys.executable, "-c", HUB_CODE], env=hub.environment(home), capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    names, pixels = done.stdout.splitlines()
    loaded = load(shards).train
    assert names == f"['blue', 'red'] {loaded.labels.tolist()}"
    assert pixels == loaded.read(13).tobytes().hex()
    assert not list(home.rglob("*.parquet"))


@pytest.mark.slow
def test_archives_of_the_hub_are_refused_with_what_can_be_done(images, tmp_path):
    with HubServer() as hub:
        hub.add_dataset("someone/insects", pack_tar(images, tmp_path / "archives", 7))
        environment = hub.environment(tmp_path / "home")
        done = subprocess.run([sys.executable, "-c", HUB_CODE], env=environment, capture_output=True, text=True)
    assert "hf download --repo-type dataset someone/insects --local-dir FOLDER" in done.stderr
