"""Files, folders and globs are found, each real file once, and nothing but regular files is opened."""

import os
import socket

import pytest

from hf_accel.data.images import UnreadableImageError, decode_image
from hf_accel.data.listing import list_files, load_images
from hf_accel.errors import UserError
from hf_accel.files import RUN_MARK
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
def test_an_argument_without_an_image_is_refused_by_name(argument, message, tmp_path, monkeypatch):
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


def test_a_link_to_a_folder_above_adds_no_file(pictures):
    before = list_files(pictures).files
    (pictures / "deep" / "loop").symlink_to("..")
    (pictures / "aaa").symlink_to(pictures)
    (pictures / "out").symlink_to(pictures.parent)
    (pictures / "root").symlink_to("/")
    listing = list_files(pictures)
    assert listing.files == before
    assert sorted(listing.repeated) == ["aaa", "deep/loop", "out", "root"]
    assert len(load_images([str(pictures)])) == 3
    assert len(load_images([str(pictures / "**")])) == 3
    assert len(load_images([str(pictures / "**" / "*.PNG"), str(pictures / "**/*.jpg")])) == 2


def test_two_links_to_each_others_folders_end(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).mkdir(exist_ok=True)
        (tmp_path / one / "1.png").write_bytes(png(1))
        (tmp_path / one / "link").symlink_to(tmp_path / other)
        (tmp_path / one / "again").symlink_to(tmp_path / other)
    (tmp_path / "self").symlink_to("self")
    assert list_files(tmp_path).files == ["a/1.png", "b/1.png", "self"]
    assert len(load_images([str(tmp_path / "**/*.png")])) == 2


def test_a_file_keeps_its_own_path_and_is_met_once(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "1.png").write_bytes(png(1))
    (tmp_path / "a.png").symlink_to("z/1.png")
    (tmp_path / "b").symlink_to("z")
    os.link(tmp_path / "z" / "1.png", tmp_path / "z" / "2.png")
    listing = list_files(tmp_path)
    assert listing.files == ["z/1.png"]
    assert sorted(listing.repeated) == ["a.png", "b", "z/2.png"]
    assert load_images([str(tmp_path / name) for name in ("a.png", "z", "z/2.png")]) == [tmp_path / "a.png"]


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path):
    (tmp_path / "pool" / "deep").mkdir(parents=True)
    (tmp_path / "pool" / "1.png").write_bytes(png(1))
    (tmp_path / "pool" / "deep" / "2.png").write_bytes(png(2))
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.png").symlink_to("../../pool/1.png")
    (tmp_path / "data" / "b").symlink_to("../pool/deep")
    assert list_files(tmp_path / "data").files == ["a/x.png", "b/2.png"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_pipes_sockets_and_devices_are_never_opened(pictures):
    before = list_files(pictures).files
    os.mkfifo(pictures / "pipe.png")
    (pictures / "zero.jpg").symlink_to("/dev/zero")
    (pictures / "linked.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(pictures, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{folder}/socket.png")
        finally:
            os.close(folder)
        listing = list_files(pictures)
    assert listing.files == before
    assert sorted(listing.special) == ["linked.png", "pipe.png", "socket.png", "zero.jpg"]
    assert load_images([str(pictures), str(pictures / "*")]) == load_images([str(pictures)])
    for name in ("pipe.png", "zero.jpg", "/dev/zero"):
        with pytest.raises(UserError, match="is not a regular file"):
            load_images([str(pictures / name)])
        with pytest.raises(UnreadableImageError, match="is not a regular file"):
            decode_image(pictures / name)


def test_globs_match_at_every_depth_and_leave_hidden_files_out(pictures):
    found = {pattern: load_images([str(pictures / pattern)]) for pattern in ("**/*.webp", "**/er/*", "d*/**", "**/c.*")}
    assert set(map(tuple, found.values())) == {(pictures / "deep/er/c.webp",)}
    with pytest.raises(UserError, match="no image file matches"):
        load_images([str(pictures / "**/d.jpg")])


def test_unread_pictures_are_named_where_nothing_else_is_there(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.CR2").write_bytes(b"raw")
    with pytest.raises(UserError, match=r"pictures that cannot be read: \.cr2 \(3\)"):
        load_images([str(tmp_path)])


def test_the_folders_of_runs_below_the_images_are_not_read(pictures):
    before = list_files(pictures)
    for name in ("outputs/x/default/model/examples/1.png", "outputs/x/default/plots/loss.svg"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(png(2))
    (pictures / "outputs/x/default" / RUN_MARK).write_text("{}")
    listing = list_files(pictures)
    assert listing.files == before.files
    assert listing.notes() == ["1 entries (outputs/x/default) are folders of runs: not read"]
    assert len(list_files(pictures / "outputs/x/default").files) == 2, "named outright"
