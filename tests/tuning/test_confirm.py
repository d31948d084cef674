"""The confirmation by whole runs, and what a run foretells."""

from dataclasses import replace

import pytest

from hf_accel.comparison.runs import probe_machine
from hf_accel.config.recipe import load_recipe
from hf_accel.tuning.confirm import FEWEST_STEPS, WARM_UP_STEPS, confirm, short_run, steps_of
from hf_accel.tuning.estimate import expected_run, num_compilations, num_evaluations
from hf_accel.tuning.trials import Trial
from tests.support.made_up_speeds import FACTS


@pytest.mark.slow
def test_both_recipes_train_with_an_evaluation_and_a_checkpoint(tiny_recipe, tmp_path):
    plain, tuned = tiny_recipe(), tiny_recipe({"training": {"optim": "adamw_torch"}})
    facts = replace(FACTS, train_rows=19, scored_rows=5, test_rows=8)
    found = confirm(plain, tuned, facts, 10.0, tmp_path / "out", probe_machine(), rounds=1, objective="time")
    assert found.verdict == "not repeated"  # one pair decides nothing
    assert found.ratio.num_pairs == 1
    assert [row.num_runs for row in found.comparison.rows] == [1, 1]
    assert found.wall_seconds > 0
    log = (tmp_path / "out" / "runs" / "tuned" / "round-0" / "history.csv").read_text("utf-8")
    assert log.splitlines()[-1].split(",")[0] == str(WARM_UP_STEPS + FEWEST_STEPS)
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_short_run_is_the_recipe_on_fewer_rows_and_steps(tmp_path):
    recipe = load_recipe(
        "resnet50_cifar10", overrides={"training": {"save_strategy": "no", "early_stopping_patience": 1}}
    )
    short = short_run(recipe, FACTS, 10, tmp_path)
    assert short.training["max_steps"] == short.training["eval_steps"] == short.training["save_steps"] == 10
    assert "early_stopping_patience" not in short.training
    assert short.data.max_train_rows < FACTS.train_rows
    assert short.data.max_test_rows == 512
    assert short.model == recipe.model
    few = replace(FACTS, train_rows=100, test_rows=10, scored_rows=0)
    assert short_run(recipe, few, 10, tmp_path).data.max_train_rows is None
    assert short_run(recipe, few, 10, tmp_path).training["eval_strategy"] == "no"


def test_slow_steps_are_few():
    assert steps_of(10.0) == WARM_UP_STEPS + FEWEST_STEPS
    assert steps_of(0.1) > 50
    assert steps_of(1e-9) < 300


def test_the_whole_run_is_the_sum_of_its_parts():
    recipe = load_recipe("resnet50_cifar10")
    trial = Trial(
        images_per_second=100.0, compile_seconds=30.0, rows=1000, scoring_seconds_per_row=1e-3, peak_anonymous_gib=2.0
    )
    expected = expected_run(recipe, FACTS, trial, start_seconds=10.0)
    assert expected.steps == 12 * 40_000 / 100
    assert expected.compiling == 60.0  # the last batch has another size
    assert expected.scoring == pytest.approx((12 * 5000 + 10_000) * 1e-3)
    assert expected.fill == pytest.approx(0.55)
    assert expected.seconds == pytest.approx(4800 + 60 + 70 + 0.55 + 10)
    assert expected.peak_gib == pytest.approx(2.0 + 54_000 * 3072 / 2**30)
    assert expected.price(3600.0) == pytest.approx(expected.seconds)
    assert expected_run(recipe, FACTS, Trial(error="out of memory")) is None


def test_a_dropped_last_batch_needs_no_second_compilation():
    recipe = load_recipe("resnet50_cifar10", overrides={"training": {"dataloader_drop_last": True}})
    assert num_compilations(recipe, FACTS) == 1
    assert num_compilations(recipe, replace(FACTS, train_rows=128 * 300)) == 1


@pytest.mark.parametrize(
    ("training", "number"),
    [
        ({}, 12),
        ({"eval_strategy": "no"}, 0),
        ({"eval_strategy": "steps", "eval_steps": 1000}, 3),
        ({"eval_strategy": "steps", "eval_steps": 0.25}, 4),
        ({"num_train_epochs": 1.5}, 2),
    ],
)
def test_evaluations_are_counted_as_the_run_will_make_them(training, number):
    recipe = load_recipe("resnet50_cifar10", overrides={"training": training})
    assert num_evaluations(recipe, FACTS) == number
    assert num_evaluations(recipe, replace(FACTS, scored_rows=0)) == 0
