"""The images of a data set are read once: unreadable ones, sizes, and pictures that occur twice."""

from dataclasses import replace

import datasets
import PIL.Image
import pytest

from hf_accel.data.survey import some_images, survey_images
from hf_accel.data.verdict import judge
from tests.support.data_sets import load, picture, write_folder
from tests.support.image_splits import make_split, noise


@pytest.fixture
def photos(tmp_path):
    """Two splits of two classes, all pictures different."""
    seeds = iter(range(100))
    for split, count in (("train", 6), ("test", 3)):
        for label in ("ant", "bee"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                picture(next(seeds)).save(tmp_path / split / label / f"{number}.png")
    return tmp_path


def found_in(folder):
    return judge(load(folder), 1000)


def test_small_pictures_are_compared_by_their_files_alone(tmp_path):
    for label, seeds in (("ant", (0, 1, 2, 3)), ("bee", (4, 5, 6, 7))):
        (tmp_path / label).mkdir()
        for seed in seeds:
            picture(seed, (20, 20)).save(tmp_path / label / f"{seed}.png")
    picture(0, (20, 20)).save(tmp_path / "ant" / "again.bmp")
    assert found_in(tmp_path).facts["same_picture"] == []
    (tmp_path / "bee" / "copy.png").write_bytes((tmp_path / "ant" / "1.png").read_bytes())
    (pair,) = found_in(tmp_path).facts["same_picture"]
    assert (pair["exact"], pair["same_label"]) == (True, False)


def test_sound_data_has_nothing_but_its_sizes(photos):
    verdict = found_in(photos)
    assert [finding.what for finding in verdict.findings] == [
        "classes with fewer than 10 train images: 2 of 2",
        "images read: all 18",
        "sizes: 64 x 48; formats: PNG 18",
        "no unreadable images and no picture that occurs twice",
    ]
    assert verdict.facts["images_read"] == 18
    assert verdict.facts["same_picture"] == []
    assert verdict.facts["rows"] == {"train": 12, "test": 6}


def test_the_same_picture_is_told_by_what_it_does_to_labels_and_splits(photos):
    shown = photos / "train" / "ant" / "0.png"
    (photos / "test" / "ant" / "copy.png").write_bytes(shown.read_bytes())
    PIL.Image.open(photos / "train" / "bee" / "1.png").resize((80, 60)).save(photos / "train" / "bee" / "smaller.png")
    PIL.Image.open(photos / "train" / "bee" / "2.png").save(photos / "train" / "ant" / "wrong.jpg", quality=80)
    verdict = found_in(photos)
    told = {finding.what: finding for finding in verdict.findings}
    labels = told["the same picture with two labels: 1 (0 byte for byte, 1 nearly)"]
    splits = told["the same picture in two splits: 1 (1 byte for byte, 0 nearly)"]
    twice = told["the same picture twice in a class of a split: 1 (0 byte for byte, 1 nearly)"]
    assert labels.examples == ["train/bee/2.png (train, 'bee') = train/ant/wrong.jpg (train, 'ant')"]
    assert splits.examples == ["test/ant/copy.png (test, 'ant') = train/ant/0.png (train, 'ant')"]
    assert twice.examples == ["train/bee/smaller.png (train, 'bee') = train/bee/1.png (train, 'bee')"]
    assert all(finding.advice for finding in (labels, splits, twice))
    assert "no unreadable images" not in verdict.text()
    exact = [pair["exact"] for pair in verdict.facts["same_picture"]]
    assert sorted(exact) == [False, False, True]


def test_unreadable_images_are_named_and_do_not_end_the_survey(photos):
    (photos / "train" / "ant" / "broken.jpg").write_bytes(b"no picture")
    (photos / "train" / "ant" / "empty.jpg").write_bytes(b"")
    text = found_in(photos).text()
    assert "unreadable images: 2 -> fix or delete them" in text
    assert "broken.jpg: its content is not in an image format" in text
    assert "empty.jpg: it is empty" in text


def test_rows_of_a_table_without_an_image_are_unreadable():
    split = make_split(noise((40, 40), (40, 50), (50, 40)))
    cells = [None, {"bytes": b"", "path": None}, split.dataset[2]["image"]]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    holed = replace(split, dataset=datasets.Dataset.from_dict({"image": cells}, features=features))
    survey = survey_images({"train": holed})
    assert survey.unreadable == [
        f"row {row} of made, train split: it is empty: its row holds no bytes" for row in (0, 1)
    ]
    assert survey.sizes.tolist() == [[40, 50]]
    assert len(some_images(holed)) == 1


def test_long_and_large_images_are_told_with_what_they_cost(photos):
    picture(98, (300, 90)).save(photos / "train" / "ant" / "long.png")
    text = found_in(photos).text(1000)
    assert "images whose sides differ by a factor of 3 or more: 1 ->" in text
    assert "no unreadable images and no picture that occurs twice" in text
    for path in photos.rglob("*.png"):
        PIL.Image.new("RGB", (2400, 1800)).save(path.with_suffix(".jpg"))
        path.unlink()
    assert "most images have more than 4 million pixels -> data.cache" in found_in(photos).text(1000)


def test_no_more_images_are_read_than_are_asked_for_and_each_split_has_its_share(photos, monkeypatch):
    splits = load(photos)
    survey = survey_images({"train": splits.train, "test": splits.test}, most=9)
    assert (survey.num_read, survey.num_images, len(survey.sizes)) == (9, 18, 9)
    assert "images read: 9 of 18 -> --images N reads more" in judge(splits, 9).text()
    monkeypatch.setattr("hf_accel.data.verdict.survey_images", lambda *_: pytest.fail("images were read"))
    assert "images_read" not in judge(splits, 0).facts


def test_classes_with_few_rows_are_named_the_smallest_first(tmp_path):
    verdict = found_in(write_folder(tmp_path, {"ant": 40, "bee": 9, "cat": 6}))
    (few,) = (finding for finding in verdict.findings if finding.what.startswith("classes with fewer than 10"))
    assert few.examples[0].startswith("'cat': ")
    assert len(few.examples) == 2


def test_a_description_says_how_unequal_the_classes_are_and_what_makes_up_for_it(tmp_path):
    folder = write_folder(tmp_path, {"ant": 50, "bee": 5})
    (note,) = (note for note in load(folder).notes if note.startswith("imbalance"))
    assert note == (
        "imbalance: the largest class, 'ant' (40), has 10.0 times the images of the smallest, 'bee' (4). Compare macro F1, not "
        "accuracy; data.class_weights: balanced, or data.sampling: balanced, makes up for it"
    )
    (note,) = (note for note in load(folder, class_weights="balanced").notes if note.startswith("imbalance"))
    assert note.endswith("Compare macro F1, not accuracy")
    equal = write_folder(tmp_path / "equal", {"ant": 20, "bee": 10})
    assert not any(note.startswith("imbalance") for note in load(equal).notes)
