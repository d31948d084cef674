"""RandAugment, TrivialAugment and AugMix against torchvision: every operation and strength, and the shares of a mixture."""

import numpy as np
import pytest
import scipy.stats
import torch
from torchvision.transforms.v2 import AugMix as TheirAugMix
from torchvision.transforms.v2 import RandAugment as TheirRandAugment
from torchvision.transforms.v2 import TrivialAugmentWide

from hf_accel.config.augmentation import AugMix, RandAugment, TrivialAugment
from hf_accel.inputs.counter_rng import uniform
from hf_accel.transforms import policies
from hf_accel.transforms.policies import augmix, augmix_draws, gamma_quantiles, randaugment, trivial_augment
from tests.support.image_splits import noise, one_thread  # noqa: F401


@pytest.fixture
def images() -> torch.Tensor:
    """(4, 3, 16, 20) float32, whole levels."""
    return torch.from_numpy(np.stack(noise(*[(16, 20)] * 4))).permute(0, 3, 1, 2).float()


def expected(reference, name, magnitude, sign, bins, images, **options):
    """What torchvision's policy makes of the images, if it draws this."""
    magnitudes, is_signed = reference._AUGMENTATION_SPACE[name]
    strengths = magnitudes(bins, *images.shape[2:])
    strength = 0.0 if strengths is None else (sign if is_signed else 1) * float(strengths[magnitude])
    return reference._apply_image_or_video_transform(
        images.to(torch.uint8), name, strength, reference.interpolation, reference._fill
    )


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("number", range(14))
def test_randaugment_equals_torchvision(number, magnitude, images):
    reference = TheirRandAugment()
    name = list(reference._AUGMENTATION_SPACE)[number]
    for sign, draw in ((1, 0.75), (-1, 0.25)):
        draws = torch.tensor([[(number + 0.5) / 14, draw]]).expand(4, 2)
        ours = randaugment(images, draws, RandAugment(magnitude=magnitude))
        assert torch.equal(ours, expected(reference, name, magnitude, sign, 31, images).float()), (name, sign)


@pytest.mark.parametrize("bins", [31, 5])
@pytest.mark.parametrize("number", range(14))
def test_trivial_augment_equals_torchvision(number, bins, images):
    reference = TrivialAugmentWide()
    name = list(reference._AUGMENTATION_SPACE)[number]
    for magnitude in range(bins):
        for sign, draw in ((1, 0.75), (-1, 0.25)):
            draws = torch.tensor([[(number + 0.5) / 14, (magnitude + 0.5) / bins, draw]]).expand(4, 3)
            ours = trivial_augment(images, draws, TrivialAugment(num_magnitude_bins=bins))
            theirs = expected(reference, name, magnitude, sign, bins, images).float()
            assert torch.equal(ours, theirs), (name, magnitude, sign)


@pytest.mark.parametrize("place", range(13))
def test_a_chain_of_augmix_equals_torchvision(place, images):
    reference = TheirAugMix()
    assert set(policies._OF_AUGMIX) == set(reference._AUGMENTATION_SPACE)
    name = policies._OF_AUGMIX[place]
    settings = AugMix(severity=10, mixture_width=1, chain_depth=1)
    gammas = torch.full((4096,), 1.0)
    gammas[0] = 0.0  # the image itself gets no share, and the chain all of it
    for magnitude in range(10):
        for sign, draw in ((1, 0.75), (-1, 0.25)):
            draws = torch.tensor([[0.0, 0.5, 0.5, 0.5, (place + 0.5) / 13, (magnitude + 0.5) / 10, draw]]).expand(
                4, augmix_draws(settings)
            )
            ours = augmix(images, draws, settings, gammas)
            theirs = expected(reference, name, magnitude, sign, 10, images).float()
            assert (ours - theirs).abs().max() <= 1, (name, magnitude, sign)  # a share of 1 rounds down


def test_the_shares_of_augmix_are_spread_as_those_of_torchvision():
    for alpha in (1.0, 0.4):
        draws = uniform(0, torch.tensor(0), torch.arange(3000)[:, None], torch.arange(2))
        ours = policies._dirichlet(draws, gamma_quantiles(alpha))[:, 0].numpy()
        assert scipy.stats.kstest(ours, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    draws = uniform(0, torch.tensor(0), torch.arange(3000)[:, None], torch.arange(3))
    thirds = policies._dirichlet(draws, gamma_quantiles(1.0))
    torch.testing.assert_close(thirds.sum(1), torch.ones(3000))
    for column in thirds.t().numpy():
        assert scipy.stats.kstest(column, scipy.stats.beta(1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("draw", "depth"), [(0.1, 1), (0.5, 2), (0.9, 3)])
def test_a_drawn_depth_leaves_out_the_operations_beyond_it(draw, depth, images):
    settings = AugMix(mixture_width=1, severity=10)
    darker = [(policies._OF_AUGMIX.index("Brightness") + 0.5) / 13, 0.15, 0.25]  # the brightness times 0.9
    gammas = torch.full((4096,), 1.0)
    gammas[0] = 0.0
    draws = torch.tensor([[0.0, 0.5, 0.5, draw, *darker * 3]]).expand(4, augmix_draws(settings))
    (level,) = augmix(torch.full_like(images, 255), draws, settings, gammas).unique().tolist()
    assert level == pytest.approx(255 * 0.9**depth, abs=2)


@pytest.mark.parametrize(
    ("policy", "settings", "num_draws"),
    [
        (randaugment, RandAugment(), 4),
        (trivial_augment, TrivialAugment(), 3),
        (lambda *args: augmix(*args, gamma_quantiles(1.0)), AugMix(), augmix_draws(AugMix())),
    ],
    ids=["randaugment", "trivial_augment", "augmix"],
)
def test_a_policy_treats_an_image_alike_in_any_batch(policy, settings, num_draws, images):
    draws = torch.rand(4, num_draws, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    together = policy(images, draws, settings)
    alone = torch.cat([policy(images[n : n + 1], draws[n : n + 1], settings) for n in range(4)])
    assert torch.equal(together, alone)
    assert torch.equal(images, before)


def test_operations_and_strengths_are_drawn_evenly():
    draws = uniform(0, torch.tensor(0), torch.arange(20_000)[:, None], torch.arange(3))
    picks = policies._picks(draws, 14, 31)[:, 0]
    counts = torch.bincount(picks, minlength=14 * 31 * 2)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
