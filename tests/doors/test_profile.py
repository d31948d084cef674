"""`hf-accel profile`: its plan, what it refuses, and one whole call."""

import json
from functools import partial

import pytest

from hf_accel import profile
from hf_accel.cli import run
from hf_accel.profiling import runs
from hf_accel.profiling.schema import Profile
from tests.support.profiles import run_here

WORDS = ["--recipe", "digits"]


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """Runs take no time; gives the folder of the profile and the words of every run."""
    calls = []
    monkeypatch.setattr(runs, "run_process", partial(run_here, calls))
    return tmp_path / "profile", calls


def test_each_row_is_run_with_empty_caches_and_then_with_full_ones(stubbed, capsys):
    folder, calls = stubbed
    words = [*WORDS, "--variants", "baseline", "all", "--steps", "4", "--output_dir", str(folder), "--seed", "1"]
    assert run(profile.main, words) == 0
    assert len(calls) == 4
    first, second = calls[:2]
    assert "--first" in first
    assert "--first" not in second
    assert second[second.index("--steps") + 1] == "4"
    caches = [words[words.index("--data.cache_dir") + 1] for words in calls]
    assert caches[0] == caches[1] != caches[2]
    assert all(words[words.index("--seed") + 1] == "1" for words in calls)
    found = Profile.load(folder)
    assert [row.name for row in found.rows] == ["baseline", "all"]
    assert found.rows[1].changes["data.cache"] == ["none", "memory"]
    assert not (folder / runs.RUNS).exists()
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")


def test_a_row_that_cannot_run_says_why_and_the_others_are_measured(stubbed):
    folder, _ = stubbed
    assert run(profile.main, [*WORDS, "--variants", "fp16", "baseline", "--output_dir", str(folder)]) == 0
    assert [row.failure for row in Profile.load(folder).rows] == ["training.fp16 needs a CUDA device", None]


def test_nothing_is_written_where_no_row_can_run(stubbed, capsys):
    folder, _ = stubbed
    assert run(profile.main, [*WORDS, "--variants", "fp16", "--output_dir", str(folder)]) == 2
    assert "fp16: training.fp16 needs a CUDA device" in capsys.readouterr().err
    assert not folder.exists()


def test_a_crash_is_not_the_users_mistake(stubbed, capsys):
    folder, _ = stubbed
    assert run(profile.main, [*WORDS, "--variants", "compile", "--output_dir", str(folder)]) == 1
    assert "compile: RuntimeError: no compiler" in capsys.readouterr().err


def test_traces_of_another_program_stay(stubbed):
    folder, _ = stubbed
    folder.mkdir()
    (folder / "trace-mine.json").write_text("{}")
    assert run(profile.main, [*WORDS, "--output_dir", str(folder)]) == 0
    assert (folder / "trace-mine.json").is_file()


def test_a_profile_is_replaced_only_if_asked(stubbed, capsys):
    folder, calls = stubbed
    words = [*WORDS, "--output_dir", str(folder)]
    assert run(profile.main, words) == 0
    assert run(profile.main, words) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    assert len(calls) == 2
    (folder / "trace-old.json").write_text("{}")
    assert run(profile.main, [*words, "--overwrite"]) == 0
    assert not list(folder.glob("trace-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--variants", "nothing"], "nothing"),
        (["--variants", "all", "all"], "all is given twice"),
        (["--push_to_hub", "true"], "--push_to_hub"),
        (["--learning_rat", "1"], "learning_rate"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(stubbed, capsys, words, message):
    folder, calls = stubbed
    assert run(profile.main, [*WORDS, *words, "--output_dir", str(folder)]) == 2
    assert message in capsys.readouterr().err
    assert calls == []
    assert not folder.exists()


def test_the_folder_of_something_else_is_left_alone(stubbed, capsys):
    folder, calls = stubbed
    folder.mkdir()
    (folder / "report.html").write_text("mine")
    assert run(profile.main, [*WORDS, "--output_dir", str(folder)]) == 2
    assert "holds report.html" in capsys.readouterr().err
    assert calls == []


def test_json_is_the_whole_profile(stubbed, capsys):
    folder, _ = stubbed
    assert run(profile.main, [*WORDS, "--json", "--output_dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["run"]["model"] == "timm/resnet50"


@pytest.mark.slow
def test_a_whole_call_with_a_trace(tmp_path, capsys):
    folder = tmp_path / "profile"
    words = [*WORDS, "--trace", "--steps", "2", "--output_dir", str(folder), "--data.image_size", "16"]
    words += ["--data.max_train_rows", "100", "--data.max_test_rows", "20", "--per_device_train_batch_size", "8"]
    assert run(profile.main, words) == 0, capsys.readouterr().err
    (row,) = Profile.load(folder).rows
    assert row.run.unaccounted < 0.5
    assert any(operator["traced_seconds"] for operator in row.run.operators)
    events = json.loads((folder / "trace-default.json").read_text())["traceEvents"]
    assert any("convolution" in str(event.get("name")) for event in events)
    assert {"profile.json", "profile.csv", "profile.md", "report.html", "plots"} <= {p.name for p in folder.iterdir()}
