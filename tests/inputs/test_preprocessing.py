"""Reading image processors: the settings that are read must give the processor's own pixels."""

import io
import logging

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_accel.config.sections import DataSettings
from hf_accel.data.images import decode_image
from hf_accel.data.splits import load_splits
from hf_accel.errors import UserError
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_evaluation_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.processors import with_image_size
from hf_accel.transforms.pipeline import EvalTransform
from tests.support.image_splits import make_split, one_thread  # noqa: F401
from tests.support.processors import TWO_LEVELS, levels_off

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
READ = {
    "vit": lambda: transformers.ViTImageProcessor(),
    "vit 32 px": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "convnext crop": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.95),
    "convnext 384": lambda: transformers.ConvNextImageProcessor(),
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(size={"height": 224, "width": 224}),
    "efficientnet crop": lambda: transformers.EfficientNetImageProcessor(do_center_crop=True),
    "bit": lambda: transformers.BitImageProcessor(),
    "beit": lambda: transformers.BeitImageProcessor(),
    "deit": lambda: transformers.DeiTImageProcessor(),
    "mobilenet": lambda: transformers.MobileNetV2ImageProcessor(),
    "mobilevit": lambda: transformers.MobileViTImageProcessor(size={"shortest_edge": 288}),
    "siglip": lambda: transformers.SiglipImageProcessor(),
    "timm": lambda: TimmWrapperImageProcessor({"input_size": (3, 224, 224), "crop_pct": 0.95, **IMAGENET}),
    "timm bilinear": lambda: TimmWrapperImageProcessor({"input_size": (3, 160, 160), "interpolation": "bilinear"}),
    "timm squash": lambda: TimmWrapperImageProcessor({"input_size": (3, 192, 192), "crop_mode": "squash"}),
    "timm border": lambda: TimmWrapperImageProcessor({"input_size": (3, 128, 128), "crop_mode": "border", **IMAGENET}),
}
CALLED = {
    "levit": lambda: transformers.LevitImageProcessor(),
    "mobilevit pads": lambda: transformers.MobileViTImageProcessor(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_evaluation_equals_the_processor_on_photographs_and_on_small_images(name, data_dir):
    processor = READ[name]()
    assert Preprocessing.of(processor).processor is None
    assert levels_off(processor, str(data_dir / "hymenoptera")) <= TWO_LEVELS
    assert levels_off(processor, str(data_dir / "cifar10")) <= TWO_LEVELS


def test_evaluation_equals_the_processor_of_a_saved_timm_model(data_dir):
    processor = transformers.AutoImageProcessor.from_pretrained(data_dir / "mobilenetv2_100")
    assert levels_off(processor, str(data_dir / "hymenoptera")) <= TWO_LEVELS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "bit", "timm", "timm bilinear"])
def test_a_photograph_of_12_megapixels_is_prepared_as_the_processor_prepares_it(name, data_dir):
    """Photographs of 12 megapixels are decoded at a reduced size; these are enlarged ones, with and without grain."""
    processor = READ[name]()
    preprocessing = Preprocessing.of(processor)
    settings = (
        {"quality": 95, "subsampling": 0},
        {"quality": 85},
        {"quality": 70, "progressive": True},
        {"quality": 50},
    )
    folders = [data_dir / "hymenoptera" / "train", data_dir / "clothing" / "train"]
    files = [sorted(folder.rglob("*.jpg"))[number] for number in (3, 50) for folder in folders]
    for number, (file, options) in enumerate(zip(files, settings, strict=True)):
        photograph = np.asarray(PIL.Image.open(file).convert("RGB").resize((4032, 3024), PIL.Image.Resampling.BICUBIC))
        grain = np.random.default_rng(number).normal(0, 3 * (number % 2), (3024, 4032, 1))
        encoded = io.BytesIO()
        PIL.Image.fromarray(np.clip(photograph + grain, 0, 255).astype(np.uint8)).save(encoded, "JPEG", **options)
        reduced = decode_image(encoded.getvalue(), target_side=preprocessing.target_side)
        assert reduced.shape == (1512, 2016, 3)
        theirs = processor([PIL.Image.open(encoded).convert("RGB")], return_tensors="pt")["pixel_values"][0]
        off = np.abs(preprocessing.pixel_values(reduced) - theirs.numpy()).max((1, 2)) * preprocessing.std * 255
        assert off.max() <= TWO_LEVELS


@pytest.mark.parametrize("name", ["timm", "timm bilinear", "bit"])
def test_torchvision_resizes_where_it_is_close_and_the_closest_can_be_asked_for(name):
    processor = READ[name]()
    assert Preprocessing.of(processor).resizer == "torchvision"
    assert Preprocessing.of(processor, closest=True).resizer == ("torchvision" if name == "bit" else "pillow")


@pytest.mark.slow
def test_real_weights_give_the_same_classes_on_either_path(data_dir):
    """213 photographs, 1,000 classes: the package's pixels and the processor's give the same class."""
    processor = transformers.AutoImageProcessor.from_pretrained(data_dir / "mobilenetv2_100")
    model = transformers.AutoModelForImageClassification.from_pretrained(data_dir / "mobilenetv2_100").eval()
    model.to(memory_format=torch.channels_last)
    settings = DataSettings(name=str(data_dir / "hymenoptera"), max_train_rows=60)
    splits = load_splits(settings, seed=0, selection=False)
    preprocessing = Preprocessing.of(processor)
    transform = EvalTransform(preprocessing, channels_last=True)
    std = torch.tensor(preprocessing.std)[:, None, None]
    same, right, levels = [], [], []
    for split in (splits.train, splits.test):
        batches = ImageBatches(split, open_evaluation_pixels(split, settings, preprocessing))
        for rows in torch.arange(len(split)).split(32):
            ours = transform(batches.__getitems__(rows.tolist()))["pixel_values"]
            photographs = [PIL.Image.fromarray(split.read(row)) for row in rows.tolist()]
            theirs = processor(photographs, return_tensors="pt")["pixel_values"]
            levels.append(float(((ours - theirs).abs() * std).max() * 255))
            with torch.inference_mode():
                logits, expected = model(ours).logits, model(theirs).logits
            same += (logits.argmax(1) == expected.argmax(1)).tolist()
            is_bee = logits[:, 309] > logits[:, 310]  # ImageNet's bee and ant; the labels are ants, bees
            right += (is_bee.long() == torch.from_numpy(split.labels[rows.numpy()])).tolist()
    assert len(same) == 213
    assert max(levels) <= TWO_LEVELS
    assert np.mean(same) >= 0.995
    assert np.mean(right) > 0.8  # and the pixels are those that the weights were trained for: channels, scale, crop


@pytest.mark.parametrize("name", CALLED)
def test_a_processor_that_cannot_be_read_is_called_and_a_warning_says_so(name, data_dir, caplog):
    processor = CALLED[name]()
    with caplog.at_level(logging.WARNING):
        preprocessing = Preprocessing.of(processor)
    assert preprocessing.processor is processor
    assert type(processor).__name__ in caplog.text
    assert levels_off(processor, str(data_dir / "hymenoptera")) <= TWO_LEVELS


def test_mean_and_std_are_those_in_force_not_those_declared():
    twice_divided = Preprocessing.of(transformers.EfficientNetImageProcessor(size={"height": 64, "width": 64}))
    assert twice_divided.std == pytest.approx((0.25, 0.25, 0.25))
    unscaled = Preprocessing.of(transformers.ViTImageProcessor(do_normalize=False))
    assert (unscaled.mean, unscaled.std) == ((0, 0, 0), (1, 1, 1))
    assert Preprocessing.of(transformers.MobileViTImageProcessor(size={"shortest_edge": 288})).bgr


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READ, "levit"])
def test_an_image_size_changes_the_output_and_keeps_the_share_of_the_crop(name):
    processor = (READ | CALLED)[name]()
    before, after = Preprocessing.of(processor), Preprocessing.of(processor, 160)
    assert (after.height, after.width) == (160, 160)
    assert (after.mean, after.std) == (before.mean, before.std)
    if isinstance(after.resize, int) and isinstance(before.resize, int):
        assert after.resize / 160 == pytest.approx(before.resize / before.height, abs=0.01)


def test_asking_for_the_size_it_has_leaves_a_processor_alone():
    processor = transformers.BitImageProcessor()
    assert with_image_size(processor, 224) is processor


def test_a_processor_whose_images_differ_in_size_is_refused():
    processor = transformers.BitImageProcessor(do_center_crop=False)
    with pytest.raises(UserError, match="differ in size"):
        Preprocessing.of(processor)


def test_resize_and_crop_follow_the_processor_at_every_aspect_ratio():
    processor = TimmWrapperImageProcessor({"input_size": (3, 50, 50), "crop_pct": 0.875, **IMAGENET})
    preprocessing = Preprocessing.of(processor)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (57, 57 + spare, 3), dtype=np.uint8) for spare in range(9)]
    split = make_split(images)
    pixels = open_evaluation_pixels(split, DataSettings(name="made"), preprocessing)
    assert pixels.shape == (50, 50)
    ours = EvalTransform(preprocessing)(ImageBatches(split, pixels).__getitems__(range(9)))["pixel_values"]
    theirs = processor([PIL.Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
