"""`hf-accel compress`: from a run to a folder that predicts without PyTorch."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel import compress
from hf_accel.cli import run
from hf_accel.compression import measured, packages, speed
from hf_accel.compression.rows import Row
from hf_accel.measure import turns
from hf_accel.predict import main as predict_main
from hf_accel.train import train
from tests.support.absent import run_without


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    from hf_accel.config.recipe import apply_patch, load_recipe
    from tests.conftest import TINY, write_photos

    place = tmp_path_factory.mktemp("trained")
    patch = {"data": {"name": str(write_photos(place))}, "training": {"output_dir": str(place / "run")}}
    return train(load_recipe("finetune", overrides=apply_patch(TINY, patch)))


@pytest.fixture(scope="module", autouse=True)
def short_turns():
    """No test is about how fast something is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "ROUNDS", 2)
        patch.setattr(speed, "LATENCY_SECONDS", 0.01)
        patch.setattr(speed, "SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def exported(run_folder):
    assert compress.main([str(run_folder), "--quiet"]) == 0
    return run_folder / "exported"


def predicted(capsys, place, *images) -> list[dict]:
    capsys.readouterr()
    assert predict_main([str(place), *map(str, images), "--format", "json", "--probabilities"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_an_exported_run_predicts_what_the_run_does(run_folder, exported, photos, capsys):
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert names == {"compress.json", "config.json", "preprocessor_config.json", "onnx/model.onnx"}
    result = json.loads((exported / "compress.json").read_text())
    assert result["agreement"]["same_answers"] == 1
    assert result["agreement"]["images"] == 32  # all there are
    before, after = (predicted(capsys, place, photos / "test") for place in (run_folder, exported))
    assert [row["file"] for row in before] == [row["file"] for row in after]
    for one, other in zip(before, after, strict=True):  # torchvision resizes for one, and Pillow for the other
        assert one["probabilities"].keys() == other["probabilities"].keys()
        np.testing.assert_allclose(
            list(one["probabilities"].values()), list(other["probabilities"].values()), atol=1e-3
        )


@pytest.mark.slow
def test_each_format_is_a_file_with_a_row_and_answers_alike(run_folder, tmp_path, capsys):
    formats = ["int8", "int8_dynamic", "fp16", "bf16"]
    argv = [str(run_folder), "--formats", *formats, "--keep", "--output_dir", str(tmp_path / "out")]
    assert compress.main(argv) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "compress.json").read_text())
    rows = {(row["runtime"], row["format"]): Row(**row) for row in result["rows"]}
    assert {form for runtime, form in rows if runtime == "onnxruntime"} == {"fp32", *formats}
    assert ("torch", "fp32") in rows
    assert result["test_images"] == 8
    for (runtime, form), row in rows.items():
        assert row.latency_p50_seconds <= row.latency_p99_seconds
        assert row.accuracy is not None
        assert row.latency_passes >= 2
        assert f"{'ONNX' if runtime == 'onnxruntime' else 'PyTorch'} {form}" in printed
        if row.file is not None:
            assert (tmp_path / "out" / row.file).stat().st_size == row.bytes
            assert row.compressed_bytes > 0
        assert (row.speedup is None) == ((runtime, form) == ("onnxruntime", "fp32"))
    assert rows["torch", "fp32"].bytes == (run_folder / "model" / "model.safetensors").stat().st_size
    assert rows["torch", "fp32"].accuracy == rows["onnxruntime", "fp32"].accuracy
    assert rows["onnxruntime", "int8"].same_answers > 0.8


@pytest.mark.slow
def test_a_file_that_is_not_worth_it_is_reported_and_not_written(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measured, "speed_verdicts", lambda ratios: [("slower", "slower")] * len(ratios))
    argv = [str(run_folder), "--formats", "int8", "fp16", "--output_dir", str(tmp_path / "out")]
    assert compress.main(argv) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "onnx/model_quantized.onnx: slower than the float32 file on this machine" in printed
    assert "It is not written; --keep writes it." in printed
    assert {path.name for path in (tmp_path / "out" / "onnx").iterdir()} == {"model.onnx", "model_fp16.onnx"}
    result = json.loads((tmp_path / "out" / "compress.json").read_text())
    assert [row["written"] for row in result["rows"] if row["format"] == "int8"] == [False]


@pytest.mark.slow
def test_a_file_of_predictions_is_begun_without_torch_and_continued_with_it(exported, photos, tmp_path):
    file = tmp_path / "rows.csv"
    done = run_without("predict", exported, photos / "test", "--output", file)
    assert done.returncode == 0, done.stderr
    assert len(file.read_text().splitlines()) == 9
    assert predict_main([str(exported), str(photos / "test"), "--output", str(file)]) == 0


@pytest.mark.slow
def test_a_second_export_is_kept_back_and_a_new_run_takes_the_old_one_along(run_folder, exported, capsys):
    before = (exported / "onnx" / "model.onnx").stat().st_mtime_ns
    assert run(compress.main, [str(run_folder)]) == 2
    assert "holds an exported model, which is kept" in capsys.readouterr().err
    assert (exported / "onnx" / "model.onnx").stat().st_mtime_ns == before
    assert compress.main([str(run_folder), "--overwrite", "--images", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"]["images"] == 3
    assert (exported / "onnx" / "model.onnx").stat().st_mtime_ns != before
    assert not list(run_folder.glob(".exported*"))
    mark = json.loads((run_folder / ".hf_accel.json").read_text())
    assert "exported/onnx/model.onnx" in mark["files"]


@pytest.mark.slow
def test_several_views_are_refused(exported, photos, capsys):
    argv = [str(exported), str(photos / "test"), "--test_time_augmentation", "flip"]
    assert run(predict_main, argv) == 2
    assert "an exported model sees one view of an image" in capsys.readouterr().err


@pytest.mark.slow
def test_bf16_is_refused_and_auto_leaves_the_file_its_own_precision(exported, photos, capsys):
    assert run(predict_main, [str(exported), str(photos / "test"), "--bf16", "true"]) == 2
    assert "an exported model, which computes in the precision of its file" in capsys.readouterr().err
    assert run(predict_main, [str(exported), str(photos / "test"), "--bf16", "auto"]) == 0


def test_a_folder_with_other_files_and_a_model_without_a_run_are_refused(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    (tmp_path / "model").mkdir()
    for argv, told in (
        (
            ["--output_dir", str(tmp_path / "out"), "--data.name", "digits"],
            "holds files that this command did not write",
        ),
        (["--data.name", "digits"], "Add --output_dir FOLDER"),
        (["--output_dir", str(tmp_path / "new")], "so its data is unknown. Add --data.name"),
        (["--images", "0"], "--images is 0, expected a whole number from 1"),
        (["--calibration_images", "0"], "--calibration_images is 0, expected a whole number from 1"),
        (["--max_drop", "2"], "--max_drop is 2.0, expected a number from 0 to 1"),
        (["--formats", "int4"], "invalid choice: 'int4'"),
    ):
        assert run(compress.main, [str(tmp_path / "model"), *argv]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert run(compress.main, [str(tmp_path)]) == 2
    assert 'onnxscript is not installed. pip install "hf_accel[onnx]"' in capsys.readouterr().err


@pytest.mark.slow
def test_an_exported_folder_needs_nothing_beside_it(exported, photos, tmp_path, capsys):
    shutil.copytree(exported, tmp_path / "elsewhere")
    assert len(predicted(capsys, tmp_path / "elsewhere", photos / "test")) == 8
