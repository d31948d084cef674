"""The structure of an image folder is understood or asked for, never guessed."""

import unicodedata

import pytest

from hf_accel.data import listing
from hf_accel.data.images import HAS_HEIC
from tests.support.data_sets import counts, load, png, refusal, tables_cache, write_folder  # noqa: F401


@pytest.mark.parametrize(
    ("train", "other", "role"),
    [
        ("training_set", "test_set", "test"),
        ("Training", "Testing", "test"),
        ("train_data", "test_data", "test"),
        ("train_images", "val_images", "validation"),
        ("TRAIN", "valid", "validation"),
        ("imagesTrain", "imagesVal", "validation"),
        ("train2017", "val2017", "validation"),
    ],
)
def test_splits_in_their_usual_spellings_are_splits(train, other, role, tmp_path):
    write_folder(tmp_path, {f"{train}/cat": 6, f"{train}/dog": 5, f"{other}/cat": 2, f"{other}/dog": 3})
    splits = load(tmp_path)
    assert splits.label_names == ["cat", "dog"]
    assert (counts(splits.train), counts(splits.test)) == ([6, 5], [2, 3])
    assert any("validation split is the test" in note for note in splits.notes) == (role == "validation")


@pytest.mark.parametrize(
    "folders",
    [
        ["train", "test"],  # Kaggle: files only
        ["train", "val", "test"],
        ["training_set", "test_set"],
        ["train", "test1"],
        ["cat", "dog", "test"],
        ["cat", "dog", "train"],
        ["cat", "dog", "validation_images"],
        ["cat", "dog", "test_2"],
        ["cat", "dog", "unlabeled"],
        ["seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_test/dog"],
        ["cat", "dog", "test/cat", "test/dog"],
        ["cat", "dog", "train/cat", "train/dog"],
        ["train/cat", "train/dog", "test1/cat", "test1/dog"],
        ["val/cat", "val/dog", "test/cat", "test/dog", "more/cat"],
    ],
)
def test_folders_that_look_like_splits_are_questioned(folders, tmp_path):
    write_folder(tmp_path, dict.fromkeys(folders, 3))
    message = refusal(tmp_path)
    assert message.startswith(f"data.name {tmp_path}: ")
    assert "look like splits" in message
    assert "train/CLASS/1.jpg" in message
    assert "--data.layout classes" in message


@pytest.mark.parametrize("folders", [["cat", "dog", "test"], ["bus", "train", "val"], ["color/cat", "grey/cat"]])
def test_one_flag_says_that_every_folder_is_a_class(folders, tmp_path):
    write_folder(tmp_path, dict.fromkeys(folders, 5))
    splits = load(tmp_path, layout="classes")
    assert splits.label_names == sorted({folder.split("/")[0] for folder in folders})


@pytest.mark.parametrize(
    "folders",
    [
        ["color/cat", "color/dog", "grey/cat", "grey/dog"],
        ["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"],
        ["animals/cat", "animals/dog", "vehicles/bus"],
        ["cat/train", "cat/test", "dog/train", "dog/test"],
        ["cat", "cat/test", "dog"],
        ["cat", "dog", "more/cat", "more/dog"],
        ["train/color/cat", "train/color/dog", "train/grey/cat", "test/color/cat"],
    ],
)
def test_a_level_above_the_classes_is_questioned(folders, tmp_path):
    write_folder(tmp_path, dict.fromkeys(folders, 3))
    message = refusal(tmp_path)
    assert "look like a level above the classes" in message
    assert "--data.layout classes" in message


@pytest.mark.parametrize("inner", [["cat", "dog"], ["train/cat", "train/dog", "test/cat"]])
def test_a_single_folder_above_the_data_is_named(inner, tmp_path):
    write_folder(tmp_path, {f"dataset/{folder}": 3 for folder in inner})
    message = refusal(tmp_path)
    assert "one class only, dataset" in message
    assert f"Are the classes the folders in it ({', '.join(sorted({i.split('/')[0] for i in inner}))})?" in message
    assert load(tmp_path / "dataset").label_names == ["cat", "dog"]


def test_folders_inside_classes_may_have_any_other_names(tmp_path):
    write_folder(tmp_path, {"cat/images": 5, "dog/images": 5})
    assert load(tmp_path).label_names == ["cat", "dog"]


def test_two_folders_for_one_split_are_refused(tmp_path):
    write_folder(tmp_path, {f"{split}/{label}": 3 for split in ("train", "test", "Testing") for label in "ab"})
    assert "the folders Testing, test all mean the test split" in refusal(tmp_path)


def test_a_test_folder_of_files_next_to_train_is_said_to_have_no_labels(tmp_path):
    write_folder(tmp_path, {"train/cat": 10, "train/dog": 10, "test": 4})
    splits = load(tmp_path)
    assert (counts(splits.train), counts(splits.test)) == ([8, 8], [2, 2])
    assert "folder test has no class folders, so its images have no labels: not read" in splits.notes


def test_names_equal_in_unicode_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_folder(tmp_path, {f"train/{composed}": 4, f"train/{decomposed}": 3, "train/tea": 5})
    write_folder(tmp_path, {f"test/{decomposed}": 2, "test/tea": 1})
    splits = load(tmp_path)
    assert splits.label_names == [composed, "tea"]
    assert (counts(splits.train), counts(splits.test)) == ([7, 5], [2, 1])


@pytest.mark.parametrize("name", ["$x^2$", "a\nb", "\x1b[31mred", "=cmd()", "@sum", "a,b", "ünï", "a b ", "%s{}"])
def test_odd_names_load_unchanged(name, tmp_path):
    write_folder(tmp_path, {name: 5, "other": 5})
    assert set(load(tmp_path).label_names) == {name, "other"}


@pytest.mark.parametrize("place", ["caf\udce9", "train/caf\udce9"])
def test_names_that_are_not_utf8_are_refused_by_name(place, tmp_path):
    write_folder(tmp_path, {place: 3, place.replace("caf\udce9", "tea"): 3})
    message = refusal(tmp_path)
    assert "caf\\udce9" in message
    assert "is not UTF-8" in message
    message.encode("utf-8")


def test_a_picture_whose_name_is_not_utf8_is_refused_by_name(tmp_path):
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "\udcff.png").write_bytes(png(9))
    assert "cat/\\udcff.png is not UTF-8" in refusal(tmp_path)


def test_a_blank_name_is_not_a_class(tmp_path):
    write_folder(tmp_path, {"cat": 3, "dog": 3, " ": 2})
    message = refusal(tmp_path)
    assert f"{tmp_path}/ /000.png: label is ' ', expected one of the 2 classes" in message


@pytest.fixture
def no_heic(monkeypatch):
    readable = tuple(suffix for suffix in listing.IMAGE_SUFFIXES if not suffix.startswith((".hei", ".hif")))
    monkeypatch.setattr(listing, "IMAGE_SUFFIXES", readable)


def rename(folder, suffix, number=None):
    for path in sorted(folder.iterdir())[:number]:
        path.rename(path.with_suffix(suffix))


@pytest.mark.usefixtures("no_heic")
@pytest.mark.parametrize(
    ("suffix", "advice"),
    [(".HEIC", 'pip install "hf_accel[heic]"'), (".heif", "hf_accel[heic]"), (".cr2", "convert them")],
)
def test_a_class_of_pictures_that_cannot_be_read_does_not_disappear(suffix, advice, tmp_path):
    write_folder(tmp_path, {"cat": 5, "dog": 5, "emu": 4})
    rename(tmp_path / "emu", suffix)
    message = refusal(tmp_path)
    assert f"no image of 1 classes can be read (emu): {suffix.lower()} (4)" in message
    assert advice in message
    write_folder(tmp_path, {"emu": 4})
    assert any(note.startswith(f"4 pictures are not read: {suffix.lower()} (4)") for note in load(tmp_path).notes)


@pytest.mark.usefixtures("no_heic")
def test_a_folder_of_unread_pictures_alone_is_refused_with_what_would_read_them(tmp_path):
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    for label in ("cat", "dog"):
        rename(tmp_path / label, ".heic")
    assert ".heic (6): pip install" in refusal(tmp_path)


@pytest.mark.skipif(not HAS_HEIC, reason="pillow-heif is not installed")
def test_heic_is_read_where_its_reader_is_installed(tmp_path):
    import PIL.Image

    write_folder(tmp_path, {"cat": 5, "dog": 5})
    PIL.Image.new("RGB", (64, 48), (200, 30, 40)).save(tmp_path / "cat" / "005.heic")
    splits = load(tmp_path, selection=False)
    (part, row) = next(
        (p, r) for p in (splits.train, splits.test) for r in range(len(p)) if p.where(r).endswith(".heic")
    )
    pixels = part.read(row)
    assert pixels.shape == (48, 64, 3)
    assert abs(pixels.reshape(-1, 3).mean(0) - [200, 30, 40]).max() < 6
