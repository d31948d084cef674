"""Images from anywhere to the probabilities of classes: in order, in bounded memory, as the model's processor sees them."""

import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import ViTImageProcessor

from hf_accel.data.images import UnreadableImageError
from hf_accel.models.confidence import softmax
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
    files = task.find_sources([str(photos / "test" / "red"), str(photos / "test" / "blue")])
    whole = list(task.score_sources(loaded, files, batch_size=3))
    assert [(answer.position, answer.source) for answer in whole] == list(enumerate(files))
    assert all(softmax(answer.logits).sum() == pytest.approx(1) for answer in whole)
    files[1].write_bytes(b"broken")
    again = list(task.score_sources(loaded, files, batch_size=3))
    assert [answer.position for answer in again] == list(range(8))
    assert str(files[1]) in str(again[1].error)
    assert again[1].logits is None
    for before, after in zip(whole[:1] + whole[2:], again[:1] + again[2:], strict=True):
        np.testing.assert_allclose(after.logits, before.logits, atol=1e-6)


def test_a_file_its_name_its_bytes_its_picture_and_its_pixels_are_the_same_image(loaded, photos):
    file = photos / "test" / "red" / "00.png"
    picture = PIL.Image.open(file)
    sources = [file, str(file), file.read_bytes(), picture, picture.convert("RGBA"), np.array(picture)]
    answers = [answer.logits for answer in score_images(TorchScorer(loaded), sources)]
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
    assert all(answer.logits is not None for answer in answers)


@pytest.mark.parametrize("shape", [(1, 900), (900, 2), (30, 290), (3, 2000)])
def test_the_crop_of_a_strip_is_made_alone_and_is_the_processors(loaded, shape, monkeypatch):
    loaded.processor = ViTImageProcessor(size={"shortest_edge": 18}, do_center_crop=True,
                                         crop_size={"height": 16, "width": 16})  # fmt: skip
    strip = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scorer = TorchScorer(loaded)
    expected = loaded.processor(images=[PIL.Image.fromarray(strip)], return_tensors="pt")["pixel_values"]
    assert scorer.target_side == 18
    monkeypatch.setattr(loaded, "processor", lambda **_: pytest.fail("the whole strip was resized"))
    got = scorer.inputs([scorer.prepare(strip)])["pixel_values"]
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) * 127.5 <= 2.01  # levels of 255; mean and std are 0.5


def photograph(file: Path, width: int = 400, height: int = 300) -> Path:
    """A JPEG file, smooth between the points of a coarse grid."""
    grid = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    PIL.Image.fromarray(grid).resize((width, height), PIL.Image.Resampling.BICUBIC).save(file, quality=90)
    return file


def test_a_photograph_is_decoded_at_a_reduced_size_and_gets_the_answer_of_the_whole_one(loaded, tmp_path, monkeypatch):
    scorer, decoded = TorchScorer(loaded), []
    prepare = scorer.prepare
    monkeypatch.setattr(scorer, "prepare", lambda pixels: decoded.append(pixels.shape) or prepare(pixels))
    file = photograph(tmp_path / "a.jpg")
    answers = list(score_images(scorer, [file, np.array(PIL.Image.open(file))]))
    assert sorted(decoded) == [(150, 200, 3), (300, 400, 3)]
    np.testing.assert_allclose(answers[0].logits, answers[1].logits, atol=5e-3)


def test_a_processor_that_makes_more_than_pixel_values_is_called_for_each_image(loaded, tmp_path, monkeypatch):
    made = loaded.processor

    def masking(images, return_tensors):
        values = made(images=images, return_tensors=return_tensors)["pixel_values"]
        return {"pixel_values": values, "mask": torch.ones(len(values))}

    loaded.processor = masking
    scorer, seen, model = TorchScorer(loaded), [], loaded.model
    monkeypatch.setattr(
        loaded, "model", lambda pixel_values, mask: seen.append(mask) or model(pixel_values=pixel_values)
    )
    loaded.model.parameters = model.parameters
    assert scorer.target_side is None
    (answer,) = score_images(scorer, [photograph(tmp_path / "a.jpg")])
    assert softmax(answer.logits).sum() == pytest.approx(1)
    assert len(seen) == 1


def test_images_are_prepared_while_the_model_computes(tmp_path):
    file, next_batch = photograph(tmp_path / "a.jpg"), threading.Event()

    class Waiting:
        target_side, channels, prepared = None, 3, 0

        def prepare(self, pixels):
            self.prepared += 1
            if self.prepared > 2:
                next_batch.set()
            return {"pixels": pixels}

        def score(self, images):
            assert next_batch.wait(60), "nothing was prepared during the forward pass"
            return np.ones((len(images), 1), np.float32)

    assert len(list(score_images(Waiting(), [file] * 4, batch_size=2))) == 4


def test_bf16_changes_the_probabilities_by_its_rounding(loaded):
    images = [np.random.default_rng(n).integers(0, 256, (20, 20, 3), dtype=np.uint8) for n in range(3)]
    exact, rounded = (
        np.stack([softmax(answer.logits) for answer in score_images(TorchScorer(loaded, bf16=bf16), images)])
        for bf16 in (False, True)
    )
    assert 0 < np.abs(exact - rounded).max() < 0.02
    np.testing.assert_allclose(rounded.sum(1), 1, atol=1e-6)


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
