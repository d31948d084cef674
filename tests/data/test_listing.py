"""Files, folders and globs are found, each real file once, and nothing but regular files is opened."""

import os

import pytest

from hf_accel.data.listing import list_files, load_images
from hf_accel.errors import UserError
from tests.support.data_sets import png, tables_cache  # noqa: F401


@pytest.fixture
def pictures(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "notes.txt", ".hidden/d.jpg", "__MACOSX/e.jpg", "._b.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(1))
    return tmp_path


def test_hidden_files_and_folders_are_never_listed(pictures):
    assert list_files(pictures).files == ["a.PNG", "b.jpg", "deep/er/c.webp", "notes.txt"]


def test_files_folders_and_globs_are_found_once_and_in_order(pictures):
    assert load_images([str(pictures)]) == [pictures / "a.PNG", pictures / "b.jpg", pictures / "deep/er/c.webp"]
    assert load_images([str(pictures / "b.jpg"), str(pictures)])[0] == pictures / "b.jpg"
    assert len(load_images([str(pictures / "b.jpg"), str(pictures / "*")])) == 2
    assert load_images([str(pictures / "**/*.webp")]) == [pictures / "deep/er/c.webp"]
    assert load_images([str(pictures / "notes.txt")]) == [pictures / "notes.txt"], "named outright"


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    path = tmp_path / "photo[1].jpg"
    path.write_bytes(png(1))
    assert load_images([str(path)]) == [path]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("nothing.jpg", "no such file"), ("*.nothing", "no image file matches"), ("empty", "holds no image file")],
)
def test_an_argument_that_stands_for_no_image_is_refused_by_name(argument, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as refused:
        load_images([argument])
    assert str(refused.value).startswith(f"{argument}:")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_refused(pictures):
    (pictures / "deep").chmod(0)
    try:
        with pytest.raises(UserError, match="deep: the folder cannot be listed"):
            load_images([str(pictures)])
    finally:
        (pictures / "deep").chmod(0o755)
