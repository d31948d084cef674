"""The order of rows and the random numbers of images."""

from itertools import islice

import numpy as np
import pytest
import scipy.stats
import torch

from hf_accel.inputs.counter_rng import random_bits, uniform, uniform_pairs
from hf_accel.inputs.sampling import BalancedRows, EpochSampler, LengthGroups, draw_partners


def test_an_epoch_visits_every_row_once_and_carries_its_number():
    sampler = EpochSampler(101, seed=3)
    sampler.set_epoch(7)
    epochs, rows = np.divmod(list(sampler), 101)
    assert set(epochs) == {7}
    assert sorted(rows) == list(range(101))
    assert len(sampler) == 101


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        return [index % 50 for index in sampler]

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_numpy_and_torch_draw_the_same_numbers():
    rows, draws = np.arange(1000)[:, None], np.arange(7)
    from_numpy = uniform(5, 2, rows, draws)
    from_torch = uniform(5, torch.tensor(2), torch.from_numpy(rows), torch.from_numpy(draws))
    assert from_numpy.dtype == np.float32
    np.testing.assert_array_equal(from_numpy, from_torch.numpy())


def test_the_two_numbers_of_a_counter_are_uniform_and_unrelated():
    first, second = uniform_pairs(0, torch.tensor(0), torch.tensor([[1]]), torch.arange(20_000))[0]
    for numbers in (first, second):
        assert scipy.stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    np.testing.assert_array_equal(first, uniform(0, 0, np.array([1]), np.arange(20_000)))


def test_the_hash_is_splitmix_of_unsigned_numbers_and_never_changes():
    wrap = (1 << 64) - 1

    def mix(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & wrap
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & wrap
        return bits ^ (bits >> 31)

    def reference(seed: int, epoch: int, row: int, draw: int) -> int:
        bits = mix((row + 0x9E3779B97F4A7C15 * (seed + 1)) & wrap)
        bits = mix((bits + epoch * 0xD1B54A32D192ED03) & wrap)
        return mix((bits + draw * 0x8CB92BA72F3D8DD7) & wrap)

    assert reference(0, 0, 0, 0) == 3746585686858627171  # a resumed run continues the stream of an older version
    for seed, epoch, draw in ((0, 0, 0), (7, 3, 5), (2**32 - 1, 10_000, 1 << 20)):
        ours = [bits & wrap for bits in random_bits(seed, epoch, np.arange(50), draw).tolist()]
        assert ours == [reference(seed, epoch, row, draw) for row in range(50)]


def test_numbers_are_uniform_and_unrelated_between_rows_epochs_draws_and_seeds():
    base = uniform(0, 0, np.arange(20_000), 0)
    assert 0 <= base.min() < 1e-3
    assert 1 - 1e-3 < base.max() < 1
    counts = np.histogram(base, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001
    others = {
        "next row": uniform(0, 0, np.arange(20_000) + 1, 0),
        "next epoch": uniform(0, 1, np.arange(20_000), 0),
        "next draw": uniform(0, 0, np.arange(20_000), 1),
        "next seed": uniform(1, 0, np.arange(20_000), 0),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.03, name


def test_partners_come_from_the_whole_split_and_change_with_the_epoch():
    rows = np.arange(3000)
    partners = draw_partners(0, 3000, np.zeros(3000, dtype=np.int64), rows)
    assert partners.min() < 30
    assert 2970 <= partners.max() < 3000
    assert len(set(partners)) > 1800  # 63 % of the rows are drawn at least once
    assert (partners != draw_partners(0, 3000, np.ones(3000, dtype=np.int64), rows)).mean() > 0.99


def test_neighbouring_batches_of_a_sampler_are_not_sorted():
    first = np.array(list(islice(EpochSampler(10_000, 0), 200)))
    assert 4000 < first.mean() < 6000


LABELS = np.repeat([0, 1, 3], [2, 30, 71])  # no row of class 2


def test_a_balanced_epoch_has_as_many_rows_as_the_split_and_equally_many_of_each_class():
    balanced = BalancedRows(LABELS)
    for epoch in range(7):
        rows = balanced.rows(0, epoch)
        assert len(rows) == len(balanced) == len(LABELS)
        counts = np.bincount(LABELS[rows])[[0, 1, 3]]
        assert counts.max() - counts.min() <= 1
    even = sum(np.bincount(LABELS[balanced.rows(0, epoch)]) for epoch in range(3))  # 3 * 103 rows are divisible by 3
    assert even.tolist() == [103, 103, 0, 103]


def test_balanced_epochs_use_all_rows_of_a_class_equally_often_and_choose_others_each_time():
    balanced = BalancedRows(LABELS)
    epochs = [balanced.rows(5, epoch) for epoch in range(6)]
    common = [set(rows[LABELS[rows] == 3]) for rows in epochs]
    assert all(30 <= len(chosen) <= 35 for chosen in common)  # of 71 rows: the others are left out
    assert len({frozenset(chosen) for chosen in common}) == 6
    used = np.bincount(np.concatenate(epochs), minlength=len(LABELS))
    assert all(used[label == LABELS].max() - used[label == LABELS].min() <= 1 for label in (0, 1, 3))
    assert not np.array_equal(epochs[0], balanced.rows(6, 0))


def test_a_sampler_of_balanced_rows_shuffles_them_and_carries_the_epoch():
    balanced = BalancedRows(LABELS)
    sampler = EpochSampler(len(LABELS), 3, len(balanced), balanced.rows)
    sampler.set_epoch(2)
    epochs, rows = np.divmod(list(sampler), len(LABELS))
    assert set(epochs) == {2}
    assert sorted(rows) == sorted(balanced.rows(3, 2))
    assert (np.diff(LABELS[rows]) < 0).sum() > 5  # classes alternate


def test_balanced_partners_are_of_every_class_equally_often():
    rows = np.arange(3000)
    partners = BalancedRows(LABELS).partners(0, np.zeros(3000, dtype=np.int64), rows)
    counts = np.bincount(LABELS[partners])
    assert counts[2] == 0
    assert all(900 < counts[label] < 1100 for label in (0, 1, 3))
    assert len(set(partners)) == len(LABELS)


def grouped(lengths, size, epoch=0, seed=0, **choice):
    sampler = EpochSampler(len(lengths), seed, groups=LengthGroups(np.array(lengths), size), **choice)
    sampler.set_epoch(epoch)
    return np.array(list(sampler)) % len(lengths)


def test_groups_by_length_visit_every_row_once_in_steps_of_similar_length():
    lengths = np.random.default_rng(0).integers(5, 200, 1003)
    rows = grouped(lengths, 8)
    assert sorted(rows) == list(range(1003))
    whole = lengths[rows[:1000]].reshape(125, 8)
    random = lengths[np.random.default_rng(1).permutation(1003)[:1000]].reshape(125, 8)
    assert np.mean(whole.max(1) - whole.min(1)) < 0.1 * np.mean(random.max(1) - random.min(1))
    assert abs(np.corrcoef(np.arange(125), whole.mean(1))[0, 1]) < 0.3  # the steps are not sorted
    assert whole[0, 0] == lengths.max()  # what does not fit in memory fails at once


def test_groups_by_length_differ_by_epoch_and_seed_and_are_the_same_for_the_same():
    lengths = np.random.default_rng(0).integers(5, 200, 300)
    orders = {tuple(grouped(lengths, 8, epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert (grouped(lengths, 8, 2, 1) == grouped(lengths, 8, 2, 1)).all()


def test_groups_by_length_take_the_rows_that_a_method_chooses():
    rows = grouped([9, 1, 5, 3], 2, length=2, choose=lambda seed, epoch: np.array([3, 0]))
    assert rows.tolist() == [0, 3]


@pytest.mark.parametrize(("count", "size"), [(3, 8), (8, 8), (1, 1), (9, 2)])
def test_groups_by_length_of_few_rows(count, size):
    assert sorted(grouped(range(count), size)) == list(range(count))
