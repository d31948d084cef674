"""All that a run does before its first step is tried, and every refusal on the way is kept."""

from pathlib import Path

from hf_accel.training import rehearsal
from hf_accel.training.rehearsal import rehearse


def test_a_run_that_can_start_has_its_data_and_leaves_nothing(tiny_recipe):
    recipe = tiny_recipe()
    found = rehearse(recipe)
    assert found.problems == []
    assert len(found.splits.train) == 19
    assert found.chosen[1] == "precision: fp32"
    assert found.place == recipe.output_dir.parent
    assert not recipe.output_dir.exists()


def test_what_fails_does_not_hide_what_fails_after_it(tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    recipe = tiny_recipe(
        {"training": {"fp16": True, "output_dir": str(tmp_path / "file")}, "data": {"name": str(tmp_path / "absent")}}
    )
    place, precision, data = rehearse(recipe).problems
    assert "is a file, expected a folder" in place
    assert "needs a CUDA device" in precision
    assert "no such folder" in data


def test_an_error_that_nobody_foresaw_is_a_problem_too(tiny_recipe, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(rehearsal, "build_trainer", fail)
    found = rehearse(tiny_recipe())
    assert found.problems == ["ZeroDivisionError: by nothing"]
    assert found.chosen == []
    assert Path(found.place).is_dir()
