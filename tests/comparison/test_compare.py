"""`compare`: interleaved rounds, reuse, failures, the table and its exports."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from hf_accel import compare
from hf_accel.cli import run
from hf_accel.comparison import checks, forecast, runs
from hf_accel.comparison import plan as comparison_plan
from hf_accel.comparison.export import csv_table, latex, markdown, text_table, write_comparison
from hf_accel.comparison.paper import paper_table
from hf_accel.comparison.plan import shortened
from hf_accel.comparison.plots import comparison_plots, plot_legends
from hf_accel.comparison.runs import Machine
from hf_accel.comparison.schema import Comparison, Entry, RunOutcome
from hf_accel.comparison.table import build_comparison
from hf_accel.comparison.text import figure_cells, footnotes
from hf_accel.config.recipe import load_recipe, variant_names
from hf_accel.errors import UserError
from hf_accel.measure.paired import MOST_ROUNDS, PILOT_ROUNDS
from hf_accel.report.run_report import RunReport, Scores
from hf_accel.runs import process
from hf_accel.runs.lock import sole_use
from tests.support import stub_train
from tests.support.reports import ENVIRONMENT, entries, outcome

pytestmark = pytest.mark.slow

STUB = (sys.executable, str(Path(__file__).parents[1] / "support" / "stub_train.py"))
RECIPE = """
extends: digits
variants:
  baseline: {training: {bf16: false}}
  bf16: {training: {bf16: true}}
  amp: {training: {bf16: auto}}
  fp16: {training: {fp16: true, bf16: false}}
  ga_larger_batch: {training: {gradient_accumulation_steps: 2, learning_rate: 6e-3}}
  compile: {training: {torch_compile: true}}
  all: {model: {channels_last: true}}
"""


@pytest.fixture
def recipe_file(tmp_path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def two_rows_once(recipe_file: Path, folder: Path) -> list[str]:
    """The words of a comparison of one round."""
    options = ["--variants", "baseline", "all", "--repeats", "1"]
    return ["--recipe", str(recipe_file), *options, "--output_dir", str(folder)]


def compared(recipe_file: Path, folder: Path, *words: str) -> Comparison:
    assert compare.main(["--recipe", str(recipe_file), "--output_dir", str(folder), *words]) == 0
    return Comparison.load(folder)


def test_one_of_several_processes_is_refused_because_each_would_start_all_runs(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a launcher has started 2 of compare"):
        compare.main(two_rows_once(recipe_file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_each_round_runs_a_fold_and_the_table_has_their_mean_with_its_interval(recipe_file, stubbed, monkeypatch):
    folder, done = stubbed
    scores = iter([0.8, 0.9, 1.0])
    run_here = stub_train.run_here

    def run_with_validation(words, output, tick):
        code = run_here(words, output, tick)
        place = Path(words[list(words).index("--output_dir") + 1])
        report = RunReport.load(place)
        report.validation = Scores(accuracy=next(scores))
        report.save(place)
        assert words[list(words).index("--data.fold") + 1] == place.name.removeprefix("round-")
        return code

    monkeypatch.setattr(runs, "run_process", run_with_validation)
    table = compared(recipe_file, folder, "--variants", "default", "--data.folds", "3")
    assert len(done()) == 3
    assert table.rows[0].figures["validation_accuracy"]["mean"] == pytest.approx(0.9)
    assert "`default`: validation accuracy 90.00 % (65.16 to 100.00), the mean over 3 runs of 3 folds" in table.notes[0]
    with pytest.raises(UserError, match=r"--data\.fold: a comparison sets it for each run"):
        compared(recipe_file, folder, "--data.folds", "3", "--data.fold", "1")


def test_every_round_runs_each_row_once_and_rounds_differ_in_order(recipe_file, stubbed):
    folder, done = stubbed
    variants = ["baseline", "bf16", "all", "ga_larger_batch"]
    compared(recipe_file, folder, "--variants", *variants, "--repeats", "4")
    rounds = [done()[place : place + 4] for place in range(0, 16, 4)]
    assert len(done()) == 16
    for number, of_round in enumerate(rounds):
        assert sorted(variant for variant, _ in of_round) == sorted(variants)
        assert {seed for _, seed in of_round} == {42 + number}
    assert len({tuple(variant for variant, _ in of_round) for of_round in rounds}) > 1


def test_the_same_command_again_runs_nothing_and_gives_the_same_table(recipe_file, stubbed):
    folder, done = stubbed
    words = ["--variants", "baseline", "all", "--repeats", "2"]
    first = compared(recipe_file, folder, *words)
    assert len(done()) == 4
    assert compared(recipe_file, folder, *words) == first
    assert len(done()) == 4
    compared(recipe_file, folder, "--variants", "baseline", "all", "--repeats", "3")
    assert len(done()) == 6


@pytest.mark.parametrize("what", ["setting", "version", "data", "overwrite"])
def test_a_run_is_repeated_when_something_it_depends_on_has_changed(recipe_file, stubbed, monkeypatch, what):
    folder, done = stubbed
    words = ["--variants", "baseline", "--repeats", "1"]
    compared(recipe_file, folder, *words)
    if what == "setting":
        words += ["--learning_rate", "1e-4"]
    elif what == "version":
        newer = Machine({**ENVIRONMENT, "torch": "9.9"}, False, "")
        monkeypatch.setattr(comparison_plan, "probe_machine", lambda: newer)
    elif what == "data":
        monkeypatch.setenv("STUB_DATA", "other images")
    else:
        words += ["--overwrite"]
    compared(recipe_file, folder, *words)
    assert len(done()) == 2


def test_a_failing_variant_is_a_row_that_says_why_and_is_not_tried_every_round(recipe_file, stubbed):
    folder, done = stubbed
    found = compared(recipe_file, folder, "--variants", "baseline", "fp16", "all", "--repeats", "3")
    rows = {row.name: row for row in found.rows}
    assert rows["fp16"].failure == "digits: training.fp16 needs a CUDA device"
    assert rows["fp16"].speed is None
    assert rows["all"].speed.verdict == "faster"
    assert [variant for variant, _ in done()].count("fp16") == 1


def test_a_variant_that_was_not_compiled_is_not_a_measurement_of_compilation(recipe_file, stubbed):
    folder, done = stubbed
    found = compared(recipe_file, folder, "--variants", "baseline", "compile", "--repeats", "2")
    row = found.rows[1]
    assert row.failure == "torch_compile: no compiler"
    assert (row.num_runs, row.speed, row.figures) == (0, None, {})
    assert "`compile` failed: torch_compile: no compiler" in text_table(found)
    assert [variant for variant, _ in done()].count("compile") == 1


def test_overwrite_deletes_the_runs_of_a_comparison_and_nothing_next_to_them(recipe_file, stubbed):
    folder, done = stubbed
    words = ["--variants", "baseline", "--repeats", "1"]
    compared(recipe_file, folder, *words)
    for name in ("runs/2024/notes.md", "runs/mine.txt", "model/mine.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("kept")
    compared(recipe_file, folder, *words, "--overwrite")
    assert len(done()) == 2
    assert [(folder / name).read_text() for name in ("runs/2024/notes.md", "runs/mine.txt", "model/mine.bin")] == [
        "kept"
    ] * 3


@pytest.mark.parametrize(
    ("name", "told"),
    [("plots/mine.svg", "holds plots"), ("report.html", "holds report.html"), ("runs", "holds runs"),
     (".hf_accel.json", "holds a run")],
)  # fmt: skip
def test_a_folder_with_files_of_other_origin_is_refused(recipe_file, stubbed, capsys, name, told):
    folder, done = stubbed
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('{"files": [], "others": []}')
    words = ["--recipe", str(recipe_file), "--variants", "baseline", "--repeats", "1", "--overwrite"]
    assert run(compare.main, [*words, "--output_dir", str(folder)]) == 2
    assert told in capsys.readouterr().err
    assert done() == []
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_a_dangling_link_as_the_folder_of_a_comparison_is_refused(recipe_file, stubbed, capsys):
    folder, _ = stubbed
    folder.symlink_to(folder.parent / "gone")
    words = ["--recipe", str(recipe_file), "--variants", "baseline", "--repeats", "1", "--output_dir", str(folder)]
    assert run(compare.main, words) == 2
    assert "which does not exist" in capsys.readouterr().err


def test_when_every_row_fails_the_command_fails(recipe_file, stubbed):
    folder, _ = stubbed
    words = ["--recipe", str(recipe_file), "--variants", "fp16", "--repeats", "1", "--output_dir", str(folder)]
    assert run(compare.main, words) == 1
    assert Comparison.load(folder).rows[0].failure


def test_runs_that_fail_with_another_setting_cost_no_finished_run(recipe_file, stubbed, monkeypatch):
    folder, done = stubbed
    words = ["--variants", "baseline", "all", "--repeats", "2"]
    first = compared(recipe_file, folder, *words)
    with monkeypatch.context() as failing:
        failing.setenv("STUB_FAILS", "1")
        mistaken = ["--recipe", str(recipe_file), "--output_dir", str(folder), *words, "--learning_rate", "1e-4"]
        assert [run(compare.main, mistaken) for _ in range(2)] == [1, 1]
    tried = len(done())
    assert tried > 4
    assert compared(recipe_file, folder, *words) == first
    assert len(done()) == tried
    compared(recipe_file, folder, *words, "--learning_rate", "1e-4")
    assert len(done()) == tried + 4
    assert not list(folder.glob("runs/*/*-replaced"))


def test_amp_on_a_machine_without_fast_16_bit_is_a_row_that_says_so(recipe_file, stubbed):
    folder, done = stubbed
    found = compared(recipe_file, folder, "--variants", "baseline", "amp", "--repeats", "1")
    assert found.rows[1].failure == "no mixed precision is fast on this device: no bf16 here"
    assert [variant for variant, _ in done()] == ["baseline"]


def test_a_quiet_machine_needs_the_fewest_rounds_and_a_noisy_one_more(recipe_file, stubbed, monkeypatch):
    folder, done = stubbed
    monkeypatch.setenv("STUB_NOISE", "0.002")
    assert compared(recipe_file, folder, "--variants", "baseline", "bf16").rounds == PILOT_ROUNDS
    monkeypatch.setenv("STUB_NOISE", "0.3")
    found = compared(recipe_file, folder, "--variants", "baseline", "bf16", "--overwrite")
    assert found.rounds == MOST_ROUNDS
    assert len(done()) == 2 * (PILOT_ROUNDS + MOST_ROUNDS)


def test_weights_are_not_kept_and_reports_are(recipe_file, stubbed):
    folder, _ = stubbed
    compared(recipe_file, folder, "--variants", "baseline", "--repeats", "1")
    assert not list(folder.rglob("*.safetensors"))
    assert len(list(folder.rglob("report.json"))) == 1


def test_a_dry_run_says_what_and_how_long_and_writes_nothing(recipe_file, stubbed, capsys):
    folder, done = stubbed
    words = ["--recipe", str(recipe_file), "--variants", "baseline", "all", "--repeats", "2"]
    words += ["--output_dir", str(folder)]
    assert compare.main([*words, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "2 rows, 2 rounds; baseline: baseline" in told
    minutes, seconds = map(int, re.search(r"expected time: (\d+) min (\d+) s", told).groups())
    # Each run: 12 epochs of 1000 rows at 100 images/s; the start of a process is slow on a busy machine.
    assert 2 * 2 * 120 <= 60 * minutes + seconds < 2 * 2 * 120 + 240
    assert "(from 12 steps of baseline)" in told
    assert not folder.exists()
    assert done() == [("baseline", 0)]
    assert compare.main(words) == 0
    assert compare.main([*words, "--dry_run"]) == 0
    assert "  all       0 to run, 2 finished; " in capsys.readouterr().out


def test_the_expected_time_counts_the_shorter_epochs_of_the_hardest_rows():
    hard = {"data": {"hard_examples": {"strategy": "hardest", "fraction": 0.25}}, "training": {"num_train_epochs": 3}}
    assert forecast.images_of(load_recipe("digits", overrides=hard), 1000) == 750
    hard["data"]["hard_examples"]["strategy"] = "proportional"
    assert forecast.images_of(load_recipe("digits", overrides=hard), 1000) == 3000


def test_the_expected_time_of_several_recipes_comes_from_a_few_steps_of_each(stubbed, tmp_path, capsys):
    folder, done = stubbed
    for name, epochs in (("short", 2), ("long", 20)):
        (tmp_path / f"{name}.yaml").write_text(f"extends: digits\ntraining: {{num_train_epochs: {epochs}}}\n", "utf-8")
    words = ["--recipe", str(tmp_path / "short.yaml"), str(tmp_path / "long.yaml"), "--repeats", "1"]
    assert compare.main([*words, "--variants", "baseline", "all", "--output_dir", str(folder), "--dry_run"]) == 0
    told = capsys.readouterr()
    assert "(from 12 steps of short/baseline, 12 steps of long/baseline)" in told.out
    assert told.err.splitlines() == [f"measuring 12 steps of {name}/baseline" for name in ("short", "long")]
    assert [variant for variant, _ in done()] == ["baseline", "baseline"]
    # 1000 rows at 100 images/s: 10 s per epoch, and the start of a process
    each = dict(re.findall(r"(\w+)/all +1 to run, 0 finished; (\d+ min|\d+)", told.out))
    assert int(each["short"]) in range(20, 60)
    assert each["long"] == "3 min"


def test_the_expected_time_of_a_row_comes_from_the_finished_runs_of_its_recipe(recipe_file, stubbed, capsys):
    folder, done = stubbed
    words = ["--recipe", str(recipe_file), "--output_dir", str(folder), "--repeats", "2", "--variants", "baseline"]
    assert compare.main(words) == 0
    assert compare.main([*words, "all", "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "(from 2 finished runs)" in told
    assert re.search(r"all +2 to run, 0 finished; 2 min", told)  # 12 epochs of 1000 rows at 100 images/s
    assert len(done()) == 2


@pytest.mark.parametrize("file", ["compare_run.json", "report.json"])
@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_run_whose_files_are_damaged_is_done_again_and_the_others_stay(recipe_file, stubbed, file, content):
    folder, done = stubbed
    words = ["--variants", "baseline", "all", "--repeats", "2"]
    first = compared(recipe_file, folder, *words)
    (folder / "runs" / "all" / "round-1" / file).write_text(content)
    again = compared(recipe_file, folder, *words)
    assert len(done()) == 5
    assert done()[-1][0] == "all"
    assert [row.num_runs for row in again.rows] == [row.num_runs for row in first.rows] == [2, 2]


def test_options_that_are_given_twice_add_up_and_the_baseline_may_be_an_alias(recipe_file, stubbed):
    folder, _ = stubbed
    words = ["--variants", "baseline", "--variants", "all", "--baseline", "all", "--repeats", "1"]
    assert [row.name for row in compared(recipe_file, folder, *words).rows] == ["baseline", "all"]
    words = ["--recipe", "digits", "--variants", "ga", "baseline", "--baseline", "ga", "--repeats", "1"]
    assert compare.main([*words, "--output_dir", str(folder)]) == 0
    assert Comparison.load(folder).baseline == "ga_same_batch"


def test_two_recipes_of_one_name_are_refused_by_their_files(stubbed, tmp_path, capsys):
    files = [tmp_path / folder / "mine.yaml" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("extends: digits\n", encoding="utf-8")
    assert run(compare.main, ["--recipe", *map(str, files), "--output_dir", str(stubbed[0])]) == 2
    told = capsys.readouterr().err
    assert f"{files[0]} and {files[1]} are both called mine" in told
    assert "`name:`" in told


def test_json_and_quiet_print_the_comparison_and_nothing_else(recipe_file, stubbed, capsys):
    folder, _ = stubbed
    words = two_rows_once(recipe_file, folder)
    assert compare.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"folder": str(folder), **json.loads((folder / "compare.json").read_text("utf-8"))}
    assert compare.main([*words, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{folder / 'report.html'}\n", "")
    assert compare.main([*words, "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["to_run"], row["finished"]) for row in plan["rows"]] == [
        ("baseline", 0, 1),
        ("all", 0, 1),
    ]
    assert plan["seconds"] == 0


def test_an_interrupted_comparison_says_what_is_finished_and_how_to_continue(recipe_file, stubbed, monkeypatch, capsys):
    folder, done = stubbed
    started = []

    def stopped(*args):
        started.append(args)
        if len(started) == 2:
            raise KeyboardInterrupt
        return stub_train.run_here(*args)

    monkeypatch.setattr("hf_accel.comparison.runs.run_process", stopped)
    words = two_rows_once(recipe_file, folder)
    assert run(compare.main, words) == 130
    shown = capsys.readouterr().err
    assert (
        f"interrupted: 1 of 2 runs are finished and kept in {folder}. The same command continues from there." in shown
    )
    assert run(compare.main, words) == 0
    assert len(done()) == 2


def test_a_comparison_that_is_killed_resumes_and_does_no_run_twice(recipe_file, tmp_path):
    calls, folder = tmp_path / "calls.txt", tmp_path / "comparison"
    program = (
        "from hf_accel import compare; from hf_accel.comparison import plan as comparison_plan, runs\n"
        "from hf_accel.runs import process\n"
        f"process.TRAIN = {STUB!r}\n"
        f"comparison_plan.probe_machine = lambda: runs.Machine({ENVIRONMENT!r}, False, '')\n"
        "comparison_plan.Plan.data_fingerprint = lambda *_: 'data'\n"
        "comparison_plan.refusals = lambda recipes: []\n"
        f"compare.main(['--recipe', {str(recipe_file)!r}, '--variants', 'baseline', 'all', '--repeats', '2', "
        f"'--output_dir', {str(folder)!r}])\n"
    )
    environment = {**os.environ, "STUB_CALLS": str(calls), "STUB_SECONDS": "60", "PYTHONPATH": str(Path.cwd())}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, **quiet) as process:
        while not calls.is_file() or len(calls.read_text(encoding="utf-8").splitlines()) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    interrupted = int(calls.read_text(encoding="utf-8").splitlines()[1].split()[2])
    finished = list(folder.glob("runs/*/*/compare_run.json"))
    assert len(finished) == 1
    written = finished[0].stat().st_mtime_ns
    if sys.platform == "linux":  # the run in progress ended with the comparison
        wait_for_end(interrupted)
    environment["STUB_SECONDS"] = "0"
    assert subprocess.run([sys.executable, "-c", program], env=environment, **quiet).returncode == 0
    assert finished[0].stat().st_mtime_ns == written
    done = [tuple(line.split()[:2]) for line in calls.read_text(encoding="utf-8").splitlines()]
    assert len(done) == 5  # four runs, of which one was interrupted and done again
    assert len(set(done)) == 4
    found = Comparison.load(folder)
    assert [(row.num_runs, row.num_pairs) for row in found.rows] == [(2, 0), (2, 2)]


def test_a_second_comparison_in_the_same_folder_is_refused(recipe_file, stubbed, capsys):
    folder, done = stubbed
    words = ["--recipe", str(recipe_file), "--variants", "baseline", "--repeats", "1", "--output_dir", str(folder)]
    with sole_use(folder):
        assert run(compare.main, words) == 2
        assert f"{folder}: another comparison is running there" in capsys.readouterr().err
    assert done() == []
    assert run(compare.main, words) == 0


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split(")")[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("the run went on without its comparison")


def test_real_runs_of_the_same_work_are_compared(tmp_path):
    folder, path = tmp_path / "comparison", tmp_path / "tiny.yaml"
    path.write_text(
        "extends: digits\n"
        "model: {name: hf_accel/cifar_resnet20, args: {depth: 8, width: 4}}\n"
        "data: {image_size: 8, validation: 0, max_train_rows: 128, max_test_rows: 40}\n"
        "training: {max_steps: 6, per_device_train_batch_size: 16, bf16: false}\n"
        "variants:\n"
        "  baseline: {}\n"
        "  ga_same_batch: {training: {per_device_train_batch_size: 8, gradient_accumulation_steps: 2}}\n",
        encoding="utf-8",
    )
    found = compared(path, folder, "--variants", "baseline", "ga", "--repeats", "1")
    baseline, accumulated = found.rows
    assert accumulated.name == "ga_same_batch"
    assert accumulated.failure is None
    for figure in ("steps", "effective_batch_size"):
        assert accumulated.mean(figure) == baseline.mean(figure)
    assert accumulated.differs == []
    assert list(accumulated.technique) == [
        "training.per_device_train_batch_size",
        "training.gradient_accumulation_steps",
    ]
    assert accumulated.speed.ratio > 0
    assert accumulated.speed.verdict == "not repeated"
    assert accumulated.mean("cpu_latency_seconds") > 0
    assert accumulated.flops_per_image == baseline.flops_per_image > 0
    assert (folder / "report.html").is_file()


# The table


def two_rows(**of_all) -> Comparison:
    runs = {
        "baseline": [outcome(r, images_per_second=100 + r) for r in range(3)],
        "all": [outcome(r, images_per_second=150 + r, **of_all) for r in range(3)],
    }
    return build_comparison(entries("baseline", "all"), runs, "baseline")


def test_speed_is_images_per_second_so_that_steps_of_another_size_compare():
    found = two_rows(steps=10, effective_batch_size=256, seconds=500.0)
    assert found.rows[1].speed.ratio == pytest.approx(1.5, abs=0.01)
    assert found.rows[1].speed.verdict == "faster"
    assert found.rows[1].differs == ["effective batch 256 instead of 64", "optimizer steps 10 instead of 250"]


def test_runs_far_apart_in_time_count_for_accuracy_and_not_for_speed():
    runs = {
        "baseline": [outcome(r) for r in range(3)],
        "all": [outcome(r, started=1e6, images_per_second=900.0) for r in range(3)],
    }
    found = build_comparison(entries("baseline", "all"), runs, "baseline")
    assert found.rows[1].num_runs == 3
    assert found.rows[1].num_pairs == 0
    assert found.rows[1].speed is None
    assert found.rows[1].accuracy_difference is not None
    assert any("too far in time" in note for note in found.notes)
    assert "not measured" in text_table(found)


def test_accuracy_is_compared_seed_by_seed():
    runs = {
        "baseline": [outcome(r, test_accuracy=0.90 + 0.01 * r) for r in range(3)],
        "all": [outcome(r, test_accuracy=0.92 + 0.01 * r) for r in range(3)],
    }
    mean, low, high = build_comparison(entries("baseline", "all"), runs, "baseline").rows[1].accuracy_difference
    assert (mean, low, high) == pytest.approx((0.02, 0.02, 0.02))


def test_a_table_says_which_accuracies_are_of_several_views():
    flip = {"data": {"test_time_augmentation": "flip"}}
    runs = {name: [outcome(0)] for name in ("baseline", "all")}
    recipes = [load_recipe("digits", name, flip) for name in runs]
    both = [Entry(recipe.variant, recipe) for recipe in recipes]
    assert any(
        note.startswith("Accuracy of all rows: by the mean") for note in build_comparison(both, runs, "baseline").notes
    )
    one = [Entry("baseline", load_recipe("digits", "baseline")), both[1]]
    assert any(
        note.startswith("Accuracy of `all`: by the mean") for note in build_comparison(one, runs, "baseline").notes
    )
    assert not any("several views" in note for note in two_rows().notes)


def test_memory_is_the_devices_where_there_is_one():
    assert two_rows().memory_kind == "peak_anonymous_gib"
    assert two_rows(peak_memory_gib=2.0).memory_kind == "peak_memory_gib"


def test_without_a_baseline_there_are_figures_and_no_ratios():
    runs = {"baseline": [RunOutcome(0, 42, 0.0, 1.0, None, "out of memory")], "all": [outcome(0)]}
    found = build_comparison(entries("baseline", "all"), runs, "baseline")
    assert found.rows[1].mean("images_per_second") == 640.0
    assert found.rows[1].speed is None
    assert "no ratios" in found.notes[0]


def test_a_row_that_failed_once_says_how_often():
    runs = {"baseline": [outcome(0), outcome(1)], "all": [outcome(0), RunOutcome(1, 43, 0.0, 1.0, None, "killed")]}
    found = build_comparison(entries("baseline", "all"), runs, "baseline")
    assert found.rows[1].failure == "1 of 2 runs failed: killed"
    assert found.rows[1].num_runs == 1


def test_a_figure_that_one_row_lacks_is_a_dash_and_one_that_all_lack_has_no_column():
    headings, rows = figure_cells(two_rows(accuracy=None))
    assert rows[1][headings.index("train accuracy")] == "-"
    assert rows[0][headings.index("train accuracy")] == "95.00 %"
    assert "energy" not in headings
    assert "energy" not in markdown(two_rows())


def test_a_comparison_survives_its_file(tmp_path):
    found = two_rows()
    write_comparison(found, tmp_path, with_paper=True)
    assert Comparison.load(tmp_path) == found
    assert json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["baseline"] == "baseline"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".md", ".tex"]


def test_csv_has_plain_numbers_one_line_per_row():
    rows = list(csv.DictReader(io.StringIO(csv_table(two_rows()))))
    assert [row["name"] for row in rows] == ["baseline", "all"]
    assert float(rows[1]["speed_ratio"]) == pytest.approx(1.49, abs=0.01)
    assert rows[0]["speed_ratio"] == ""
    assert rows[1]["speed_verdict"] == "faster"


def test_latex_escapes_its_special_characters():
    text = latex(build_comparison(entries("baseline", "ga_same_batch"), {"baseline": [outcome(0)]}, "baseline"))
    assert r"ga\_same\_batch" in text
    tables = [line for line in text.splitlines() if not line.startswith("%")]
    assert all("%" not in line.replace(r"\%", "") for line in tables)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_the_text_names_device_versions_noise_and_what_is_left_out():
    text = text_table(two_rows())
    for words in ("Test CPU, 2 cores", "torch 2.15", "are left out", "Holm", "Noise of one pair", "same work"):
        assert words in text


def test_published_figures_stand_next_to_ours():
    runs = {name: [outcome(0, test_accuracy=0.95)] for name in ("baseline", "as_published")}
    found = build_comparison(entries(*runs), runs, "baseline")
    paper = paper_table(found)
    rows = {(row["source"], row["arm"]): row for row in paper["rows"]}
    assert rows["paper", "tuned"]["accuracy"] == 0.92
    assert rows["paper", "tuned"]["seconds"] == 46 * 60
    assert rows["here", "untuned, as published"]["accuracy"] == 0.95
    assert rows["here", "untuned, as published"]["f1_micro"] == runs["as_published"][0].report.test.f1_micro
    assert rows["paper", "tuned"]["f1_micro"] == 0.92
    assert rows["here", "tuned, as published"]["remark"] == "not measured"
    assert "2312.10024" in paper["source"]
    assert any("do not judge a single technique: `as_published`." in line for line in footnotes(found))


def test_the_published_figures_are_printed_with_their_source_and_the_command_that_measures_them_all():
    found = build_comparison(entries("baseline"), {"baseline": [outcome(0)]}, "baseline")
    assert "paper" not in text_table(found)
    found.paper = paper_table(found)
    for text in (text_table(found), markdown(found), latex(found)):
        for part in (
            "https://arxiv.org/abs/2312.10024",
            "F1 (micro)",
            "46 min 00 s",
            "--recipe efficientnet_b0_cifar10",
        ):
            assert part in text
    words = shlex.split(found.paper["command"])[2:]
    names = words[words.index("--recipe") + 1 : words.index("--variants")]
    published = json.loads(files("hf_accel.comparison").joinpath("published.json").read_text(encoding="utf-8"))
    assert all(set(row["recipes"]) & set(names) for row in published["rows"])
    for name in names:
        assert set(words[words.index("--variants") + 1 : words.index("--repeats")]) <= {*variant_names(name), "default"}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({}, None),
        ({"training": {"num_train_epochs": 30}}, None),
        ({"training": {"num_train_epochs": 60}}, None),
        ({"training": {"num_train_epochs": 2}}, "2 epochs instead of 30 epochs"),
        ({"training": {"max_steps": 1200}}, "1,200 steps instead of 30 epochs"),
        ({"data": {"max_train_rows": 5000}}, "5,000 training rows instead of all"),
        ({"data": {"max_test_rows": 500}}, "500 test rows instead of all"),
        ({"model": {"name": "hf_accel/cifar_resnet20"}}, "hf_accel/cifar_resnet20 instead of hf_accel/cifar_resnet50"),
        ({"data": {"image_size": 16}}, "images of 16 px instead of the model's own size"),
    ],
)
def test_a_run_that_is_shorter_than_its_recipe_is_a_trial_next_to_published_figures(setting, told):
    written = load_recipe("resnet50_cifar10_scratch")
    recipe = load_recipe("resnet50_cifar10_scratch", None, setting)
    assert shortened(recipe, written) == told
    entry = Entry("default", recipe, trial=shortened(recipe, written))
    rows = paper_table(build_comparison([entry], {"default": [outcome(0)]}, "default"))["rows"]
    expected = (
        "1 run; data: pictures" if told is None else f"a trial that does not count: {told}; 1 run; data: pictures"
    )
    assert next(row["remark"] for row in rows if row["arm"] == "default") == expected


def test_the_time_of_the_whole_command_is_expected_from_the_images_per_second_measured_here():
    own = entries("as_published", "default")
    runs = {
        "as_published": [outcome(0, images_per_second=1000.0)],
        "default": [outcome(0, images_per_second=2000.0)],
    }
    told = paper_table(build_comparison(own, runs, "default"))["expected"]
    # 30 epochs of 50,000 rows: as_published and, at its speed, as_published_tuned, then default; three times
    both = "3 h 08 min (at 1,000, 1,000, 2,000 images/s)"
    assert f"`resnet50_cifar10_scratch` {both}" in told
    assert f"`resnet50_cifar100_scratch` {both}, 6 h 15 min in all." in told  # the same network
    assert (
        "`efficientnet_b0_cifar10`, `efficientnet_b0_cifar100`, `vit_cifar10`, `vit_cifar100` was not measured" in told
    )
    assert "--dry_run" in told
    other = load_recipe("resnet50_cifar10_scratch", None, {"data": {"image_size": 16}})
    alone = paper_table(build_comparison([Entry("default", other)], {"default": [outcome(0)]}, "default"))
    assert "to expect" not in alone["expected"]


def test_compare_marks_trials_and_prints_the_published_figures(stubbed, capsys):
    folder, _ = stubbed
    words = ["--recipe", "resnet50_cifar10_scratch", "--variants", "baseline", "--repeats", "1", "--paper"]
    assert compare.main([*words, "--num_train_epochs", "1", "--output_dir", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "a trial that does not count: 1 epoch instead of 30 epochs" in told
    assert "Published figures: " in told
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'href="https://arxiv.org/abs/2312.10024"' in page
    assert "a trial that does not count" in page


def test_the_legend_of_a_plot_names_only_what_is_on_it():
    once = build_comparison(
        entries("baseline", "all"), {name: [outcome(0)] for name in ("baseline", "all")}, "baseline"
    )
    assert plot_legends(once)["speed"] == "Hollow: not repeated, so without a verdict."
    assert plot_legends(once)["accuracy_by_time"] == "Square: the baseline."
    assert plot_legends(two_rows())["speed"] == "Filled: measurably faster. Bars: 95 % intervals."


def test_a_plot_shows_names_as_they_are_and_those_of_recipes_in_two_lines():
    own = [replace(entry, name=f"res$net_{{x}}$/{entry.name}") for entry in entries("baseline", "all")]
    runs = {entry.name: [outcome(0, seconds=20.0 * (1 + place), test_accuracy=0.9)] for place, entry in enumerate(own)}
    plots = comparison_plots(build_comparison(own, runs, own[0].name))
    for plot in plots.values():
        drawn = [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", plot.html())]
        assert "res$net_{x}$/" in drawn, plot.name
        assert "all" in drawn, plot.name
    assert {"speed", "memory", "accuracy_by_time"} <= plots.keys()


def test_a_recipe_that_the_paper_does_not_have_gives_no_rows_and_a_note(tmp_path):
    found = build_comparison([Entry("default", load_recipe("digits"))], {"default": [outcome(0)]}, "default")
    assert paper_table(found)["rows"] == []
    write_comparison(found, tmp_path, with_paper=True)
    assert "No figures of these recipes are published." in text_table(found)
    assert "F1 (micro)" not in text_table(found)


# What a person may get wrong


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "digitz"], "Did you mean digits?"),
        (["--recipe", "digits", "--variants", "basline"], "Did you mean baseline?"),
        (["--recipe", "digits", "--repeats", "0"], "expected at least 1"),
        (["--recipe", "digits", "--learnin_rate", "1"], "Did you mean learning_rate"),
        (["--recipe", "digits", "--seed", "1"], "sets it for each run"),
        (["--recipe", "digits", "--variants", "baseline", "baseline"], "twice"),
        (["--recipe", "digits", "--variants", "baseline", "--baseline", "al"], "is not one of the rows"),
    ],
)
def test_a_mistake_ends_at_once_with_exit_code_2(words, told, capsys, tmp_path):
    assert run(compare.main, [*words, "--output_dir", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_models_and_data_that_are_not_available_are_one_message_each_before_the_first_run(
    recipe_file, stubbed, monkeypatch, capsys, tmp_path
):
    folder, done = stubbed
    compared(recipe_file, folder, "--variants", "baseline", "all", "--repeats", "1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(comparison_plan, "refusals", checks.refusals)
    capsys.readouterr()
    missing = {"model": "{name: nobody/nothing, pretrained: true}", "data": "{name: ./nowhere}"}
    for section, patch in missing.items():
        text = f"extends: digits\n{section}: {patch}\nvariants: {{again: {{training: {{seed: 1}}}}}}\n"
        (tmp_path / f"{section}.yaml").write_text(text, encoding="utf-8")
    words = ["--recipe", *(str(tmp_path / f"{section}.yaml") for section in missing), "--variants", "default", "again"]
    assert run(compare.main, [*words, "--output_dir", str(folder), "--repeats", "1", "--overwrite"]) == 2
    told = capsys.readouterr().err
    for message in ("nobody/nothing is not on this machine", "data.name ./nowhere: no such folder"):
        assert told.count(message) == 1
    assert len(done()) == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_only_the_runs_that_are_left_are_checked(recipe_file, stubbed, monkeypatch):
    folder, _ = stubbed
    asked = []
    monkeypatch.setattr(comparison_plan, "refusals", lambda recipes: asked.append(len(recipes)) or [])
    words = ["--variants", "baseline", "all", "ga_larger_batch", "--repeats", "2"]
    compared(recipe_file, folder, *words)  # the same model and data in all
    compared(recipe_file, folder, *words)
    compared(recipe_file, folder, *words, "--overwrite")
    assert asked == [1, 0, 1]


def test_several_recipes_are_rows_by_their_names(stubbed, tmp_path):
    folder, _ = stubbed
    for name in ("small", "large"):
        (tmp_path / f"{name}.yaml").write_text("extends: digits\n", encoding="utf-8")
    words = ["--recipe", str(tmp_path / "small.yaml"), str(tmp_path / "large.yaml"), "--repeats", "1"]
    assert compare.main([*words, "--output_dir", str(folder)]) == 0
    found = Comparison.load(folder)
    assert [row.name for row in found.rows] == ["small", "large"]
    assert found.baseline == "small"


def test_a_signal_is_named_as_the_reason_of_a_failure():
    assert process.failure_reason(-9, "") == "ended by SIGKILL, as the system does when memory runs out"
    assert (
        process.failure_reason(1, "Traceback\n  ...\ntorch.OutOfMemoryError: CUDA\n") == "torch.OutOfMemoryError: CUDA"
    )
    assert process.failure_reason(2, "error: a: b\n") == "a: b"


def test_reading_a_comparison_that_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match=r"compare\.json"):
        Comparison.load(tmp_path)


def test_help_needs_neither_torch_nor_scipy():
    program = "import sys, hf_accel.compare; print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
