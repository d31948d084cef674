"""The transforms of whole batches: independent of the batch split, right labels, right distributions."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import MobileViTImageProcessor, ViTImageProcessor

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.sections import DataSettings
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_evaluation_pixels, open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.sampling import draw_partners, encode, mixes
from hf_accel.transforms.pipeline import EvalTransform, TrainTransform
from tests.support.image_splits import SMALL, VARIED, make_split, noise, one_thread  # noqa: F401

EVERYTHING = {
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "randaugment": {"num_ops": 2, "magnitude": 9},
    "random_erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
}
CHAIN = {
    "p": 0.5,
    "operations": [
        {"color_jitter": {"brightness": 0.2, "hue": 0.1}},
        {"rotation": {"degrees": 15}},
        {"affine": {"translate": [0.1, 0.1], "scale": [0.9, 1.1], "shear": 10}},
        {"perspective": {"distortion_scale": 0.2}},
        {"elastic": {"alpha": 30}},
        {"solarize": {"threshold": 192}},
        {"invert": {"p": 0.5}},
    ],
}
ALONE = {
    "rotation": {"degrees": 15, "p": 0.5},
    "affine": {"translate": [0.1, 0.1], "scale": [0.9, 1.1], "shear": 10, "p": 0.5},
    "perspective": {},
    "elastic": {"alpha": 30, "p": 0.5},
    "color_jitter": {"contrast": 0.4, "p": 0.5},
    "solarize": {},
    "invert": {},
    "grayscale": {},
    "blur": {"p": 0.5},
    "cutout": {"size": 0.4, "p": 0.5},
}
POLICIES = {"trivial_augment": {"p": 0.7}, "augmix": {"p": 0.7}}


CASES = {
    "none": (SMALL, AugmentSettings()),
    "resized and flipped": (SMALL, AugmentSettings(crop="random_resized", flip=True)),
    "pad": (SMALL, AugmentSettings(crop="pad", flip="alternating")),
    "photographs": (VARIED, AugmentSettings(crop="random_resized", flip=True)),
    "photographs, plain": (VARIED, AugmentSettings(flip=True)),
    "alone": (SMALL, AugmentSettings(crop="pad", flip=True, **ALONE)),
    "alone, photographs": (VARIED, AugmentSettings(crop="random_resized", **ALONE)),
    "chain": (SMALL, AugmentSettings(crop="pad", pad=5, chain=CHAIN, mixup=0.2)),
    "policies": (SMALL, AugmentSettings(crop="random_resized", **POLICIES)),
    "everything": (SMALL, AugmentSettings(crop="random_resized", flip=True, **EVERYTHING)),
    "everything, photographs": (VARIED, AugmentSettings(crop="random_resized", flip=True, **EVERYTHING)),
}


@pytest.fixture(scope="module")
def vit48() -> Preprocessing:
    return Preprocessing.of(ViTImageProcessor(size={"height": 48, "width": 48}))


def build(
    shapes, augment: AugmentSettings, preprocessing: Preprocessing, seed: int = 0, mode: str = "memory", **kwargs
):
    split = make_split(noise(*shapes))
    pixels = open_training_pixels(split, DataSettings(name="made", cache=mode, augment=augment), preprocessing)
    partners = partial(draw_partners, seed, len(split)) if mixes(augment) else None
    transform = TrainTransform(augment, preprocessing, 3, seed, **kwargs)
    return ImageBatches(split, pixels, partners), transform


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_the_same_in_whatever_batch_it_is(case, vit48):
    batches, transform = build(*CASES[case], vit48)
    indices = encode(3, np.arange(24), 24)
    whole = transform(batches.__getitems__(indices))
    parts = [transform(batches.__getitems__(indices[rows])) for rows in (slice(0, 1), slice(1, 9), slice(9, 24))]
    shuffled = transform(batches.__getitems__(indices[::-1]))
    for key, value in whole.items():
        # matrix products of other shapes may round differently; nothing else may differ
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), value, atol=1e-5, rtol=0)
        torch.testing.assert_close(shuffled[key].flip(0), value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_output_is_normalised_float32_of_the_models_size(case, vit48):
    for channels_last in (False, True):
        batches, transform = build(*CASES[case], vit48, channels_last=channels_last)
        batch = transform(batches.__getitems__(range(8)))
        images = batch["pixel_values"]
        assert (images.dtype, images.shape) == (torch.float32, (8, 3, 48, 48))
        assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        assert images.abs().max() <= 1 + 1e-5
        assert set(batch) == {"pixel_values", "labels"}


@pytest.mark.parametrize("case", CASES)
def test_both_memory_formats_hold_the_same_images(case, vit48):
    results = []
    for channels_last in (False, True):
        batches, transform = build(*CASES[case], vit48, channels_last=channels_last)
        results.append(transform(batches.__getitems__(range(24)))["pixel_values"])
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "case", ["resized and flipped", "pad", "alone", "chain", "policies", "everything", "photographs"]
)
def test_images_change_with_epoch_and_seed_and_with_nothing_else(case, vit48):
    def images(seed: int, epoch: int) -> torch.Tensor:
        batches, transform = build(*CASES[case], vit48, seed=seed)
        return transform(batches.__getitems__(encode(epoch, np.arange(24), 24)))["pixel_values"]

    assert torch.equal(images(0, 1), images(0, 1))
    assert not torch.equal(images(0, 1), images(0, 2))
    assert not torch.equal(images(0, 1), images(1, 1))


def test_device_cache_trains_on_the_same_images(vit48):
    shapes, augment = CASES["everything"]
    results = []
    for mode in ("memory", "device"):
        batches, transform = build(shapes, augment, vit48, mode=mode)
        results.append(transform(batches.complete(batches.__getitems__(range(24))))["pixel_values"])
    assert torch.equal(*results)


def test_switching_one_part_on_leaves_the_random_numbers_of_the_others_alone(vit48):
    augment = AugmentSettings(crop="random_resized", flip=True)
    plain, erased = (
        transform(batches.__getitems__(range(24)))["pixel_values"]
        for batches, transform in (build(SMALL, a, vit48) for a in (augment, replace(augment, random_erasing=1.0)))
    )
    kept = erased != 0
    assert 0.02 < 1 - kept.float().mean() < 0.5
    assert torch.equal(plain[kept], erased[kept])


@pytest.mark.parametrize("name", [*ALONE, *POLICIES, "chain"])
def test_a_technique_changes_its_share_of_the_images_and_leaves_the_others_alone(name, vit48):
    settings = ALONE | POLICIES | {"chain": CHAIN}
    images = {}
    for case, augment in (
        ("plain", AugmentSettings(flip=True)),
        ("one", AugmentSettings(flip=True, **{name: settings[name]})),
        ("all", AugmentSettings(flip=True, **{name: settings[name] | {"p": 1.0}})),
        ("none", AugmentSettings(flip=True, **{name: settings[name] | {"p": 0.0}})),
    ):
        batches, transform = build([(48, 48)] * 200, augment, vit48)
        images[case] = transform(batches.__getitems__(range(200)))["pixel_values"]
    torch.testing.assert_close(images["none"], images["plain"], atol=0, rtol=0)
    changed = (images["one"] != images["plain"]).flatten(1).any(1)
    p = settings[name].get("p", 0.1 if name == "grayscale" else 0.5)
    assert changed.sum() == pytest.approx(200 * p, abs=30)  # the identity is one of the operations of TrivialAugment
    assert torch.equal(images["one"][changed], images["all"][changed])  # the same numbers, whatever the probability


def test_an_operation_in_a_chain_has_its_probability_within_the_chain(vit48):
    augment = AugmentSettings(
        chain={"p": 0.5, "operations": [{"invert": {"p": 0.5}}, {"solarize": {"threshold": 0, "p": 0.5}}]}
    )
    batches, transform = build([(48, 48)] * 400, augment, vit48)
    batch = batches.__getitems__(range(400))
    inverted = (transform(batch)["pixel_values"] != EvalTransform(vit48)(batch)["pixel_values"]).flatten(1).any(1)
    assert inverted.sum() == pytest.approx(400 * 0.5 * 0.5, abs=35)  # twice is not at all


def test_operations_of_a_chain_are_applied_in_the_order_given(vit48):
    def images(*operations):
        augment = AugmentSettings(chain={"p": 1, "operations": list(operations)})
        batches, transform = build([(48, 48)] * 4, augment, vit48)
        return transform(batches.__getitems__(range(4)))["pixel_values"], transform._fit(
            batches.__getitems__(range(4))["pixels"], False
        )

    bright, invert = {"solarize": {"threshold": 200}}, {"invert": {}}
    first, pixels = images(bright, invert)
    levels = pixels.permute(0, 3, 1, 2).float()
    expected = 255 - torch.where(levels >= 200, 255 - levels, levels)
    torch.testing.assert_close(first * 127.5 + 127.5, expected, atol=1e-3, rtol=0)
    assert not torch.equal(images(invert, bright)[0], first)


@pytest.mark.parametrize("case", ["alone", "chain", "policies"])
def test_small_images_are_augmented_at_the_size_of_a_large_model(case):
    vit224 = Preprocessing.of(ViTImageProcessor())
    batches, transform = build(*CASES[case], vit224, channels_last=True)
    together = transform(batches.__getitems__([3, 5]))["pixel_values"]
    assert together.shape == (2, 3, 224, 224)
    alone = torch.cat([transform(batches.__getitems__([row]))["pixel_values"] for row in (3, 5)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_cutout_erases_a_square_that_may_go_beyond_the_border(fill, vit48):
    batches, transform = build([(48, 48)] * 300, AugmentSettings(cutout={"size": 0.5, "fill": fill}), vit48)
    batch = batches.__getitems__(range(300))
    images, plain = transform(batch)["pixel_values"], EvalTransform(vit48)(batch)["pixel_values"]
    erased = (images == (0 if fill == "mean" else -1)).all(1)
    assert torch.equal(images.where(~erased[:, None], plain), plain)
    heights, widths = (erased.any(axis).sum(1) for axis in (2, 1))
    assert (heights.max(), widths.max()) == (24, 24)
    assert (heights.min(), widths.min()) >= (12, 12)
    torch.testing.assert_close(erased.sum((1, 2)), heights * widths)


def test_without_augmentation_training_sees_what_evaluation_sees(vit48):
    for shapes in (SMALL, VARIED):
        batches, transform = build(shapes, AugmentSettings(), vit48)
        split = make_split(noise(*shapes))
        evaluation = ImageBatches(split, open_evaluation_pixels(split, DataSettings(name="made"), vit48))
        ours = transform(batches.__getitems__(range(24)))
        assert torch.equal(
            ours["pixel_values"], EvalTransform(vit48)(evaluation.__getitems__(range(24)))["pixel_values"]
        )
        assert torch.equal(ours["labels"], torch.arange(24) % 3)


def test_half_of_the_images_are_flipped(vit48):
    shapes = [(8, 8)] * 2000
    batches, plain = build(shapes, AugmentSettings(), vit48)
    flips = TrainTransform(AugmentSettings(flip=True), vit48, 3, seed=0)
    batch = batches.__getitems__(range(2000))
    flipped = (flips(batch)["pixel_values"] != plain(batch)["pixel_values"]).flatten(1).any(1)
    assert 900 < flipped.sum() < 1100
    torch.testing.assert_close(
        flips(batch)["pixel_values"][flipped],
        plain(batch)["pixel_values"][flipped].flip(3),
        atol=2 / 127.5 + 1e-5,
        rtol=0,
    )


def test_alternating_flip_shows_every_image_both_ways_in_two_epochs(vit48):
    batches, transform = build([(8, 8)] * 200, AugmentSettings(flip="alternating"), vit48)
    epochs = [batches.__getitems__(encode(epoch, np.arange(200), 200)) for epoch in range(4)]
    first, second, third, _ = (transform(batch)["pixel_values"] for batch in epochs)
    assert torch.equal(first, third)
    plain = EvalTransform(vit48)(epochs[0])["pixel_values"]
    first_is_plain = (first == plain).flatten(1).all(1)
    second_is_plain = (second == plain).flatten(1).all(1)
    assert torch.equal(first_is_plain, ~second_is_plain)
    assert 70 < first_is_plain.sum() < 130


def test_random_erasing_takes_its_share_of_the_images(vit48):
    batches, transform = build([(8, 8)] * 1000, AugmentSettings(random_erasing=0.25), vit48)
    images = transform(batches.__getitems__(range(1000)))["pixel_values"]
    share = (images == 0).all(1).float().mean((1, 2))
    assert 200 < (share > 0.01).sum() < 300
    erased = share[share > 0.01]
    assert erased.max() < 0.36
    assert 0.13 < erased.mean() < 0.21  # the area is uniform in 0.02..0.33


def mixed(shapes, augment: AugmentSettings, preprocessing: Preprocessing) -> tuple[torch.Tensor, ...]:
    """Images, soft labels, and the unmixed images of the rows and of their partners."""
    batches, transform = build(shapes, augment, preprocessing)
    batch = batches.__getitems__(range(len(batches)))
    unmixed = TrainTransform(replace(augment, mixup=0.0, cutmix=0.0), preprocessing, 3, seed=0)
    own = unmixed(batch)["pixel_values"]
    partner = {key.removeprefix("partner_"): value for key, value in batch.items() if key.startswith("partner_")}
    other = unmixed(partner | {"epochs": batch["epochs"]})["pixel_values"]
    result = transform(batch)
    return result["pixel_values"], result["labels"], own, other, batch["labels"], batch["partner_labels"]


def test_mixup_blends_image_and_label_by_the_same_share(vit48):
    images, labels, own, other, label, partner_label = mixed(SMALL, AugmentSettings(flip=True, mixup=1.0), vit48)
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(24))
    for n in range(24):
        if label[n] != partner_label[n]:
            share = labels[n, label[n]]
            assert labels[n, partner_label[n]] == pytest.approx(1 - float(share), abs=1e-6)
            torch.testing.assert_close(images[n], share * own[n] + (1 - share) * other[n], atol=1e-5, rtol=0)


def test_cutmix_pastes_a_box_and_labels_its_true_area(vit48):
    images, labels, own, other, label, partner_label = mixed([(8, 8)] * 300, AugmentSettings(cutmix=1.0), vit48)
    shares = []
    for n in range(300):
        differs = (own[n] != other[n]).any(0)
        from_partner, from_own = (images[n] == other[n]).all(0), (images[n] == own[n]).all(0)
        assert (from_partner ^ from_own)[differs].all()
        if label[n] != partner_label[n] and differs.float().mean() > 0.99:
            area = float((from_partner & differs).sum()) / 48**2
            assert float(labels[n, partner_label[n]]) == pytest.approx(area, abs=0.011)
            shares.append(area)
    assert len(shares) > 100


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_shares_follow_the_beta_distribution(alpha, vit48):
    _, labels, _, _, label, partner_label = mixed([(8, 8)] * 1500, AugmentSettings(mixup=alpha), vit48)
    shares = labels.gather(1, label[:, None])[:, 0][label != partner_label].numpy()
    assert len(shares) > 900
    assert scipy.stats.kstest(shares, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_and_cutmix_together_take_half_of_the_images_each(vit48):
    images, _, own, other, *_ = mixed([(8, 8)] * 400, AugmentSettings(mixup=1.0, cutmix=1.0), vit48)
    pasted = ((images == own) | (images == other)).flatten(1).float().mean(1) > 0.999
    assert 150 < pasted.sum() < 250


def test_a_model_that_wants_blue_first_gets_it():
    preprocessing = Preprocessing.of(
        MobileViTImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    )
    red = np.zeros((60, 60, 3), np.uint8)
    red[..., 0] = 255
    for crop in ("random_resized", "none"):
        augment = AugmentSettings(crop=crop)
        split = make_split([red] * 4)
        pixels = open_training_pixels(split, DataSettings(name="made", augment=augment), preprocessing)
        batch = ImageBatches(split, pixels).__getitems__(range(4))
        images = TrainTransform(augment, preprocessing, 3, seed=0)(batch)["pixel_values"]
        blue_first = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand_as(images)
        torch.testing.assert_close(images, blue_first)


def test_a_transform_reaches_a_worker_process_unchanged(vit48):
    batches, transform = build(*CASES["everything"], vit48)
    batch = batches.__getitems__(range(24))
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(copy(batch)["pixel_values"], transform(batch)["pixel_values"])


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_images_on_the_gpu_are_those_of_the_cpu(case, vit48):
    batches, transform = build(*CASES[case], vit48)
    batch = batches.__getitems__(range(24))
    on_cpu = transform(batch)
    on_gpu = build(*CASES[case], vit48)[1]({key: value.cuda() for key, value in batch.items()})
    off = (on_cpu["pixel_values"] - on_gpu["pixel_values"].cpu()).abs()
    if case.startswith(
        ("everything", "alone", "chain", "policies")
    ):  # solarize and others make a level of rounding a step
        assert (off > 0.05).float().mean() < 0.02
    else:
        assert off.max() < 0.03  # large sources are resized in whole levels on a CPU
    torch.testing.assert_close(on_cpu["labels"], on_gpu["labels"].cpu())
