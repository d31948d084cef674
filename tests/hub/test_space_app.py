"""What the demo page does to an image before the model sees it."""

import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessor

gr = pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')

from hf_accel.hub import space_app  # noqa: E402
from hf_accel.hub.space_app import LONGEST, REMARKS, middle, read_image, sees_the_middle, verdict_of  # noqa: E402
from hf_accel.models.confidence import SURE, Confidence, spread  # noqa: E402

CROPS = ViTImageProcessor(size={"shortest_edge": 18}, do_center_crop=True, crop_size={"height": 16, "width": 16})
SQUEEZES = ViTImageProcessor(size={"height": 16, "width": 16})


def test_a_model_that_crops_is_told_from_one_that_is_shown_the_whole_strip():
    assert sees_the_middle(CROPS)
    assert not sees_the_middle(SQUEEZES)


@pytest.mark.parametrize("size", [(900, 1), (901, 2), (3, 2000), (500, 7), (40, 1000)])
def test_the_middle_of_a_strip_gives_what_the_whole_gives(size):
    width, height = size
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    part = middle(strip)
    assert max(part.size) <= (LONGEST + 2) * min(part.size) < max(strip.size)
    whole, cut = (CROPS(image, return_tensors="pt")["pixel_values"] for image in (strip, part))
    assert float((whole - cut).abs().max()) * 127.5 <= 2.01  # levels of 255; mean and std are 0.5


def test_an_image_of_a_usual_shape_is_not_cut():
    image = Image.new("RGB", (160, 12))
    assert middle(image) is image


def test_an_upload_is_refused_by_its_header_or_turned_upright(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.new("L", (30, 20), 128).save(tmp_path / "turned.jpg", exif=exif)
    assert (read_image(tmp_path / "turned.jpg").size, read_image(tmp_path / "turned.jpg").mode) == ((20, 30), "RGB")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(gr.Error, match="cannot be read as an image"):
        read_image(tmp_path / "text.png")
    monkeypatch.setattr(space_app, "MOST_PIXELS", 500)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(gr.Error, match="30 x 20 pixels"):
        read_image(tmp_path / "turned.jpg")


def test_a_space_says_of_an_answer_what_predict_says():
    """It has a copy of a few lines, because it runs without this package."""
    learned = Confidence(temperature=1.5, unsure_below=0.7, unlike_below=2.0)
    said = set()
    for logits in np.random.default_rng(0).normal(0, 2, (200, 3)):
        answer = learned.answer(logits)
        verdict = verdict_of(learned.to_dict(), float(spread(logits)), float(answer.probabilities.max()))
        assert (verdict or SURE) == answer.verdict
        said.add(verdict)
    assert said == {"", *REMARKS}
    assert verdict_of({}, 0.0, 0.1) == ""
