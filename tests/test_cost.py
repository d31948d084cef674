"""The cost plan of ImageNet: docs/scale.md has the table without runs, and a report fills its cells."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # benchmarks/ is not installed

from benchmarks import cost  # noqa: E402
from hf_accel.errors import UserError  # noqa: E402
from tests.support.reports import run_report  # noqa: E402


def gpu_report(recipe="resnet50_imagenet", gpus=8, rate=16_014.5875, **environment):
    report = run_report(world_size=gpus, images_per_second=rate)
    return replace(report, recipe=recipe, environment={**report.environment, "cuda": "13.0", **environment})


def test_the_table_of_the_document_is_the_one_of_the_command(capsys):
    assert cost.main([]) == 0
    assert capsys.readouterr().out.strip() in (REPOSITORY / "docs" / "scale.md").read_text("utf-8")


def test_the_growth_in_the_document_is_the_one_of_the_command(capsys):
    assert cost.main(["--growth"]) == 0
    assert capsys.readouterr().out.strip() in (REPOSITORY / "docs" / "scale.md").read_text("utf-8")


def test_the_growth_of_eight_gpus_by_hand():
    """7/4 of 4 bytes for each of 68.3 million parameters, at 300 GB/s; 512 images at 2,866 per second."""
    images, computing, sent, reducing = cost.growth(8)
    assert cost.RESNET50_PARAMETERS == 68_260_241
    assert (images, sent) == (512, 477_821_687)
    assert (computing, reducing) == (pytest.approx(0.17865, rel=1e-4), pytest.approx(0.0015927, rel=1e-4))
    assert cost.growth(1)[2:] == (0, 0)
    assert cost.growth(1_024)[0] == 32


def test_a_report_fills_its_row_and_no_other(tmp_path, capsys):
    gpu_report().save(tmp_path)
    assert cost.main([str(tmp_path), "--price", "3"]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    by_row = {(row[0], row[1], row[2]): row[3:] for row in rows}
    # 16 x 1,281,167 images at 16,014.5875 per second are 1,280 s on 8 GPUs of $3 an hour
    assert by_row["resnet50_imagenet", "16", "8"] == ["16,015", "21 min 20 s", "$8.53"]
    assert by_row["resnet50_imagenet", "88", "8"] == ["16,015", "1 h 57 min", "$46.9"]
    others = [cells for (name, _, gpus), cells in by_row.items() if (name, gpus) != ("resnet50_imagenet", "8")]
    assert len(others) == 10
    assert all(cells == ["not yet measured"] * 3 for cells in others)


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([gpu_report("digits")], "expected a run of resnet50_imagenet"),
        ([gpu_report(cuda=None)], "has no rate of a GPU"),
        ([gpu_report(rate=None)], "has no rate of a GPU"),
        ([gpu_report(), gpu_report()], "on 8 GPUs: is given twice"),
    ],
)
def test_runs_that_cannot_fill_a_cell_are_refused(reports, message):
    with pytest.raises(UserError, match=message):
        cost.measured_rates(reports)
