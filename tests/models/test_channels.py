"""Grey images and images with four channels: the first layer is adapted, and training and prediction agree."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import ModelSettings
from hf_accel.data.images import decode_image
from hf_accel.errors import UserError
from hf_accel.evaluate import evaluate, evaluation_recipe
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.models.confidence import softmax
from hf_accel.models.load import load_model, load_trained
from hf_accel.report.run_report import RunReport
from hf_accel.tasks import TASKS
from hf_accel.train import train
from tests.support.given_rows import small_vit
from tests.support.image_splits import one_thread  # noqa: F401
from tests.support.saved_models import save_timm

LABELS = ["cat", "dog"]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def save_vit(folder):
    small_vit().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}, **HALF).save_pretrained(folder)
    return folder


def save_resnet(folder):
    return save_timm(folder, "resnet10t", LABELS)


@pytest.mark.parametrize("save", [save_vit, save_resnet])
def test_a_grey_model_answers_as_its_colour_model_does(save, tmp_path):
    folder = save(tmp_path / "colour")
    torch.manual_seed(0)  # of the new classifier
    colour = load_model(ModelSettings(str(folder)), LABELS, channels=3)
    torch.manual_seed(0)
    grey = load_model(ModelSettings(str(folder)), LABELS, channels=1)
    assert "adapted from 3 to 1 channels by timm. `pipeline` gives a model colour images" in grey.notes[-1]
    assert Preprocessing.of(grey.processor).channels == 1
    image = torch.randn(2, 1, 32, 32) if save is save_resnet else torch.randn(2, 1, 16, 16)
    for loaded in (colour, grey):
        loaded.model.eval()
    with torch.no_grad():
        expected = colour.model(pixel_values=image.expand(-1, 3, -1, -1)).logits
        torch.testing.assert_close(grey.model(pixel_values=image).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("save", [save_vit, save_resnet])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_saved_model_loads_upstream_with_its_channels(save, channels, tmp_path):
    loaded = load_model(ModelSettings(str(save(tmp_path / "colour"))), LABELS, channels=channels)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "saved")
    mode = {1: "L", 4: "RGBA"}[channels]
    shape = (40, 50, channels) if channels > 1 else (40, 50)
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)
    values = processor(picture, return_tensors="pt")["pixel_values"]
    assert values.shape[1] == channels
    assert model(pixel_values=values).logits.shape == (1, 2)
    ours = next(iter(TASKS["image-classification"].score_sources(load_trained(tmp_path / "saved"), [picture])))
    with torch.no_grad():
        theirs = model(pixel_values=values).logits.softmax(-1)[0]
    assert softmax(ours.logits) == pytest.approx(theirs.numpy(), abs=2e-3)


def test_a_processor_of_other_channels_is_read_with_its_own_means(tmp_path):
    folder = save_resnet(tmp_path / "colour")
    mean = Preprocessing.of(load_model(ModelSettings(str(folder)), LABELS).processor).mean
    four = Preprocessing.of(load_model(ModelSettings(str(folder)), LABELS, channels=4).processor)
    one = Preprocessing.of(load_model(ModelSettings(str(folder)), LABELS, channels=1).processor)
    assert four.mean == pytest.approx((*mean, mean[0]), abs=1e-6)
    assert one.mean == pytest.approx((sum(mean) / 3,), abs=1e-6)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 4), dtype=np.uint8)
    assert four.apply(pixels).shape == (four.height, four.width, 4)
    # no channel is taken for transparency
    alone = dataclasses.replace(four, mean=four.mean[:1], std=four.std[:1]).apply(pixels[:, :, 1:2])
    np.testing.assert_array_equal(four.apply(pixels)[:, :, 1:2], alone)


def test_images_are_read_with_the_channels_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 6, 4), dtype=np.uint8)
    PIL.Image.fromarray(colours, "RGBA").save(tmp_path / "four.png")
    PIL.Image.fromarray(colours[:, :, :3]).save(tmp_path / "three.png")
    PIL.Image.fromarray(colours[:, :, 0]).save(tmp_path / "one.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "four.png", channels=4), colours)
    np.testing.assert_array_equal(decode_image(tmp_path / "one.png", channels=1), colours[:, :, :1])
    grey = np.array(PIL.Image.open(tmp_path / "three.png").convert("L"))
    np.testing.assert_array_equal(decode_image(tmp_path / "three.png", channels=1)[:, :, 0], grey)
    with pytest.raises(UserError, match=r"it has the channels R, G, B, and data\.channels is 4"):
        decode_image(tmp_path / "three.png", channels=4)


def test_arrays_are_read_with_either_order_of_axes_and_scaled_to_8_bits(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, 6), dtype=np.uint8)
    forms = {
        "last": levels,
        "first": levels.transpose(2, 0, 1),
        "deep": levels.astype(np.uint16) * 257,
        "fractions": levels / 255,
    }
    for name, array in forms.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(decode_image(tmp_path / f"{name}.npy", channels=6), levels)
    with pytest.raises(UserError, match=r"it has the shape \(5, 7, 6\), and data\.channels is 3"):
        decode_image(tmp_path / "last.npy")
    with pytest.raises(UserError, match="it has 35 pixels, more than"):
        decode_image(tmp_path / "last.npy", max_pixels=30, channels=6)
    np.save(tmp_path / "wide.npy", levels.astype(np.int32) * 1000)
    with pytest.raises(UserError, match="it holds int32 from"):
        decode_image(tmp_path / "wide.npy", channels=6)


@pytest.mark.slow
def test_a_run_on_arrays_of_six_channels_is_scored_as_it_was(tiny_recipe, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,label,split"]
    for number in range(40):
        pixels = rng.integers(0, 100, (20 + number % 5, 24, 6), dtype=np.uint8)
        pixels[:, :, 5] += 150 * (number % 2)
        np.save(folder / f"{number}.npy", pixels)
        lines.append(f"{number}.npy,{('low', 'high')[number % 2]},{'test' if number < 8 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    labels = str(tmp_path / "labels.csv")
    data = {"name": str(folder), "labels": labels, "channels": 6, "on_bad_image": "skip"}
    run = train(tiny_recipe({"data": data}))
    report = RunReport.load(run)
    assert evaluate(evaluation_recipe(str(run), {}))["loss"] == pytest.approx(report.test.loss, rel=1e-4)
    images = [folder / "0.npy", folder / "1.npy"]
    answers = list(TASKS["image-classification"].score_sources(load_trained(run / "model"), images))
    assert [answer.error for answer in answers] == [None, None]
    card = (run / "model" / "README.md").read_text("utf-8")
    assert "hf-accel predict" in card
    assert "takes images of 6 channels" in card


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        {"cache": "memory", "augment": {"crop": "random_resized", "flip": True}},
        {"cache": "disk", "augment": {"crop": "pad", "flip": True, "rotation": {"degrees": 9}}},
        {"cache": "none", "resize": "letterbox", "augment": {"crop": "none"}, "transforms": "loader"},
    ],
)
def test_a_grey_run_trains_and_is_scored_as_it_was(data, tiny_recipe, tmp_path):
    data = {**data, "channels": 1, "cache_dir": str(tmp_path / "cache")}
    folder = train(tiny_recipe({"data": data}))
    report = RunReport.load(folder)
    assert evaluate(evaluation_recipe(str(folder), {}))["loss"] == pytest.approx(report.test.loss, rel=1e-4)
    loaded = load_trained(folder / "model")
    assert next(loaded.model.parameters()).shape[1] == 1
    photo = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    answer = next(iter(TASKS["image-classification"].score_sources(loaded, [photo])))
    with torch.no_grad():
        values = loaded.processor(photo.convert("L"), return_tensors="pt")["pixel_values"]
        theirs = loaded.model(pixel_values=values).logits.softmax(-1)[0]
    assert softmax(answer.logits) == pytest.approx(theirs.numpy(), abs=5e-3)
    assert '.convert("L")' in (card := (folder / "model" / "README.md").read_text("utf-8"))
    assert "`pipeline` would give it colour images" in card
    assert "from transformers import pipeline" not in card


@pytest.mark.parametrize(
    ("patch", "setting"),
    [
        ({"data": {"augment": {"color_jitter": {"hue": 0.1}}}}, "data.augment.color_jitter"),
        ({"data": {"augment": {"randaugment": {}}}}, "data.augment.randaugment"),
        ({"model": {"teacher": "./x"}}, "model.teacher"),
        ({"training": {"push_to_hub": True}}, "training.push_to_hub"),
        ({"compress": {"quantize": "int8"}}, "compress"),
    ],
)
def test_what_needs_colour_images_is_refused_by_name(patch, setting):
    overrides = {**patch, "data": {"name": "photos", "channels": 1, **patch.get("data", {})}}
    with pytest.raises(UserError, match=f"{setting} needs images of three channels, and data.channels is 1"):
        load_recipe("finetune", overrides=overrides)
