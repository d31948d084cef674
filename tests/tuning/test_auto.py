"""`train --tune auto`: a stored result, a search that takes a small part of the run, or neither."""

import pytest

from hf_accel import train, tune
from hf_accel.cli import run
from hf_accel.config.recipe import RecipeFile, load_recipe
from hf_accel.errors import UserError
from hf_accel.tuning.auto import SHARE, tuned_patch, tuned_recipe
from hf_accel.tuning.candidates import Candidates, recipe_key
from hf_accel.tuning.stored import Stored, find, place_of, store
from tests.support.reports import ENVIRONMENT

OVERRIDES = {"model": {"channels_last": False}, "training": {"num_train_epochs": 200}}


def candidates(**training) -> Candidates:
    overrides = {**OVERRIDES, "training": {**OVERRIDES["training"], **training}}
    return Candidates(RecipeFile.read("digits"), "baseline", overrides)


def test_a_result_of_tune_is_used_by_the_next_training(made_up, tmp_path, capsys):
    words = ["--recipe", "digits", "--variant", "baseline", "--model.channels_last", "false"]
    assert (
        tune.main([*words, "--num_train_epochs", "200", "--budget", "1h", "--output_dir", str(tmp_path / "out")]) == 0
    )
    tried = len(made_up)
    recipe = tuned_recipe("digits", "baseline", OVERRIDES)
    assert (recipe.training["bf16"], recipe.model.channels_last) == ("auto", True)
    assert len(made_up) == tried
    assert "tune: Proposed" in capsys.readouterr().err


def test_train_takes_what_was_found(made_up, monkeypatch, capsys):
    key = recipe_key(load_recipe("digits"), {**ENVIRONMENT, "memory_gib": 16.0})
    store(key, Stored({"model": {"channels_last": False}}, "Proposed: `contiguous`."))
    trained = []

    def train_nothing(recipe, *args):
        trained.append(recipe)
        raise UserError("nothing is trained here")

    monkeypatch.setattr(train, "train", train_nothing)
    for words in ([], ["--tune", "auto"]):
        assert run(train.main, ["--recipe", "digits", *words]) == 2
    assert [recipe.model.channels_last for recipe in trained] == [True, False]
    assert "tune: Proposed: contiguous." in capsys.readouterr().err


def test_without_a_result_a_small_part_of_a_long_run_is_spent_on_finding_one(made_up, capsys):
    patch = tuned_patch(candidates())
    assert patch["training"]["bf16"] == "auto"
    assert f"searching for 1 h 08 min, {SHARE:.0%} of the expected time" in capsys.readouterr().err
    tried = len(made_up)
    assert tuned_patch(candidates()) == patch
    assert len(made_up) == tried


def test_a_short_run_starts_as_the_recipe_stands(made_up, capsys):
    assert tuned_patch(candidates(num_train_epochs=1)) == {}
    assert "too little for a search" in capsys.readouterr().err
    assert len(made_up) <= 2


def test_several_processes_do_not_search(made_up, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tuned_patch(candidates()) == {}
    assert made_up == []
    assert "run `hf-accel tune` first" in capsys.readouterr().err


def test_a_result_is_of_one_recipe_on_one_machine():
    recipe = candidates().plain
    key = recipe_key(recipe, ENVIRONMENT)
    assert recipe_key(candidates(seed=7, output_dir="elsewhere").plain, ENVIRONMENT) == key
    assert recipe_key(candidates(per_device_train_batch_size=8).plain, ENVIRONMENT) != key
    assert recipe_key(recipe, {**ENVIRONMENT, "torch": "9.9"}) != key


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"schema": 1}', '{"schema": 9, "patch": {}}'])
def test_a_damaged_result_is_as_none(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    store("key", Stored({"training": {"bf16": "auto"}}, "faster"))
    assert find("key").patch == {"training": {"bf16": "auto"}}
    place_of("key").write_text(damage)
    assert find("key") is None
