"""`data.resize` gives the same pixels in evaluation, in the saved processor and in `pipeline`."""

import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from transformers.image_utils import SizeDict
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_accel.compression.export import recorded_preprocessing
from hf_accel.errors import UserError
from hf_accel.evaluate import evaluate, evaluation_recipe
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.resize_modes import mode_of, with_resize
from hf_accel.models.confidence import softmax
from hf_accel.models.exported import preprocessing_from, preprocessing_to
from hf_accel.models.load import load_trained
from hf_accel.report.run_report import RunReport
from hf_accel.tasks import TASKS
from hf_accel.train import train
from tests.support.image_splits import one_thread  # noqa: F401
from tests.support.processors import TWO_LEVELS, levels_off

MODES = ("crop", "squash", "letterbox")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 64, "width": 64}),
    "bit": lambda: transformers.BitImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 64}),
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(size={"height": 64, "width": 64}),
    "timm": lambda: TimmWrapperImageProcessor({"input_size": (3, 64, 64), "crop_pct": 0.875, **IMAGENET}),
}
VIT = {"name": "timm/vit_tiny_patch16_224",
       "args": {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_is_set_to_each_mode_and_evaluation_gives_its_pixels(name, mode, data_dir, tmp_path):
    processor = with_resize(PROCESSORS[name](), mode)
    now, before = Preprocessing.of(processor), Preprocessing.of(PROCESSORS[name]())
    assert mode_of(now) == mode
    assert (now.height, now.width, now.mean, now.std) == (64, 64, before.mean, before.std)
    assert levels_off(processor, str(data_dir / "hymenoptera")) <= TWO_LEVELS
    assert with_resize(processor, mode) is processor
    if name != "timm":  # whose settings are in the model's config
        processor.save_pretrained(tmp_path)
        saved = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8))
        made, again = (kind([image], return_tensors="pt")["pixel_values"] for kind in (processor, saved))
        torch.testing.assert_close(made, again, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "bars"), [("vit", (0, 0, 0)), ("timm", (124, 116, 104))])
def test_letterbox_shows_the_whole_image_between_bars(name, bars):
    preprocessing = Preprocessing.of(with_resize(PROCESSORS[name](), "letterbox"))
    image = np.full((50, 100, 3), (255, 0, 0), np.uint8)
    pixels = preprocessing.apply(image)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[16:48] == (255, 0, 0)).all()
    assert (pixels[:16] == bars).all()
    assert (pixels[48:] == bars).all()
    np.testing.assert_array_equal(preprocessing.apply(image.transpose(1, 0, 2)), pixels.transpose(1, 0, 2))


@pytest.mark.parametrize("name", ["vit", "timm"])
def test_squash_and_crop_differ_in_what_they_show(name):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 32:96] = 255  # the middle half
    shares = {
        mode: Preprocessing.of(with_resize(PROCESSORS[name](), mode)).apply(image).mean() / 255
        for mode in ("squash", "crop")
    }
    assert shares["squash"] == pytest.approx(0.5, abs=0.02)
    assert shares["crop"] > 0.97


def test_an_exported_model_records_the_bars_and_leaves_out_what_cannot_say_them():
    loaded = SimpleNamespace(processor=with_resize(PROCESSORS["timm"](), "letterbox"))
    recorded, notes = recorded_preprocessing(loaded)
    assert "preprocessor_config.json is left out" in notes[0]
    again = preprocessing_from(json.loads(json.dumps(preprocessing_to(recorded))))
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again.apply(image), recorded.apply(image))
    assert again.pad == (124, 116, 104)


class OneWay(transformers.MobileViTImageProcessor):
    """Squashes, whatever it is asked for, and wants blue first."""

    def resize(self, image, size, *args, **kwargs):
        return super().resize(image, SizeDict(height=64, width=64), *args, **kwargs)


def test_a_processor_that_cannot_be_set_so_is_refused():
    processor = OneWay(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    assert mode_of(Preprocessing.of(with_resize(processor, "squash"))) == "squash"
    with pytest.raises(UserError, match=r"data\.resize: letterbox cannot be said by OneWay"):
        with_resize(processor, "letterbox")


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_run_saves_the_mode_and_predict_evaluate_and_pipeline_give_its_answers(cache, tiny_recipe, tmp_path):
    model = {"model": VIT} if cache == "memory" else {}
    recipe = tiny_recipe(model, {"data": {"resize": "letterbox", "cache": cache, "augment": {"crop": "none"}}})
    folder = train(recipe)
    report = RunReport.load(folder)
    assert any(note.startswith("data.resize: letterbox, by TimmWrapperImageProcessor") for note in report.notes)
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "model")
    assert mode_of(Preprocessing.of(processor)) == "letterbox"
    scores = evaluate(evaluation_recipe(str(folder), {}), own_data=False)
    assert scores["loss"] == pytest.approx(report.test.loss, rel=1e-4)
    wide = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    ours = next(iter(TASKS["image-classification"].score_sources(load_trained(folder / "model"), [wide]))).logits
    classify = transformers.pipeline("image-classification", str(folder / "model"), device="cpu")
    theirs = {answer["label"]: answer["score"] for answer in classify(wide)}
    assert softmax(ours) == pytest.approx([theirs[name] for name in report.data.labels], abs=5e-3)
