"""Images from anywhere to the probabilities of classes: in order, in bounded memory, as the model's processor sees them."""

import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import ViTImageProcessor

from hf_accel.data.images import UnreadableImageError
from hf_accel.models.load import LoadedModel
from hf_accel.tasks import TASKS, image_scoring
from hf_accel.tasks.image_scoring import score_images
from hf_accel.tasks.torch_scoring import TorchScorer


@pytest.fixture
def loaded(tiny_recipe) -> LoadedModel:
    recipe = tiny_recipe()
    torch.manual_seed(0)
    loaded = TASKS[recipe.model.task].load_model(recipe, ["blue", "red"])
    loaded.model.eval()
    return loaded


def test_every_source_gets_one_answer_in_order_and_a_broken_one_says_why(loaded, photos):
    task = TASKS["image-classification"]
    files = task.find_images([str(photos / "test" / "red"), str(photos / "test" / "blue")])
    whole = list(task.score_images(loaded, files, batch_size=3))
    assert [(answer.position, answer.source) for answer in whole] == list(enumerate(files))
    assert all(answer.probabilities.sum() == pytest.approx(1) for answer in whole)
    files[1].write_bytes(b"broken")
    again = list(task.score_images(loaded, files, batch_size=3))
    assert [answer.position for answer in again] == list(range(8))
    assert str(files[1]) in str(again[1].error)
    assert again[1].probabilities is None
    for before, after in zip(whole[:1] + whole[2:], again[:1] + again[2:], strict=True):
        np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-6)


def test_a_file_its_name_its_bytes_its_picture_and_its_pixels_are_the_same_image(loaded, photos):
    file = photos / "test" / "red" / "00.png"
    picture = PIL.Image.open(file)
    sources = [file, str(file), file.read_bytes(), picture, picture.convert("RGBA"), np.array(picture)]
    answers = [answer.probabilities for answer in score_images(TorchScorer(loaded), sources)]
    assert len(answers) == 6
    assert all((answer == answers[0]).all() for answer in answers[1:])


def test_only_a_few_batches_of_an_endless_source_are_read_ahead(loaded):
    read, before = [], set(threading.enumerate())

    def endless():
        while True:
            read.append(1)
            yield np.zeros((20, 20, 3), np.uint8)

    answers = score_images(TorchScorer(loaded), endless(), batch_size=4)
    for _ in range(9):
        next(answers)
    assert len(read) <= 9 + 4 * (image_scoring._BATCHES_AHEAD + 2)
    answers.close()
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("ThreadPoolExecutor")]


def test_images_of_different_input_sizes_are_not_put_into_one_batch(loaded):
    """A processor without a fixed size is refused for training, and classifies."""
    loaded.processor = ViTImageProcessor(size={"shortest_edge": 16}, do_center_crop=False)
    shapes = [(20, 20), (20, 20), (20, 40), (20, 20)]
    answers = list(score_images(TorchScorer(loaded), [np.full((*shape, 3), 90, np.uint8) for shape in shapes]))
    assert [answer.position for answer in answers] == [0, 1, 2, 3]
    assert all(answer.probabilities is not None for answer in answers)


@pytest.mark.parametrize("shape", [(1, 900), (900, 2), (30, 290), (3, 2000)])
def test_the_crop_of_a_strip_is_made_alone_and_is_the_processors(loaded, shape, monkeypatch):
    loaded.processor = ViTImageProcessor(size={"shortest_edge": 18}, do_center_crop=True,
                                         crop_size={"height": 16, "width": 16})  # fmt: skip
    strip = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scorer = TorchScorer(loaded)
    expected = loaded.processor(images=[PIL.Image.fromarray(strip)], return_tensors="pt")["pixel_values"]
    assert scorer._preprocessing() is not None
    monkeypatch.setattr(loaded, "processor", lambda **_: pytest.fail("the whole strip was resized"))
    got = scorer.prepare(strip)["pixel_values"]
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) * 127.5 <= 2.01  # levels of 255; mean and std are 0.5


def test_a_picture_that_cannot_be_fetched_is_an_unreadable_one(loaded, monkeypatch):
    def no_network(url):
        raise UnreadableImageError(url, "it cannot be fetched")

    monkeypatch.setattr(image_scoring, "fetch_image", no_network)
    (answer,) = score_images(TorchScorer(loaded), ["https://example.org/a.jpg"])
    assert str(answer.error).startswith("https://example.org/a.jpg: cannot be read as an image")
    monkeypatch.setattr(image_scoring, "fetch_image", lambda url: b"<html>")
    (answer,) = score_images(TorchScorer(loaded), ["https://example.org/a.jpg"])
    assert str(answer.error).startswith("https://example.org/a.jpg: ")


def test_a_missing_file_is_an_unreadable_one(loaded):
    (answer,) = score_images(TorchScorer(loaded), [Path("gone.png")])
    assert "No such file" in str(answer.error)
