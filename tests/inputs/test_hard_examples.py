"""Which rows an epoch has, by their losses."""

import numpy as np
import pytest

from hf_accel.inputs.hard_examples import hardest_rows, rows_by_loss

UNKNOWN = np.inf


def test_the_hardest_rows_are_those_with_the_highest_losses_and_unknown_ones_come_first():
    losses = np.array([0.5, UNKNOWN, 2.0, 0.1, 1.0], dtype=np.float32)
    assert sorted(hardest_rows(losses, 3, seed=0, epoch=1)) == [1, 2, 4]


def test_seed_and_epoch_choose_among_rows_with_equal_losses():
    losses = np.zeros(1000, dtype=np.float32)
    chosen = [frozenset(hardest_rows(losses, 500, seed, epoch)) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) == 3
    assert all(200 < len(chosen[0] & other) < 300 for other in chosen[2:])


def test_rows_are_drawn_in_proportion_to_their_loss_above_a_floor():
    losses = np.array([0.0, 1.0, 3.0, 6.0] * 25, dtype=np.float32)
    drawn = np.concatenate([rows_by_loss(losses, 0.6, seed=4, epoch=epoch) for epoch in range(400)])
    counts = np.bincount(drawn, minlength=100) / 400
    expected = 0.4 + 0.6 * losses / losses.mean()
    np.testing.assert_allclose(counts, expected, atol=0.1)  # four standard deviations of a fair coin
    np.testing.assert_allclose(counts.reshape(25, 4).mean(0), expected[:4], atol=0.02)


def test_a_row_comes_as_often_as_expected_rounded_down_or_up_and_an_epoch_keeps_its_length():
    losses = np.random.default_rng(0).exponential(size=997).astype(np.float32)
    expected = 0.3 + 0.7 * losses.astype(np.float64) / losses.mean(dtype=np.float64)
    for epoch in range(20):
        rows = rows_by_loss(losses, 0.7, seed=1, epoch=epoch)
        counts = np.bincount(rows, minlength=997)
        assert len(rows) == 997
        assert (np.abs(counts - expected) < 1 + 1e-6).all()


@pytest.mark.parametrize("losses", [np.full(50, UNKNOWN), np.zeros(50), np.ones(50)])
def test_equal_or_unknown_losses_give_every_row_once(losses):
    assert sorted(rows_by_loss(losses.astype(np.float32), 0.5, seed=0, epoch=3)) == list(range(50))
