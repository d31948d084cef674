"""The confidence of a run in words, as a plot and on its page, next to the pictures that explain its mistakes."""

from dataclasses import replace

import numpy as np
import pytest

from hf_accel.report.calibration import CalibrationSummary
from hf_accel.report.page import write_page
from hf_accel.report.plots import run_plots
from tests.support.reports import pictures, run_report

BINS = [[0.3, 0.2, 10], [0.9, 0.85, 390]]
TESTED = CalibrationSummary(
    temperature=1.5,
    unsure_below=0.7,
    unlike_below=2.0,
    sure_precision=0.95,
    validation_rows=128,
    validation_ece_before=0.1,
    validation_ece_after=0.02,
    ece_before=0.09,
    ece_after=0.03,
    adaptive_ece_before=0.08,
    adaptive_ece_after=0.04,
    reliability_before=BINS,
    reliability_after=BINS,
    test_sure=0.8,
    test_sure_accuracy=0.96,
    test_unlike=0.05,
)


def test_the_sentences_say_what_holds_on_the_test_rows():
    assert TESTED.sentences("image") == [
        "Confidence: calibrated on 128 validation images by the temperature 1.5000.",
        "Expected calibration error of the test images: 0.0900 before, 0.0300 after.",
        "80.0 % of the test answers are sure, and 96.0 % of these are right (aim: 95.0 %).",
    ]


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({"unsure_below": None}, "No threshold makes 95.0 % of the answers above it right."),
        (
            {"ece_before": None, "test_sure": None},
            "Confidence: calibrated on 128 validation texts by the temperature 1.5000.",
        ),
        ({"test_sure": 0.0, "test_sure_accuracy": None}, "None of the test answers is sure."),
    ],
)
def test_what_was_not_found_or_not_tested_is_not_made_up(changes, last):
    assert replace(TESTED, **changes).sentences("text")[-1] == last


def test_the_plot_says_the_same_in_words_and_is_left_out_without_test_figures():
    report = replace(run_report(), calibration=TESTED)
    assert "0.0900 as the model says, 0.0300 calibrated" in run_plots(report)["reliability"].alt
    untested = replace(TESTED, reliability_before=[], reliability_after=[], ece_before=None, test_sure=None)
    assert "reliability" not in run_plots(replace(report, calibration=untested))


def test_the_page_has_the_confidence_the_pairs_and_the_explanations_and_loads_nothing(tmp_path):
    report = replace(run_report(), calibration=TESTED)
    (mistake,) = pictures(1, 80, with_mistakes=True)
    explained = replace(mistake, explanation=np.zeros((80, 80, 3), np.uint8))
    pairs = [("cat", "dog", 3, [mistake, mistake])]
    page = write_page(tmp_path, report, [explained], pairs=pairs, as_trained=pictures(2, 80, False))
    text = page.read_text(encoding="utf-8")
    assert 'id="confidence"' in text
    assert "calibrated on 128 validation images" in text
    assert text.count('class="explanation"') == 1
    assert "<strong>cat</strong> taken for <strong>dog</strong>: 3 test images, the surest 2 of them" in text
    assert 'id="as-trained"' in text
    assert "src=" in text
    assert not [part for part in text.split('src="')[1:] if not part.startswith("data:")]
