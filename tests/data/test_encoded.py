"""Files that rows of a table name are read below the data folder only, and equal images are found."""

import io

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_accel.data.images import UnreadableImageError, decode_image
from hf_accel.errors import UserError
from tests.support.data_sets import counts, load, png, refusal, tables_cache, write_folder  # noqa: F401


def write_rows(folder, cells, split="train"):
    folder.mkdir(parents=True, exist_ok=True)
    labels = ["a", "b"] * (len(cells) // 2)
    pq.write_table(pa.table({"image": pa.array(cells), "label": labels}), folder / f"{split}.parquet")


def test_rows_may_name_files_below_the_data_folder(tmp_path, monkeypatch):
    data = tmp_path / "data"
    write_folder(data, {"pictures": 10})
    (data / "inside.png").symlink_to("pictures/003.png")
    cells = [{"bytes": None, "path": f"pictures/{n:03}.png"} for n in range(10)]
    cells[3]["path"] = str(data / "pictures" / "003.png")
    cells[4] = {"bytes": png(4), "path": "/etc/hostname"}  # only a name: the row has bytes
    cells[5]["path"] = "inside.png"
    write_rows(data, cells)
    monkeypatch.chdir(tmp_path)
    for splits in (load(data), load("data")):
        rows = [(part, row) for part in (splits.train, splits.test) for row in range(len(part))]
        values = sorted(int(part.read(row)[0, 0, 0]) for part, row in rows)
        assert values == [0, 1, 2, 3, 3, 4, 6, 7, 8, 9]
    first = load(data).fingerprint
    (data / "pictures" / "000.png").write_bytes(png(77))
    assert load(data).fingerprint != first


@pytest.mark.parametrize("kind", ["absolute", "relative", "link", "url", "sibling"])
def test_a_row_that_names_a_file_elsewhere_is_refused_by_its_number(kind, tmp_path):
    data = tmp_path / "data"
    write_folder(data, {"pictures": 10})
    write_folder(tmp_path, {"data2": 1})
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(200))
    (data / "link.png").symlink_to(secret)
    path = {
        "absolute": str(secret),
        "relative": "../secret.png",
        "link": "link.png",
        "url": f"file://{secret}",
        "sibling": str(tmp_path / "data2" / "000.png"),
    }[kind]
    cells = [{"bytes": png(n), "path": None} for n in range(10)]
    cells[7] = {"bytes": None, "path": path}
    write_rows(data, cells)
    if kind == "url":  # the name of a file below the folder that does not exist
        with pytest.raises(UserError, match="cannot be read as an image: No such file"):
            [part.read(row) for part in (load(data).train, load(data).test) for row in range(len(part))]
        return
    message = refusal(data)
    assert message.startswith(f"row 7 of {data}, train split: has no bytes and names the file {path}")
    assert f"below {data}" in message


def test_images_that_two_splits_share_are_counted_and_named(tmp_path):
    write_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test/cat": 3, "test/dog": 3})
    (tmp_path / "test/cat/000.png").write_bytes((tmp_path / "train/cat/004.png").read_bytes())
    (tmp_path / "test/dog/001.png").write_bytes((tmp_path / "train/cat/005.png").read_bytes())
    notes = load(tmp_path).notes
    assert (
        "2 of the 6 test images are also train images, byte for byte (test/cat/000.png = train/cat/004.png; "
        "test/dog/001.png = train/cat/005.png)" in notes
    )
    assert (
        "1 images occur with different labels, byte for byte the same (train/cat/005.png as 'cat' and "
        "test/dog/001.png as 'dog')" in notes
    )


def test_equal_rows_of_tables_are_found_and_held_out_rows_are_compared_with_train(tmp_path):
    cells = [{"bytes": png(n // 2), "path": None} for n in range(40)]
    write_rows(tmp_path, cells)
    splits = load(tmp_path)
    train = {splits.train.read(row).tobytes() for row in range(len(splits.train))}
    shared = sum(splits.test.read(row).tobytes() in train for row in range(len(splits.test)))
    assert shared > 0
    assert any(note.startswith(f"{shared} of the 8 test images are also train images") for note in splits.notes)
    assert any(note.startswith("20 images occur with different labels") for note in splits.notes)
    assert splits.train.content is None, "nothing of it travels to workers"


def test_distinct_and_unreadable_images_are_not_called_equal(tmp_path):
    write_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test/cat": 3, "test/dog": 3})
    for name in ("train/cat/000.png", "test/dog/001.png"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).with_name("gone.png").symlink_to("nowhere.png")
    assert not any("byte for byte" in note for note in load(tmp_path).notes)


def bomb(side: int = 13_000) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("1", (side, side)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    encoded = bomb()
    assert len(encoded) < 100_000
    monkeypatch.setattr(PIL.Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    (tmp_path / "bomb.png").write_bytes(encoded)
    for source, limit in ((encoded, 50_000_000), (tmp_path / "bomb.png", 1000)):
        with pytest.raises(
            UnreadableImageError, match=r"has 13000 x 13000 pixels, more than data\.max_pixels"
        ) as refused:
            decode_image(source, max_pixels=limit)
        assert f"({limit:,}) allows" in str(refused.value)


def test_the_limit_holds_for_folders_and_tables_and_such_images_can_be_skipped(tmp_path):
    write_folder(tmp_path / "folder", {"a": 10, "b": 10})
    (tmp_path / "folder/a/003.png").write_bytes(png(3, (200, 100)))
    write_rows(
        tmp_path / "tables", [{"bytes": png(n, (200, 100) if n == 3 else (6, 4)), "path": None} for n in range(20)]
    )
    for folder in ("folder", "tables"):
        splits = load(tmp_path / folder, max_pixels=1000, on_bad_image="skip")
        (skipped,) = splits.skipped
        assert skipped.endswith("it has 200 x 100 pixels, more than data.max_pixels (1,000) allows")
        splits = load(tmp_path / folder, max_pixels=1000, selection=False)
        with pytest.raises(UserError, match=r"data\.max_pixels"):
            [part.read(row) for part in (splits.train, splits.test) for row in range(len(part))]
        splits = load(tmp_path / folder, max_pixels=None)
        assert {part.read(row).shape for part in (splits.train, splits.test) for row in range(len(part))} == {
            (4, 6, 3),
            (100, 200, 3),
        }


def test_a_limit_above_pillows_own_replaces_it(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    encoded = png(0, (50, 40))
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_pixels"):
        decode_image(encoded)
    assert decode_image(encoded, max_pixels=None).shape == (40, 50, 3)


def test_other_images_of_a_table_are_kept_as_they_are(tmp_path):
    cells = [{"bytes": png(n), "path": f"{n}.png"} for n in range(10)]
    write_rows(tmp_path, cells)
    splits = load(tmp_path)
    assert counts(splits.train) == [4, 4]
    np.testing.assert_array_equal(splits.test.read(0)[0, 0, 0], splits.test.rows[0])
    assert isinstance(splits.test.dataset, datasets.Dataset)
