"""`recipes/measured.json`: what is known of the shipped recipes, and how finished runs are entered."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))  # benchmarks/ is not installed

from benchmarks import measured as benchmark  # noqa: E402
from hf_accel.cli import run  # noqa: E402
from hf_accel.config import measured as measured_module  # noqa: E402
from hf_accel.config.measured import MEASURED, measured_recipes  # noqa: E402
from hf_accel.config.recipe import header, load_recipe, shipped_recipes  # noqa: E402
from hf_accel.runs.folder import RunFolder  # noqa: E402
from tests.support.reports import run_report  # noqa: E402


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A copy of the file that the benchmark writes to."""
    path = tmp_path / "measured.json"
    path.write_text(MEASURED.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(measured_module, "MEASURED", path)
    monkeypatch.setattr(benchmark, "MEASURED", path)
    return path


def finished(folder: Path, accuracy: float, seconds: float, recipe: str = "digits", variant=None, **overrides) -> Path:
    """The folder of a finished run of a recipe."""
    resolved = load_recipe(recipe, variant, overrides)
    report = run_report(3, 60, seconds=seconds)
    report.recipe, report.variant = recipe, resolved.variant
    report.data = replace(report.data, name=resolved.data.name)
    report.test = replace(report.test, accuracy=accuracy)
    report.save(folder)
    resolved.write(RunFolder(folder).recipe)
    return folder


def test_the_file_is_about_shipped_recipes_and_agrees_with_their_comments():
    known = measured_recipes()
    assert known.keys() <= shipped_recipes().keys()
    for name, path in shipped_recipes().items():
        comment = " ".join(header(path))
        figures = known.get(name)
        accuracy = figures.test_accuracy if figures else None
        assert ("Measured: not yet" in comment) == (accuracy is None), name
        if accuracy is not None:
            assert f"{accuracy:.4f}" in comment, name
            assert None not in (figures.seconds, figures.n, figures.device, figures.command, figures.parameters)


def test_parameters_are_those_of_the_network():
    for name in ("resnet20_cifar10", "digits", "zoo_cct_cifar100"):
        assert benchmark.count_parameters(load_recipe(name)) == measured_recipes()[name].parameters
    assert benchmark.count_parameters(load_recipe("vit_cifar10")) is None  # needs a config of the Hub
    assert benchmark.count_parameters(load_recipe("finetune")) is None  # depends on the folder


def test_the_mean_of_finished_runs_is_entered_and_the_rest_stays(file, tmp_path, capsys):
    before = measured_recipes()
    folders = [finished(tmp_path / f"{n}", 0.9 + 0.02 * n, 10.0 + n, training={"seed": n}) for n in range(3)]
    assert run(benchmark.main, [str(folder) for folder in folders]) == 0
    assert "digits: test accuracy 0.9200, 11.0 s, n = 3, CPU Test CPU, 2 cores" in capsys.readouterr().out
    after = measured_recipes()
    new = after.pop("digits")
    assert (new.test_accuracy, new.seconds, new.n) == (0.92, 11.0, 3)
    assert (new.device, new.command, new.data) == ("CPU Test CPU, 2 cores", "hf-accel train --recipe digits", None)
    assert new.parameters == run_report().model.parameters
    assert after == {name: figures for name, figures in before.items() if name != "digits"}
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) == len(json.loads(file.read_text("utf-8"))) + 2  # one line per recipe


def test_a_local_copy_of_the_data_is_named(file, tmp_path):
    folder = finished(tmp_path / "run", 0.9, 5.0, "resnet20_cifar10", data={"name": str(tmp_path / "photos")})
    assert benchmark.measured_of([folder])["resnet20_cifar10"].data == "photos"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"training": {"num_train_epochs": 1}},
            "is not digits as it is shipped: training.num_train_epochs 1 instead of 12",
        ),
        ({"data": {"max_train_rows": 100}}, "data.max_train_rows 100 instead of None"),
        ({"data": {"name": "uoft-cs/cifar10"}}, "data.name 'uoft-cs/cifar10' instead of 'digits'"),
        ({"variant": "baseline"}, "is digits, baseline; expected a shipped recipe without a variant"),
    ],
)
def test_a_run_that_is_not_the_recipe_as_shipped_is_refused(file, tmp_path, capsys, changes, told):
    before = file.read_bytes()
    folder = finished(tmp_path / "run", 0.9, 5.0, **changes)
    assert run(benchmark.main, [str(folder)]) == 2
    assert told in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_folder_without_a_finished_run_is_refused(file, tmp_path, capsys):
    assert run(benchmark.main, [str(tmp_path / "nowhere")]) == 2
    assert re.search("expected the report.json of a finished run", capsys.readouterr().err)
    assert run(benchmark.main, []) == 2
    assert "expected folders of finished runs" in capsys.readouterr().err


def test_runs_on_several_devices_are_not_averaged(file, tmp_path, capsys):
    folders = [finished(tmp_path / name, 0.9, 5.0) for name in ("one", "other")]
    report = json.loads((folders[1] / "report.json").read_text("utf-8"))
    report["environment"]["cpu"] = "Other CPU"
    (folders[1] / "report.json").write_text(json.dumps(report), "utf-8")
    assert run(benchmark.main, [str(folder) for folder in folders]) == 2
    assert "digits: runs on 2 devices" in capsys.readouterr().err
