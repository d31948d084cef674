"""What is kept of an image: long strips take no more memory than photographs, and photographs lose nothing."""

import numpy as np
import PIL.Image
import pytest
import transformers
from PIL.JpegImagePlugin import JpegImageFile
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_accel.inputs.preprocessing import Preprocessing, resize_image, resize_part
from hf_accel.inputs.stored import stored_for_model, stored_for_training
from tests.support.image_splits import make_split, noise

CROPPING = {
    "timm": lambda: TimmWrapperImageProcessor({"input_size": (3, 56, 56), "crop_pct": 0.875}),
    "bit": lambda: transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, do_center_crop=True
    ),
}


@pytest.fixture
def largest(monkeypatch):
    """The most pixels of any resized image so far, in a list of one."""
    most, resize = [0], PIL.Image.Image.resize

    def recording(self, size, *args, **kwargs):
        most[0] = max(most[0], size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(PIL.Image.Image, "resize", recording)
    return most


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 9_000)])
@pytest.mark.parametrize("name", CROPPING)
def test_a_long_strip_is_cropped_before_it_is_enlarged(name, shape, largest):
    preprocessing = Preprocessing.of(CROPPING[name]())
    largest[0] = 0
    kept = stored_for_model(make_split(noise(shape)), preprocessing)
    assert kept.read(0).shape == (56, 56, 3)
    assert largest[0] <= 8 * 56 * 56


@pytest.mark.parametrize("shape", [(8, 2000), (2000, 8), (37, 3001), (3001, 37), (700, 9000), (1, 900)])
@pytest.mark.parametrize("name", CROPPING)
def test_the_crop_of_a_strip_equals_the_processors(name, shape):
    processor = CROPPING[name]()
    preprocessing = Preprocessing.of(processor)
    (image,) = noise(shape)
    theirs = processor([PIL.Image.fromarray(image)], return_tensors="pt")["pixel_values"][0].numpy()
    levels = theirs.transpose(1, 2, 0) * np.float32(preprocessing.std) + np.float32(preprocessing.mean)
    assert np.abs(preprocessing.apply(image) - levels * 255).max() <= 2


@pytest.mark.parametrize("interpolation", ["hamming", "bilinear", "bicubic", "lanczos"])
def test_a_part_equals_that_part_of_the_whole(interpolation):
    for shape, size in (((60, 80), (90, 200)), ((200, 90), (61, 47)), ((40, 70), (90, 35))):
        (image,) = noise(shape)
        whole = resize_image(image, *size, interpolation).astype(int)
        part = resize_part(image, size, (7, 11, 32, 20), interpolation).astype(int)
        assert np.abs(part - whole[7:39, 11:31]).max() <= 2


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (224, 224), (120, 700), (40, 50)])
def test_an_ordinary_photograph_is_resized_whole_as_before(shape):
    preprocessing = Preprocessing.of(CROPPING["timm"]())
    (image,) = noise(shape)
    whole = resize_image(image, *preprocessing.resized(*shape), preprocessing.interpolation, preprocessing.resizer)
    top, left = preprocessing.crop_offset(*whole.shape[:2])
    np.testing.assert_array_equal(preprocessing.apply(image), whole[top : top + 56, left : left + 56])


@pytest.fixture
def reduced(monkeypatch) -> list[tuple[int, int]]:
    """The sizes, width and height, at which JPEGs were decoded in place of their own."""
    sizes, draft = [], JpegImageFile.draft

    def recording(self, mode, size):
        sizes.append(size)
        return draft(self, mode, size)

    monkeypatch.setattr(JpegImageFile, "draft", recording)
    return sizes


def test_photographs_are_decoded_at_a_reduced_size_for_a_cache_and_without_one(reduced):
    split = make_split([np.zeros((480, 640, 3), np.uint8)], format="JPEG")
    preprocessing = Preprocessing.of(TimmWrapperImageProcessor({"input_size": (3, 20, 20), "crop_pct": 0.5}))
    assert stored_for_model(split, preprocessing).read(0).shape == (20, 20, 3)
    assert reduced == [(320, 240)]  # 5 times 40, which the short side is shrunk to, and not 10 times
    assert [image.shape for image in stored_for_model(split, preprocessing).read_many(range(1))] == [(20, 20, 3)]
    assert stored_for_training(split, short_side=24).read(0).shape == (24, 32, 3)
    assert reduced == [(320, 240), (320, 240), (160, 120)]
    assert split.read(0).shape == (480, 640, 3)
    assert len(reduced) == 3


def test_a_strip_cached_for_random_crops_keeps_its_middle():
    images = [np.zeros((2, 1000, 3), np.uint8), *noise((300, 200), (50, 60))]
    images[0][:, 484:516] = 255
    kept = stored_for_training(make_split(images), short_side=100)
    assert kept.shapes().tolist() == [[2, 32], [150, 100], [50, 60]]
    assert (kept.read(0) == 255).all()
    np.testing.assert_array_equal(kept.read(1), resize_image(images[1], 150, 100, "bicubic", "torchvision"))
    np.testing.assert_array_equal(kept.read(2), images[2])
