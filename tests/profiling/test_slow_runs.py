"""Real runs that are made slow on purpose: the phase that is slow has the time, and the verdict names it.

Nobody waits: what is made slow adds seconds to the clock that the profile reads.
"""

from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from hf_accel.config.recipe import load_recipe
from hf_accel.inputs.cache import DecodedPixels
from hf_accel.inputs.stored import StoredImages
from hf_accel.machine.probes import Peaks
from hf_accel.profiling import inference
from hf_accel.profiling.clock import PhaseClock
from hf_accel.profiling.phases import UNACCOUNTED
from hf_accel.profiling.verdict import verdict
from hf_accel.training import profiled
from hf_accel.training.checkpointing import CheckpointingTrainer
from hf_accel.training.trainer import ImageTrainer
from tests.support.profiles import SlowedGauges
from tests.support.texts import text_recipe

pytestmark = pytest.mark.slow

SLOW = 100.0  # seconds; a step of this network takes a fraction of one
STEPS = 2


@pytest.fixture
def recipe(tmp_path):
    overrides = {
        "model": {"args": {"channels": [8, 8, 8, 8]}},
        "data": {"image_size": 16, "max_train_rows": 200, "max_test_rows": 20},
        "training": {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 50,
                     "eval_strategy": "steps", "eval_steps": 50, "save_strategy": "steps", "save_steps": 50,
                     "load_best_model_at_end": False, "output_dir": str(tmp_path / "run")},
    }  # fmt: skip
    return load_recipe("digits", "baseline", overrides)


@pytest.fixture
def gauges(monkeypatch):
    monkeypatch.setattr(
        profiled, "measure_peaks", lambda device: Peaks(device, {"float32": 1e11, "bfloat16": 1e11}, 1e10)
    )
    monkeypatch.setattr(inference, "SECONDS", 0.0)
    return SlowedGauges()


def slowed(gauges, function, seconds=SLOW):
    """The function, which now takes longer."""

    def slow(*args, **kwargs):
        gauges.added += seconds
        return function(*args, **kwargs)

    return slow


class SlowOptimizer(TrainerCallback):
    def __init__(self, gauges):
        self.gauges = gauges

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        step = slowed(self.gauges, lambda *_: None)
        optimizer.optimizer.register_step_pre_hook(lambda *_: step())


def slow_input(monkeypatch, gauges):
    monkeypatch.setattr(DecodedPixels, "batch", slowed(gauges, DecodedPixels.batch))


def slow_host(monkeypatch, gauges):
    build = profiled.build_trainer

    def with_hook(*args, **kwargs):
        trainer = build(*args, **kwargs)
        trainer.model.register_forward_pre_hook(slowed(gauges, lambda *_: None))
        return trainer

    monkeypatch.setattr(profiled, "build_trainer", with_hook)


def slow_optimizer(monkeypatch, gauges):
    build = profiled.build_trainer

    def with_callback(*args, **kwargs):
        trainer = build(*args, **kwargs)
        trainer.add_callback(SlowOptimizer(gauges))
        return trainer

    monkeypatch.setattr(profiled, "build_trainer", with_callback)


def slow_saving(monkeypatch, gauges):
    monkeypatch.setattr(CheckpointingTrainer, "_commit", slowed(gauges, CheckpointingTrainer._commit))


def products(size=512, count=60):
    """Twenty times the work of the network, in matrix products."""
    matrix = torch.ones(size, size)
    for _ in range(count):
        matrix @ matrix


def activations(count=60):
    """The same in passes over memory."""
    values = torch.ones(1 << 21)
    for _ in range(count):
        torch.relu(values)


SLOWED = {"input": slow_input, "host": slow_host, "optimizer": slow_optimizer, "saving": slow_saving}
PLACE = {"input": "decode", "host": "forward", "optimizer": "optimizer", "saving": "checkpoint"}


def profile_of(recipe, gauges, causes=(), monkeypatch=None):
    """The profile of a run with these causes; a slow checkpoint is one per step."""
    if "saving" in causes:
        recipe = replace(recipe, training={**recipe.training, "save_steps": 1})
    for cause in causes:
        SLOWED[cause](monkeypatch, gauges)
    return profiled.profiled_run(recipe, PhaseClock(gauges, 1.0), STEPS)


@pytest.mark.parametrize("cause", SLOWED)
def test_a_run_made_slow_on_purpose_has_that_verdict(recipe, gauges, monkeypatch, cause):
    run = profile_of(recipe, gauges, [cause], monkeypatch)
    assert verdict(run.facts).bound == cause
    slowest = max(
        (phase for phase in run.phases if not phase.name.startswith("inference")), key=lambda phase: phase.seconds
    )
    assert slowest.name in (PLACE[cause], "evaluation")


@pytest.mark.parametrize(("work", "bound"), [(products, "compute"), (activations, "memory bandwidth")])
def test_a_large_network_is_bound_by_what_its_operators_need(recipe, gauges, monkeypatch, work, bound):
    build = profiled.build_trainer

    def larger(*args, **kwargs):
        trainer = build(*args, **kwargs)
        trainer.model.register_forward_pre_hook(torch.no_grad()(lambda *_: work()))
        return trainer

    monkeypatch.setattr(profiled, "build_trainer", larger)
    assert verdict(profile_of(recipe, gauges).facts).bound == bound


@pytest.mark.parametrize("causes", [("input", "optimizer"), ("host", "saving"), ("input", "host", "optimizer")])
def test_of_a_mixture_none_stands_out(recipe, gauges, monkeypatch, causes):
    found = verdict(profile_of(recipe, gauges, causes, monkeypatch).facts)
    assert found.bound == "none stands out"
    assert set(list(found.shares)[: len(causes)]) == set(causes)


def test_a_profile_accounts_for_the_run_and_leaves_nothing_behind(recipe, gauges):
    before = {owner: dict(vars(owner)) for owner in (StoredImages, DecodedPixels, ImageTrainer)}
    run = profile_of(recipe, gauges)
    names = [phase.name for phase in run.phases]
    expected = ["start", "prepare", "decode", "load", "copy", "transform", "forward", "backward", "optimizer",
                "evaluation", "checkpoint", "inference_one", "inference_many", UNACCOUNTED]  # fmt: skip
    assert names == expected
    assert run.num_steps == STEPS
    assert run.phase("forward").calls == 3 + STEPS  # those of the warm-up, too, and none of the steps without timers
    assert run.phase("forward").rows == 8 * (3 + STEPS)
    assert sum(seconds for _, _, seconds in run.spans) == pytest.approx(run.seconds + run.measuring_seconds, rel=1e-3)
    assert run.overhead.num_pairs == STEPS
    assert run.whole.steps == 50
    assert run.operators
    assert {owner: dict(vars(owner)) for owner in before} == before


def test_a_cache_is_decoded_before_the_first_step_and_counted_for_all_rows(recipe, gauges):
    cached = replace(recipe, data=replace(recipe.data, cache="memory"))
    run = profile_of(cached, gauges)
    assert "decode" not in run.step
    assert run.whole.kept_rows == 200 + 20
    assert 0 < run.phase("decode").rows < run.whole.kept_rows


def test_texts_are_tokenised_in_the_phase_of_decoding(gauges, tmp_path):
    settings = {"data": {"cache": "none"}, "training": {"max_steps": 6, "output_dir": str(tmp_path / "run")}}
    run = profiled.profiled_run(text_recipe(tmp_path, settings), PhaseClock(gauges), 1)
    assert run.task == "text-classification"
    assert run.phase("decode").rows >= run.phase("forward").rows > 0
    assert run.setup.is_text
    assert run.phase("inference_many").rows > run.phase("inference_many").calls


def test_a_first_run_measures_phases_alone(recipe, gauges):
    run = profiled.profiled_run(recipe, PhaseClock(gauges), 1, is_first=True)
    assert (run.operators, run.peaks, run.overhead) == ([], None, None)
    assert run.phase("forward").calls == 4
