"""Layers that run again in the backward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hf_accel.methods.batch_norm import BatchNormStatisticsOnce
from hf_accel.training.build import build_trainer


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_are_updated_by_the_forward_pass_alone(use_reentrant, momentum):
    def after_three_steps(is_checkpointed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU())
        once = BatchNormStatisticsOnce(model)
        for _ in range(3):
            images = torch.randn(2, 3, 8, 8, requires_grad=True)
            with once:
                out = checkpoint(model, images, use_reentrant=use_reentrant) if is_checkpointed else model(images)
                once.after_forward()
                out.square().mean().backward()
        return model.state_dict()

    torch.testing.assert_close(after_three_steps(True), after_three_steps(False), rtol=0, atol=0)


def test_upstream_still_updates_the_statistics_twice():
    """Once it does not, `BatchNormStatisticsOnce` can be deleted: https://github.com/pytorch/pytorch/issues/96136"""
    norm = nn.BatchNorm2d(3)
    checkpoint(norm, torch.randn(2, 3, 4, 4), use_reentrant=False).sum().backward()
    assert norm.num_batches_tracked == 2


def test_a_failed_step_leaves_the_layers_as_they_were():
    norm = nn.BatchNorm2d(3, momentum=0.2)
    counter = norm.num_batches_tracked
    once = BatchNormStatisticsOnce(norm)

    def failing_step():
        with once:
            once.after_forward()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        failing_step()
    assert norm.momentum == 0.2
    assert norm.num_batches_tracked is counter


def test_a_forward_pass_outside_of_a_step_holds_nothing():
    norm = nn.BatchNorm2d(3)
    BatchNormStatisticsOnce(norm).after_forward()
    assert norm.momentum == 0.1


def test_a_run_without_checkpointing_has_nothing_to_hold(tiny_recipe):
    trainer = build_trainer(tiny_recipe({}))
    assert not any(isinstance(method, BatchNormStatisticsOnce) for method in trainer.methods)
