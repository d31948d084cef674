"""`hf-accel tune`: what it finds, writes, continues and refuses, with made-up speeds."""

import json

import pytest

from hf_accel import tune
from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe
from hf_accel.tuning.confirm import RECIPE
from hf_accel.tuning.page import write_tuning_page
from hf_accel.tuning.result import Tuning
from hf_accel.tuning.text import markdown, summary, terminal_text

SLOW = ["--recipe", "digits", "--variant", "baseline", "--model.channels_last", "false"]


def tuned(folder, *words) -> Tuning:
    assert tune.main([*SLOW, "--output_dir", str(folder), *words]) == 0
    return Tuning.load(folder)


def test_the_fastest_settings_are_found_confirmed_and_written_as_a_recipe(made_up, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    found = tuned(tmp_path / "out", "--budget", "1h", "--write", str(file), "--price_per_hour", "2")
    words = {one.name: one.word for one in found.techniques}
    assert set(found.accepted) == {"mixed_precision", "channels_last"}
    assert words["compile"] == words["prefetch_4"] == "rejected"
    reasons = {one.name: one.reason for one in found.techniques}
    assert "memory runs out" in reasons["compile"]
    assert "leaves the band: 9 at step 2" in reasons["prefetch_4"]
    assert found.confirmed.verdict == "better"
    assert found.confirmed.ratio == pytest.approx(3.0, rel=0.02)
    assert found.patch == {"training": {"bf16": "auto", "fp16": False}, "model": {"channels_last": True}}
    assert found.before.seconds > 2 * found.after.seconds
    contributions = {one.name: one.contribution for one in found.techniques if one.contribution}
    assert contributions == pytest.approx({"mixed_precision": 2.0, "channels_last": 1.5}, rel=0.02)
    written = load_recipe(file)
    assert (written.training["bf16"], written.model.channels_last) == ("auto", True)
    assert written.training["learning_rate"] == load_recipe("digits", "baseline").training["learning_rate"]
    assert file.read_text("utf-8").startswith("# digits, tuned for time by hf-accel tune on CPU Test CPU, 2 cores.")
    shown = capsys.readouterr().out
    assert "Proposed: " in shown
    assert f"hf-accel train --recipe {file}" in shown
    assert "price" in shown


def test_the_page_and_the_markdown_say_the_same(made_up, tmp_path):
    folder = tmp_path / "out"
    found = tuned(folder, "--budget", "1h")
    page, text = write_tuning_page(folder).read_text("utf-8"), (folder / "tune.md").read_text("utf-8")
    assert text == markdown(found)
    for sentence in summary(found):
        assert sentence in text
        assert sentence.replace("`", "") in page.replace("<code>", "").replace("</code>", "")
    assert "confirmation/report.html" in page
    assert (folder / "plots" / "gains.svg").is_file()
    assert "`" not in terminal_text(found)


def test_the_same_command_again_tries_nothing_and_a_larger_budget_continues(made_up, tmp_path):
    first = tuned(tmp_path / "out", "--budget", "90s")
    assert first.stopped
    assert first.patch == {}
    tried = len(made_up)
    assert tuned(tmp_path / "out", "--budget", "90s").techniques == first.techniques
    assert len(made_up) == tried
    whole = tuned(tmp_path / "out", "--budget", "1h")
    assert whole.patch
    recorded = len((tmp_path / "out" / "trials.jsonl").read_text("utf-8").splitlines())
    assert recorded == len(made_up)  # none was done twice
    tuned(tmp_path / "out", "--budget", "1h", "--overwrite")
    assert len(made_up) > recorded


def test_a_recipe_that_is_already_the_fastest_is_kept(made_up, tmp_path, capsys):
    assert tune.main(["--recipe", "digits", "--budget", "1h", "--output_dir", str(tmp_path / "out")]) == 0
    found = Tuning.load(tmp_path / "out")
    assert found.patch == {}
    assert found.confirmed is None
    assert summary(found)[0] == "Keep the recipe: nothing that was tried is better."


def test_what_whole_runs_do_not_confirm_is_not_proposed(made_up, tmp_path, monkeypatch):
    from tests.support import made_up_speeds

    real = made_up_speeds.trial
    monkeypatch.setattr(made_up_speeds, "speed", lambda recipe: 100.0)  # of the runs; trials keep theirs
    fast = {"bf16": "auto"}

    def trial(recipe, asked):
        found = real(recipe, asked)
        factor = 2.0 if recipe.training.get("bf16") == fast["bf16"] else 1.0
        from dataclasses import replace

        return found if found.images_per_second is None else replace(found, images_per_second=100.0 * factor)

    monkeypatch.setattr(made_up_speeds, "trial", trial)
    found = tuned(tmp_path / "out", "--budget", "1h")
    assert found.accepted == ["mixed_precision"]
    assert found.confirmed.verdict == "no measurable difference"
    assert found.patch == {}
    assert summary(found)[0].startswith(
        "Keep the recipe: `mixed_precision` looked better in trials, and whole runs did"
    )


def test_memory_is_an_objective(made_up, tmp_path):
    found = tuned(tmp_path / "out", "--budget", "1h", "--objective", "memory")
    assert found.accepted == ["checkpointing"]
    assert found.confirmed.ratio == pytest.approx(2.0, rel=0.1)
    assert "Peak memory is lower by a factor of 2" in summary(found)[0]


def test_a_technique_that_changes_the_result_is_tried_only_with_leave(made_up, tmp_path):
    found = tuned(tmp_path / "out", "--budget", "1h")
    assert "micro_batch_32" in {one["name"] for one in found.left_out}
    found = tuned(tmp_path / "allowed", "--budget", "1h", "--allow", "batch")
    assert "micro_batch_32" in {one.name for one in found.techniques}
    assert found.accuracy_difference is None  # it was not accepted


def test_smaller_images_may_learn_otherwise_and_show_what_they_cost(made_up, tmp_path):
    found = tuned(tmp_path / "out", "--budget", "1h", "--allow", "image_size")
    assert "image_size_16" in found.accepted
    assert found.patch["data"] == {"image_size": 16}
    assert found.accuracy_difference == [0.0, 0.0, 0.0]
    assert any("test accuracy differs by +0.00 points" in sentence for sentence in summary(found))
    assert "no_augmentation" in {one["name"] for one in found.left_out}


def test_a_dry_run_lists_the_trials_and_writes_nothing(made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tune.main([*SLOW, "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {"mixed_precision", "channels_last"} <= {one["name"] for one in plan["trials"]}
    assert plan["seconds_of_a_trial"] > 0
    assert len(made_up) <= 2
    assert not list(tmp_path.glob("outputs"))
    assert tune.main([*SLOW, "--dry_run"]) == 0
    assert "left out: it changes" in capsys.readouterr().out


def test_a_recipe_that_cannot_run_is_refused_and_tried_again_when_it_is_fixed(made_up, tmp_path, monkeypatch, capsys):
    from hf_accel.tuning import trials

    fails = trials.Trial(error="model.name: there is no such model", wall_seconds=1.0)
    with monkeypatch.context() as patched:
        patched.setattr(trials, "_run", lambda *args, **asked: fails)
        assert run(tune.main, [*SLOW, "--output_dir", str(tmp_path / "out")]) == 2
    assert "model.name: there is no such model" in capsys.readouterr().err
    assert tuned(tmp_path / "out", "--budget", "1h").patch


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "soon"], "expected a time such as 90s, 10m or 1h"),
        (["--budget", "0m"], "expected a time"),
        (["--objective", "cost"], "Add --price_per_hour"),
        (["--price_per_hour", "-1"], "expected a number above 0"),
        (["--write", "mine.txt"], "expected a .yaml file"),
        (["--write", "README.yaml"], "exists already"),
        (["--allow", "accuracy"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_tried(made_up, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.yaml").write_text("mine")
    assert run(tune.main, [*SLOW, *words]) == 2
    assert message in capsys.readouterr().err
    assert made_up == []


def test_a_folder_with_a_run_or_a_comparison_is_refused(made_up, tmp_path, capsys):
    (tmp_path / "report.html").write_text("of a comparison")
    assert run(tune.main, [*SLOW, "--output_dir", str(tmp_path)]) == 2
    assert "would replace its page" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("5", 300), ("0.5h", 1800)])
def test_a_budget_is_read(text, seconds):
    assert tune.budget_seconds(text) == seconds


def test_the_learning_rate_is_found_and_written(made_up, tmp_path, capsys):
    file, folder = tmp_path / "mine.yaml", tmp_path / "out"
    words = [*SLOW, "--learning_rate", "--budget", "1h", "--output_dir", str(folder), "--write", str(file)]
    assert tune.main(words) == 0
    found = json.loads((folder / "learning_rate.json").read_text("utf-8"))
    assert found["own"] == 3e-3
    assert 1e-4 < found["suggested"] < 5e-3
    assert len(found["runs"]) == 5
    losses = {run["rate"]: run["loss"] for run in found["runs"]}
    assert found["best"] == min(losses, key=losses.get)
    assert load_recipe(file).training["learning_rate"] == found["best"]
    assert "range test suggests" in capsys.readouterr().out
    assert "Range test" in (folder / "learning_rate.html").read_text("utf-8")
    tried = len(made_up)
    file.unlink()
    assert tune.main(words) == 0
    assert len(made_up) == tried


def test_a_budget_that_is_too_small_for_runs_says_how_much_is_needed(made_up, tmp_path, capsys):
    words = [*SLOW, "--learning_rate", "--budget", "60s", "--output_dir", str(tmp_path)]
    assert run(tune.main, words) == 2
    assert "expected at least" in capsys.readouterr().err


def test_the_recipe_is_the_baseline_of_the_confirmation(made_up, tmp_path):
    tuned(tmp_path / "out", "--budget", "1h")
    comparison = json.loads((tmp_path / "out" / "confirmation" / "compare.json").read_text("utf-8"))
    assert comparison["baseline"] == RECIPE
    assert [row["name"] for row in comparison["arms"]] == ["recipe", "tuned"]
    assert comparison["rounds"] == 5
