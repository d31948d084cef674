"""Progressive resizing: the schedule, what a batch knows of it, and a run that follows it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.sections import DataSettings
from hf_accel.errors import UserError
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.sampling import encode
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.transforms.pipeline import TrainTransform
from hf_accel.transforms.progressive_resizing import TrainingSides, count_epochs
from tests.support.image_splits import SMALL, VARIED, make_split, noise, one_thread  # noqa: F401

pytestmark = pytest.mark.slow

SIDES = TrainingSides(start=24, full=48, full_at=0.5, num_epochs=6)  # full from the fourth epoch


def test_images_grow_by_epoch_in_multiples_of_32_and_are_full_at_the_fraction_asked_for():
    sides = TrainingSides(start=128, full=224, full_at=0.75, num_epochs=12)
    assert [sides(epoch) for epoch in range(12)] == [128, 128, 128, 160, 160, 160, 192, 192, 192, 224, 224, 224]
    assert sides.first_epochs() == {128: 0, 160: 3, 192: 6, 224: 9}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((16, 32, 1.0, 5), [16, 20, 24, 28, 32]),  # multiples of 4; the last epoch is always full
        ((150, 224, 0.5, 6), [150, 160, 192, 224, 224, 224]),
        ((128, 224, 0.75, 2), [128, 224]),
        ((128, 224, 0.75, 1), [224]),
        ((224, 224, 0.75, 3), [224, 224, 224]),
        ((128, 160, 0.55, 20), [128] * 11 + [160] * 9),  # 0.55 * 20 is a little above 11 in floating point
    ],
)
def test_the_first_epoch_is_of_the_start_size_and_the_last_of_the_full_one(settings, expected):
    sides = TrainingSides(*settings)
    assert [sides(epoch) for epoch in range(len(expected))] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_train_epochs": 2.5}, 3),
        ({"max_steps": 6}, 2),  # 24 rows in batches of 8
        ({"max_steps": 7}, 3),
        ({"max_steps": 7, "gradient_accumulation_steps": 2}, 4),
        ({"max_steps": 6, "world_size": 2}, 3),
        ({"max_steps": 6, "world_size": 2, "dataloader_drop_last": True}, 6),
    ],
)
def test_epochs_are_counted_as_the_trainer_counts_them(arguments, expected):
    defaults = {"num_train_epochs": 3.0, "max_steps": -1, "train_batch_size": 8, "world_size": 1,
                "gradient_accumulation_steps": 1, "dataloader_drop_last": False}  # fmt: skip
    assert count_epochs(SimpleNamespace(**defaults | arguments), num_rows=24) == expected


@pytest.fixture(scope="module")
def vit48() -> Preprocessing:
    return Preprocessing.of(ViTImageProcessor(size={"height": 48, "width": 48}))


CHAIN = [{"rotation": {"degrees": 30}}, {"perspective": {}}, {"elastic": {"sigma": 2}}, {"blur": {}}]
CASES = {
    "none": (SMALL, AugmentSettings()),
    "pad": (SMALL, AugmentSettings(crop="pad", flip=True, random_erasing=0.5)),
    "random_resized": (SMALL, AugmentSettings(crop="random_resized", flip=True, cutmix=1.0)),
    "chain": (SMALL, AugmentSettings(crop="pad", chain={"p": 1, "operations": CHAIN}, cutout={})),
    "photographs": (VARIED, AugmentSettings(crop="random_resized", color_jitter={"hue": 0.1}, randaugment={})),
}


def build(shapes, augment, preprocessing, sides, channels_last=False):
    split = make_split(noise(*shapes))
    pixels = open_training_pixels(split, DataSettings(name="made", augment=augment), preprocessing)
    mixed = (lambda epochs, rows: (rows + 1) % len(split)) if augment.cutmix else None
    transform = TrainTransform(augment, preprocessing, 3, seed=0, channels_last=channels_last)
    return ImageBatches(split, pixels, mixed, sides), transform


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_batch_has_the_size_of_its_epoch(case, channels_last, vit48):
    batches, transform = build(*CASES[case], vit48, SIDES, channels_last)
    for epoch, side in enumerate((24, 32, 40, 48, 48, 48)):
        images = transform(batches.__getitems__(encode(epoch, np.arange(8), 24)))["pixel_values"]
        assert images.shape == (8, 3, side, side)
        assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        assert images.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("case", CASES)
def test_at_full_size_the_images_are_those_of_a_run_without_it(case, vit48):
    (plain, transform), (grown, _) = (build(*CASES[case], vit48, sides) for sides in (None, SIDES))
    indices = encode(3, np.arange(24), 24)
    for key, value in transform(plain.__getitems__(indices)).items():
        assert torch.equal(transform(grown.__getitems__(indices))[key], value)


def test_a_small_image_is_the_full_one_made_smaller_with_the_same_random_numbers(vit48):
    augment = AugmentSettings(crop="pad", flip=True)
    (plain, transform), (grown, _) = (build(SMALL, augment, vit48, sides) for sides in (None, SIDES))
    indices = encode(1, np.arange(24), 24)
    full, small = (transform(batches.__getitems__(indices))["pixel_values"] for batches in (plain, grown))
    expected = functional.interpolate(full, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(small, expected, atol=1e-5, rtol=0)


def test_a_random_crop_of_the_small_size_shows_the_same_part(vit48):
    augment = AugmentSettings(crop="random_resized", flip=True, scale=[0.6, 1.0])
    gradient = np.tile(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], (40, 1, 3))
    split = make_split([gradient] * 24)
    pixels = open_training_pixels(split, DataSettings(name="made", augment=augment), vit48)
    transform = TrainTransform(augment, vit48, 3, seed=0)
    indices = encode(0, np.arange(24), 24)
    full, small = (transform(ImageBatches(split, pixels, None, s).__getitems__(indices)) for s in (None, SIDES))
    shrunk = functional.interpolate(full["pixel_values"], (24, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(small["pixel_values"], shrunk, atol=0.05, rtol=0)


def small_first(**changes):
    return {"data": {"progressive_resizing": {"start": 8, "full_at": 0.5}, **changes},
            "training": {"num_train_epochs": 4, "logging_steps": 1}}  # fmt: skip


def sides_seen(trainer):
    """The sides of the images that reach the model in training and in evaluation, in their order."""
    seen = {True: [], False: []}

    def note(module, args, kwargs):
        seen[module.training].append(kwargs["pixel_values"].shape[-1])

    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


@pytest.mark.parametrize("changes", [{}, {"transforms": "loader"}, {"cache": "none", "augment": {"mixup": 0.5}}])
def test_a_run_trains_on_growing_images_and_is_scored_at_full_size(changes, tiny_recipe):
    trainer = build_trainer(tiny_recipe(small_first(**changes)))
    seen = sides_seen(trainer)
    trainer.train()
    assert seen[True] == [8] * 3 + [12] * 3 + [16] * 6
    assert set(seen[False]) == {16}
    assert "training images: 8 px from epoch 1, 12 px from epoch 2, 16 px from epoch 3" in "\n".join(trainer.notes)


def test_workers_give_the_same_run(tiny_recipe, tmp_path):
    def losses(name, workers):
        patch = {"training": {"dataloader_num_workers": workers, "output_dir": str(tmp_path / name)}}
        trainer = build_trainer(tiny_recipe(small_first(transforms="loader"), patch))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert losses("here", 0) == losses("workers", 2)


def test_a_resumed_run_continues_at_the_size_of_its_epoch(tiny_recipe):
    recipe = tiny_recipe(
        small_first(),
        {"training": {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 9, "eval_strategy": "no"}},
    )
    whole = build_trainer(recipe)
    whole.train()
    resumed = build_trainer(recipe)
    seen = sides_seen(resumed)
    resumed.train(resume_from_checkpoint=str(recipe.output_dir / "checkpoint-4"))  # in the middle of the second epoch
    assert seen[True] == [12] * 2 + [16] * 6
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_operations_are_counted_at_the_size_of_each_batch(tiny_recipe):
    trainer = build_trainer(tiny_recipe(small_first()))
    trainer.train()
    per_row = 19 * 3  # forward and backward
    sides = (8, 12, 16, 16)
    assert trainer.state.total_flos == per_row * sum(trainer.flops_of_row({"side": side}) for side in sides)
    assert trainer.flops_of_row({"side": 16}) == trainer.flops_per_image
    assert trainer.flops_of_row({"side": 8}) == pytest.approx(trainer.flops_per_image / 4, rel=0.01)


def test_the_report_says_which_sizes_were_trained_on(tiny_recipe):
    folder = train(tiny_recipe(small_first(), {"training": {"num_train_epochs": 2}}))
    assert any("8 px from epoch 1, 16 px from epoch 2" in note for note in RunReport.load(folder).notes)


def save_vit(folder):
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                       image_size=16, patch_size=4)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return {"model": {"name": str(folder), "pretrained": True, "args": {}}}


def test_a_size_that_the_model_cannot_take_is_refused_before_anything_is_written(tiny_recipe, tmp_path):
    vit = save_vit(tmp_path / "vit")
    wide = tmp_path / "wide"
    save_vit(wide)
    settings = json.loads((wide / "preprocessor_config.json").read_text())
    (wide / "preprocessor_config.json").write_text(json.dumps(settings | {"size": {"height": 16, "width": 24}}))
    wide_model = {"model": {"name": str(wide), "pretrained": True, "args": {}}, "data": {"image_size": None}}
    for patch, words in (
        ({"data": {"progressive_resizing": {"start": 20}}}, "start is 20, expected at most 16"),
        ({"data": {"progressive_resizing": {"start": 8}}, **vit}, r"progressive_resizing: the model cannot take 8 x 8"),
    ):
        recipe = tiny_recipe({"training": {"num_train_epochs": 4}}, patch)
        with pytest.raises(UserError, match=words):
            train(recipe)
        assert not recipe.output_dir.exists()
    with pytest.raises(UserError, match="square"):
        build_trainer(tiny_recipe(small_first(), wide_model))
