"""Trials: real ones of a tiny network, and how they end that fail."""

import json
from dataclasses import replace

import pytest

from hf_accel.runs import process
from hf_accel.tuning.band import deviation, outside
from hf_accel.tuning.learning_rate import LOWEST
from hf_accel.tuning.record import Record
from hf_accel.tuning.space import Facts
from hf_accel.tuning.trials import LOSS_STEPS, RUNGS, Rung, Trial, run_range_test, run_trial, trial_recipe
from tests.support.texts import text_recipe


@pytest.mark.slow
def test_a_trial_gives_figures_and_facts_and_the_same_seed_the_same_losses(tiny_recipe, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    trial = run_trial(tiny_recipe(), first, Rung(0.0, 2), limit=120, learns_facts=True)
    assert trial.error is None
    assert len(trial.losses) == LOSS_STEPS
    assert trial.images_per_second > 0
    assert trial.peak_anonymous_gib > 0
    assert trial.scoring_seconds_per_row > 0
    facts = Facts(**trial.facts)
    assert (facts.train_rows, facts.scored_rows, facts.test_rows) == (19, 5, 8)
    assert facts.batch_norm
    assert not facts.dropout
    assert facts.convolutions > 0.9
    assert facts.cached_bytes_per_row >= 16 * 16 * 3  # photographs, with room for the crop
    assert not facts.same_size
    assert facts.image_size == 16
    again = run_trial(tiny_recipe({"data": {"cache": "none"}}), second, Rung(0.0, 2), limit=120, forked=True)
    assert again.losses == trial.losses
    assert again.facts is None


@pytest.mark.slow
def test_a_trial_that_cannot_run_says_why_in_a_line(tiny_recipe, tmp_path):
    broken = tiny_recipe({"model": {"name": "timm/no_such_network", "pretrained": False, "args": {}}})
    trial = run_trial(broken, tmp_path, Rung(0.0), limit=120, forked=True)
    assert trial.error.startswith("model.name: timm has no model 'no_such_network'")
    assert trial.wall_seconds > 0


def test_a_process_that_does_not_end_is_killed_and_counts_as_hanging(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_accel.tuning.trials.COMMAND", ("sleep", "60"))
    monkeypatch.setattr(process, "ENDS_WITH_PARENT", ())
    monkeypatch.setattr("hf_accel.tuning.trials.run_process", lambda *a, **k: process.run_process(["60"], *a[1:], **k))
    trial = run_trial(tiny_recipe(), tmp_path, RUNGS[0], limit=0.5)
    assert trial.error.startswith("hangs: it did not end within")
    assert trial.wall_seconds < 10


def test_a_trial_neither_scores_nor_saves_nor_publishes(tiny_recipe, tmp_path):
    asked = {
        "eval_steps": 5,
        "do_eval": True,
        "save_steps": 5,
        "early_stopping_patience": 2,
        "push_to_hub": True,
        "report_to": "tensorboard",
        "lr_scheduler_type": "reduce_lr_on_plateau",
    }
    recipe = tiny_recipe({"training": asked, "data": {"cache": "disk", "progressive_resizing": {"start": 8}}})
    tried = trial_recipe(recipe, tmp_path)
    assert not {"eval_steps", "early_stopping_patience", "do_eval", "push_to_hub", "report_to"} & tried.training.keys()
    assert tried.training["eval_strategy"] == tried.training["save_strategy"] == "no"
    assert tried.training["lr_scheduler_type"] == "constant"
    assert tried.training["learning_rate"] == recipe.training["learning_rate"]
    assert tried.data.cache_dir == str(tmp_path / "cache")
    assert tried.data.progressive_resizing is None
    assert tried.data.validation == recipe.data.validation


def test_losses_leave_the_band_by_size_or_by_not_being_finite():
    assert outside([2.31, 2.2], [2.3, 2.21], is_random=False) is None
    assert "step 2" in outside([2.3, 3.0], [2.3, 2.2], is_random=False)
    assert outside([2.3, 2.4], [2.3, 2.2], is_random=True) is None
    assert outside([float("nan")], [2.3], is_random=True) is not None
    assert outside([], [2.3], is_random=False) == "it logged no loss"
    assert outside([0.001], [0.0], is_random=False) is None  # both have learned it
    assert deviation([], [1.0]) == float("inf")


def test_a_record_is_continued_and_a_half_written_line_is_not_read(tmp_path):
    path = tmp_path / "trials.jsonl"
    record = Record(path, "this machine")
    trial = Trial(techniques=("bf16",), rung=1, number=2, wall_seconds=3.0, losses=(2.3,), images_per_second=10.0)
    record.add(trial)
    record.add(replace(trial, techniques=(), error="out of memory: x"))
    with path.open("a") as file:
        file.write(json.dumps({"key": "another machine", **trial.to_dict()}) + "\n" + '{"key": "this')
    again = Record(path, "this machine")
    assert again.find(("bf16",), 1, 2) == trial
    assert again.find((), 1, 2).error == "out of memory: x"
    assert len(again.trials) == 2


@pytest.mark.slow
def test_a_range_test_raises_the_rate_step_by_step(tiny_recipe, tmp_path):
    trial = run_range_test(tiny_recipe(), tmp_path, 12, limit=120, forked=True)
    assert trial.error is None
    assert trial.learning_rates[0] == pytest.approx(LOWEST)
    assert len(trial.losses) == len(trial.learning_rates) <= 12
    assert list(trial.learning_rates) == sorted(trial.learning_rates)


@pytest.mark.slow
def test_a_trial_of_a_text_classifier_knows_that_it_has_dropout_and_no_images(tmp_path):
    trial = run_trial(text_recipe(tmp_path), tmp_path, Rung(0.0, 2), limit=120, learns_facts=True, forked=True)
    assert trial.error is None
    facts = Facts(**trial.facts)
    assert facts.dropout
    assert not facts.batch_norm
    assert facts.cached_bytes_per_row is None
    assert facts.convolutions == 0


@pytest.mark.slow
def test_a_trial_runs_with_workers_threads_and_accumulation(tiny_recipe, tmp_path):
    patch = {
        "data": {"transforms": "loader"},
        "training": {"optim": "adamw_torch", "dataloader_num_workers": 1, "dataloader_prefetch_factor": 4},
    }
    patch["training"] |= {"cpu_threads": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trial = run_trial(tiny_recipe(patch), tmp_path, Rung(0.0, 2), limit=120, forked=True)
    assert trial.error is None
    assert trial.images_per_second > 0
