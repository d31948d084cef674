"""A loss, a gradient or a weight that is not finite ends a run, or its step is left out; it is never saved."""

import math

import pytest
import torch
from torch import nn

from hf_accel.methods.finite import (
    MOST_IN_A_ROW,
    MOST_IN_WINDOW,
    MOST_OVERFLOWS,
    WINDOW,
    FiniteSteps,
    broken_tensor,
)

CPU = torch.device("cpu")
NAN, INF = math.nan, math.inf


def watch(values, gather=lambda values: values, **options):
    """Judge steps of (loss, gradient norm), each read on its own; the first that ends the run, and the watcher."""
    steps = FiniteSteps(nn.BatchNorm1d(2), CPU, **options)
    for number, (loss, norm) in enumerate(values, start=1):
        steps.add_loss(torch.tensor(loss))
        steps.end_step(number, 0.1, torch.tensor(norm))
        bad = steps.read(gather)
        if bad is not None:
            return bad, steps
    return None, steps


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [(NAN, 1.0, "loss is nan"), (INF, 1.0, "loss is inf"), (1.0, NAN, "norm is nan"), (1.0, INF, "norm is inf")],
)
def test_a_loss_or_a_gradient_norm_that_is_not_finite_ends_a_run_at_its_step(loss, norm, reason):
    bad, _ = watch([(1.0, 1.0), (3.4e38, 3.4e38), (loss, norm), (1.0, 1.0)])
    assert (bad.step, bad.learning_rate) == (3, 0.1)
    assert reason in bad.reason


def test_the_loss_of_every_micro_batch_and_of_every_process_counts():
    steps = FiniteSteps(nn.Linear(1, 1), CPU)
    for loss in (1.0, NAN, 1.0):
        steps.add_loss(torch.tensor(loss))
    steps.end_step(1, 0.1, None)
    assert steps.read(lambda values: values).step == 1
    other = torch.tensor([[1.0, 1.0], [INF, 1.0]])
    steps = FiniteSteps(nn.Linear(1, 1), CPU)
    for number in (1, 2):
        steps.add_loss(torch.tensor(-INF if number == 2 else 1.0))
        steps.end_step(number, 0.1, 1.0)
    assert steps.read(lambda values: torch.cat([values, other])).step == 2


def test_steps_are_read_together_only_where_reading_each_would_make_the_host_wait():
    assert FiniteSteps(nn.Linear(1, 1), CPU).every == 1
    assert FiniteSteps(nn.Linear(1, 1), torch.device("meta")).every == 50
    assert FiniteSteps(nn.Linear(1, 1), torch.device("meta"), skips=True).every == 1


def test_bad_steps_are_left_out_until_there_are_too_many():
    bad, steps = watch([(NAN, NAN)] * (MOST_IN_A_ROW - 1) + [(1.0, 1.0)], skips=True)
    assert bad is None
    assert steps.skipped == MOST_IN_A_ROW - 1
    assert [steps.was_left_out(step) for step in (1, 9, 10)] == [True, True, False]
    bad, _ = watch([(NAN, NAN)] * MOST_IN_A_ROW, skips=True)
    assert bad.step == MOST_IN_A_ROW
    bad, _ = watch([(NAN, NAN), (1.0, 1.0)] * WINDOW, skips=True)
    assert bad.step == 2 * MOST_IN_WINDOW + 1
    bad, steps = watch([(1.0, INF), *[(1.0, 1.0)] * 9] * 30, skips=True)  # 10 % of the steps
    assert bad is None
    assert steps.skipped == 30


def test_a_gradient_scaler_may_leave_steps_out_but_not_for_ever():
    bad, steps = watch([(1.0, INF)] * (MOST_OVERFLOWS - 1) + [(1.0, 1.0)] + [(1.0, NAN)] * 5, is_scaled=True)
    assert bad is None
    assert steps.skipped == MOST_OVERFLOWS + 4
    assert watch([(1.0, INF)] * 100, is_scaled=True)[0].step == MOST_OVERFLOWS
    assert watch([(1.0, INF), (NAN, NAN)], is_scaled=True)[0].step == 2


def test_what_was_left_out_before_a_checkpoint_counts_after_it():
    _, before = watch([(NAN, NAN)] * (MOST_IN_A_ROW - 1), skips=True)
    after = FiniteSteps(nn.Linear(1, 1), CPU, skips=True)
    after.load_state_dict(before.state_dict())
    after.add_loss(torch.tensor(NAN))
    after.end_step(MOST_IN_A_ROW, 0.1, 1.0)
    assert after.read(lambda values: values).step == MOST_IN_A_ROW
    assert after.skipped == MOST_IN_A_ROW


def test_a_broken_tensor_is_found_by_name_and_a_mask_of_infinities_is_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.full((3,), -INF))
    assert broken_tensor(model) is None
    model[1].running_var[1] = NAN
    assert broken_tensor(model) == "1.running_var"
    model[0].bias.data[0] = INF
    assert broken_tensor(model) == "0.bias"
