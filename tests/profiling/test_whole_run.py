"""How often things happen in the run that a recipe asks for."""

from types import SimpleNamespace

import pytest

from hf_accel.profiling.whole_run import WholeRun, occurrences, seconds_of_whole_run, whole_run


def arguments(**changes):
    values = {"max_steps": -1, "num_train_epochs": 3.0, "eval_strategy": "epoch", "save_strategy": "steps",
              "eval_steps": None, "save_steps": 5}  # fmt: skip
    values |= changes
    for name in ("eval_strategy", "save_strategy"):
        values[name] = SimpleNamespace(value=values[name])
    return SimpleNamespace(**values)


def test_a_run_by_epochs():
    found = whole_run(arguments(), rows=100, rows_of_step=32, validation_rows=10, kept_rows=0)
    assert found == WholeRun(steps=12, evaluations=3, saves=3, validation_rows=10, kept_rows=0)


def test_a_run_by_steps_without_validation_rows():
    found = whole_run(arguments(max_steps=10, save_steps=0.2), 100, 32, validation_rows=0, kept_rows=5)
    assert found == WholeRun(steps=10, evaluations=0, saves=5, validation_rows=0, kept_rows=5)


@pytest.mark.parametrize(
    ("strategy", "every", "times"),
    [("no", 5, 0), ("epoch", None, 2), ("best", None, 2), ("steps", 1, 35), ("steps", 0.1, 9)],
)
def test_occurrences(strategy, every, times):
    assert occurrences(strategy, every, steps=35, epochs=2) == times


def test_the_parts_of_a_whole_run():
    whole = WholeRun(steps=10, evaluations=2, saves=3, validation_rows=100, kept_rows=1000)
    step = {"load": 0.1, "decode": 0.2, "forward": 1.0, "backward": 2.0, "optimizer": 0.5, "unaccounted": 0.01}
    found = seconds_of_whole_run(
        whole, step, {"start": 4.0, "prepare": 1.0}, decode_row=0.001, evaluate_row=0.01, save=5.0
    )
    assert found == pytest.approx(
        {"once": 5.0, "input": 4.0, "network": 30.0, "optimizer": 5.0, "loop": 0.1, "evaluation": 2.0, "saving": 15.0}
    )
