"""A profile as files and as a page."""

import csv
import io
import json
from dataclasses import replace

import pytest

from hf_accel.errors import UserError
from hf_accel.profiling.export import csv_table, markdown, text_summary, write_profile
from hf_accel.profiling.page import write_profile_page
from hf_accel.profiling.plots import profile_plots
from hf_accel.profiling.schema import Overhead, Profile, Row
from hf_accel.profiling.text import comparison_cells, footnotes, operator_cells, phase_cells
from tests.support.profiles import STEP, profile_row, profiled_run

FAST = {name: seconds / 2 for name, seconds in STEP.items() if name != "decode"}


@pytest.fixture
def profile():
    rows = [
        profile_row(),
        profile_row("all", step=FAST),
        Row("fp16", "resnet50_cifar10", failure="needs a <CUDA> device"),
    ]
    return Profile("resnet50_cifar10", rows, "hf-accel profile --recipe resnet50_cifar10")


def test_a_written_profile_is_read_again(profile, tmp_path):
    write_profile(profile, tmp_path)
    assert Profile.load(tmp_path) == profile
    assert {path.name for path in tmp_path.iterdir()} == {"profile.json", "profile.csv", "profile.md"}


@pytest.mark.parametrize("content", ["", "{}", '{"rows": [1]}', '{"recipe": 1, "command": "", "rows": [{"run": {}}]}'])
def test_a_damaged_profile_is_named(tmp_path, content):
    with pytest.raises(UserError, match="holds no profile"):
        Profile.load(tmp_path)
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        Profile.load(tmp_path)


def test_phases_stand_side_by_side_with_the_speed_up(profile):
    headings, lines = comparison_cells(profile)
    assert headings == ["", "baseline", "all", "speed-up over baseline"]
    cells = {line[0]: line[1:] for line in lines}
    assert cells["step: forward"] == ["100.0 ms", "50.0 ms", "2.00x"]
    assert cells["step: decode"] == ["50.0 ms", "-", "-"]
    assert "inference, one row" in cells


def test_columns_without_a_figure_are_left_out():
    headings, lines = phase_cells(profiled_run())
    assert "peak device" not in headings
    assert "energy" not in headings
    assert "images/s" in headings
    assert all(len(line) == len(headings) for line in lines)


def test_a_rate_of_texts_is_named_as_such():
    assert "samples/s" in phase_cells(profiled_run(task="text-classification"))[0]


def test_operators_name_the_lines_that_may_help_and_the_trace_where_there_is_one():
    run = profiled_run()
    headings, lines = operator_cells(run)
    assert lines[0][0] == "convolution"
    assert "channels_last: true" in lines[0][-1]
    assert "torch.profiler" not in headings
    run.operators[0]["traced_seconds"] = 0.2
    headings, lines = operator_cells(run)
    assert lines[0][headings.index("torch.profiler")] == "200.0 ms"


def test_markdown_has_the_verdict_every_table_and_the_failure(profile):
    text = markdown(profile)
    for part in ("bound by compute", "## Phases of all", "## Most expensive operators of baseline", "`fp16` failed",
                 "## First run and next run", "## The whole run"):  # fmt: skip
        assert part in text


def test_csv_has_a_line_per_phase_of_each_run(profile):
    lines = list(csv.DictReader(io.StringIO(csv_table(profile))))
    assert len(lines) == 4 * len(profiled_run().phases)
    forward = next(
        line for line in lines if line["phase" if "phase" in line else "name"] == "forward" and line["row"] == "all"
    )
    assert float(forward["seconds"]) == pytest.approx(1.0)


def test_the_terminal_shows_verdicts_and_lines(profile):
    text = text_summary(profile)
    assert "baseline: The run is bound by compute" in text
    assert "fp16 failed" in text
    assert "training: {bf16: auto}" in text


def test_the_footnotes_say_what_is_missing_and_what_measuring_costs():
    run = profiled_run(overhead=Overhead(1.05, 1.03, 1.07, 10))
    profile = Profile("r", [Row("baseline", "r", run, run)], "")
    text = "\n".join(footnotes(profile))
    assert "account for" in text
    assert "1.050 (1.030 to 1.070)" in text
    assert "a visible part" in text
    quiet = replace(run, overhead=Overhead(1.05, 0.9, 1.2, 10))
    assert "a visible part" not in "\n".join(footnotes(Profile("r", [Row("baseline", "r", quiet, quiet)], "")))


def test_the_page_has_a_bar_per_phase_and_time_lines_and_escapes_what_others_wrote(profile, tmp_path):
    write_profile(profile, tmp_path)
    page = write_profile_page(tmp_path).read_text("utf-8")
    assert page.count("<figure") == 4
    assert "needs a &lt;CUDA&gt; device" in page
    assert "<script" not in page
    assert {path.stem for path in (tmp_path / "plots").glob("*.svg")} == {
        "step",
        "whole_run",
        "step_timeline",
        "timeline",
    }


def test_every_plot_says_the_same_in_words(profile):
    plots = profile_plots(profile)
    assert "forward 50.0 ms" in plots["step"].alt
    assert "backward 600.0 ms" in plots["step_timeline"].alt  # three steps
    assert "network 5 min 00 s" in plots["whole_run"].alt


def test_the_page_says_what_was_chosen_and_the_footnotes_what_workers_took(tmp_path):
    run = profiled_run(notes=["bf16: auto is <bf16>"], worker_cpu_seconds=12.0)
    run = replace(run, setup=replace(run.setup, workers=2))
    profile = Profile("r", [Row("baseline", "r", run, run)], "")
    write_profile(profile, tmp_path)
    assert "bf16: auto is &lt;bf16&gt;" in write_profile_page(tmp_path).read_text("utf-8")
    assert "Loader workers took 12.0 s of CPU time" in "\n".join(footnotes(profile))


def test_a_profile_without_a_run_has_a_page(tmp_path):
    profile = Profile("r", [Row("fp16", "r", failure="no device")], "")
    write_profile(profile, tmp_path)
    assert "no device" in write_profile_page(tmp_path).read_text("utf-8")
    assert json.loads((tmp_path / "profile.json").read_text())["rows"][0]["run"] is None
