"""The number of threads that a recipe asks for."""

import torch

from hf_accel.config.recipe import load_recipe
from hf_accel.machine.threads import apply_cpu_threads
from hf_accel.training.arguments import training_arguments


def test_the_number_that_was_asked_for_is_set_and_said(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert apply_cpu_threads(None) == []
    assert apply_cpu_threads(3) == ["operations on the CPU take 3 threads"]
    assert asked == [3]


def test_a_recipe_asks_for_threads():
    recipe = load_recipe("digits", overrides={"training": {"cpu_threads": 1}})
    assert training_arguments(recipe, has_validation=True).cpu_threads == 1
    assert training_arguments(load_recipe("digits"), has_validation=True).cpu_threads is None
