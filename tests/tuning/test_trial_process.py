"""The process of a trial: when it stops, and what it finds out about a network."""

from types import SimpleNamespace

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from transformers import TrainerControl, ViTConfig

from hf_accel.config.sections import ModelSettings
from hf_accel.models.load import load_model
from hf_accel.tuning.trial_process import RangeTest, TrialPace, attention_of, is_random
from tests.support.saved_models import save_hub

LABELS = ["cat", "dog"]


def steps_until_it_stops(seconds_of_a_step: float, seconds: float, steps: int, compiled: bool = False) -> tuple:
    """(step at which it stops, warm-up steps, steps whose loss is logged)."""
    measurement, now, logged = SimpleNamespace(warmup_steps=3), [0.0], []
    pace = TrialPace(measurement, seconds, steps, clock=lambda: now[0])
    args, control = SimpleNamespace(torch_compile=compiled), TrainerControl()
    pace.on_train_begin(args, SimpleNamespace(global_step=0), control)
    for step in range(1, 1000):
        now[0] += seconds_of_a_step
        pace.on_step_end(args, SimpleNamespace(global_step=step), control)
        logged += [step] if control.should_log else []
        if control.should_training_stop:
            return step, measurement.warmup_steps, logged
    raise AssertionError("it never stops")


def test_a_trial_measures_for_some_seconds_after_the_warm_up():
    assert steps_until_it_stops(0.1, seconds=1.45, steps=2) == (18, 3, [1, 2, 3])


def test_of_slow_steps_two_are_enough_and_one_is_warm_up():
    assert steps_until_it_stops(5.0, seconds=1.5, steps=2) == (3, 1, [1, 2, 3])
    assert steps_until_it_stops(5.0, seconds=1.5, steps=2, compiled=True) == (5, 3, [1, 2, 3])


def test_a_reference_trains_only_for_its_losses():
    assert steps_until_it_stops(0.1, seconds=0.0, steps=0) == (3, 3, [1, 2, 3])


def test_a_range_test_keeps_the_ratios_of_the_rates_of_layers_and_ends_where_the_loss_explodes():
    groups = [{"lr": 0.1, "initial_lr": 0.1}, {"lr": 0.01, "initial_lr": 0.01}]
    rising, control = RangeTest([1e-3, 1e-2]), TrainerControl()
    args = SimpleNamespace(learning_rate=0.1)
    rising.on_pre_optimizer_step(
        args, SimpleNamespace(global_step=1), control, optimizer=SimpleNamespace(param_groups=groups)
    )
    assert [group["lr"] for group in groups] == pytest.approx([1e-2, 1e-3])
    for loss in [2.3] * 8 + [100.0]:
        assert not control.should_training_stop
        rising.on_log(args, SimpleNamespace(), control, {"loss": loss})
    assert control.should_training_stop


def test_dropout_and_stochastic_depth_are_random_unless_their_rate_is_zero():
    assert is_random(nn.Dropout(0.1))
    assert is_random(DropPath(0.1))
    assert not is_random(nn.Dropout(0.0))
    assert not is_random(DropPath(0.0))
    assert not is_random(nn.Linear(2, 2))


def test_the_attention_of_a_model_of_transformers_is_known_and_can_be_exchanged(tmp_path):
    small = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    place = str(save_hub(tmp_path / "vit", small, LABELS))
    assert attention_of(load_model(ModelSettings(name=place), LABELS).model) == "sdpa"
    eager = load_model(ModelSettings(name=place, args={"_attn_implementation": "eager"}), LABELS).model
    assert attention_of(eager) == eager.vit.config._attn_implementation == "eager"
    of_timm = load_model(ModelSettings(name="timm/resnet10t", pretrained=False), LABELS).model
    assert attention_of(of_timm) is None
    with torch.inference_mode():
        assert eager(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 2)
