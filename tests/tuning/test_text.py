"""What the result of a search says."""

import json

import pytest

from hf_accel.errors import UserError
from hf_accel.tuning import learning_rate_page
from hf_accel.tuning.result import Ratio, Tuning
from hf_accel.tuning.text import expected_rows, header_lines, markdown, remarks, summary, technique_rows, terminal_text
from tests.support.tunings import learning_rate, tried, tuning


def test_a_proposal_names_techniques_factor_interval_and_the_time_of_the_whole_run():
    first, second = summary(tuning())
    assert first == (
        "Proposed: `mixed_precision`, `channels_last`. A run is faster by a factor of 2.31 (2.20 to 2.40)."
    )
    assert second == "Expected time of the whole run: 30 min 11 s, and 1 h 10 min as the recipe stands."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"accepted": [], "confirmed": None}, "Keep the recipe: nothing that was tried is better."),
        ({"confirmed": None}, "looked better in trials, and was not confirmed."),
        (
            {"confirmed": Ratio(ratio=1.0, low=0.9, high=1.1, pairs=3, verdict="x")},
            "did not confirm it (1.00 (0.90 to 1.10))",
        ),
        (
            {"accepted": [], "confirmed": None, "techniques": [tried("bf16", "not tried", 1.9)]},
            "the budget ended before `bf16` could be confirmed",
        ),
    ],
)
def test_what_is_not_confirmed_is_not_proposed_and_the_reason_is_said(changed, sentence):
    said = summary(tuning(patch={}, **changed))
    assert said[0].startswith("Keep the recipe: ")
    assert sentence in said[0]
    assert said[1] == "Expected time of the whole run: 1 h 10 min."


def test_a_change_of_the_result_that_was_allowed_shows_its_accuracy():
    said = summary(tuning(accuracy_difference=[-0.004, -0.01, 0.002]))
    assert "test accuracy differs by -0.40 points (95 %: -1.00 to +0.20)" in said[-1]


def test_every_technique_is_a_row_and_accepted_ones_come_first():
    rows = technique_rows(tuning())
    assert [row[0] for row in rows] == ["mixed_precision", "channels_last", "workers_2", "compile", "micro_batch_64"]
    assert rows[0][2:4] == ["1.94x", "1.80x"]
    assert rows[3][1:4] == ["rejected", "-", "-"]
    assert rows[4][1] == "left out"


def test_the_whole_run_has_time_memory_energy_and_price_and_no_part_that_takes_none():
    rows = {row[0]: row[1:] for row in expected_rows(tuning())}
    assert rows["time"] == ["1 h 10 min", "30 min 11 s"]
    assert rows["memory left"] == ["14.00 GiB", "14.50 GiB"]
    assert rows["energy"] == ["10.0 Wh", "5.00 Wh"]
    assert rows["price"] == ["2.34", "1.01"]
    assert "compilation" not in rows
    assert expected_rows(tuning(before=None)) == []


def test_remarks_say_what_was_measured_where_and_what_the_budget_left():
    said = " ".join(remarks(tuning(stopped=True, notes=["A note."])))
    for part in ("31 trials, 9 min 31 s of 10 min 00 s", "Test CPU, 2 cores", "a larger --budget", "23.1", "A note."):
        assert part in said


def test_the_texts_have_settings_and_no_markup_where_none_is_read():
    assert "{training: {bf16: auto, fp16: false}, model: {channels_last: true}}" in markdown(tuning())
    assert "`" not in terminal_text(tuning())
    assert not any("`" in line or "\n" in line for line in header_lines(tuning()))


def test_a_result_is_read_back_and_one_of_another_version_refused(tmp_path):
    path = tmp_path / "tune.json"
    with pytest.raises(UserError, match="there is no such file"):
        Tuning.load(tmp_path)
    path.write_text(json.dumps(tuning().to_dict()))
    assert Tuning.load(tmp_path) == tuning()
    path.write_text(json.dumps(tuning(schema=9).to_dict()))
    with pytest.raises(UserError, match="schema is 9, expected 1"):
        Tuning.load(path)


def test_a_learning_rate_says_how_it_was_chosen_and_what_failed():
    found = learning_rate()
    assert learning_rate_page.summary(found)[0] == (
        "Learning rate 0.0003 in place of 0.001: the smallest validation loss after 200 steps."
    )
    text = learning_rate_page.terminal_text(found)
    assert "the loss is not finite at step 7" in text
    assert "the recipe's" in text
    found.best = found.own
    assert learning_rate_page.summary(found)[0].startswith("Keep the learning rate of 0.001")
