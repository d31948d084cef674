"""`evaluate`, `predict` and `demo` of an exported model: the answers of the run, without PyTorch and transformers."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel import compress, demo, evaluate
from hf_accel.cli import run
from hf_accel.models.exported import LABELS
from hf_accel.predict import main as predict_main
from hf_accel.train import train
from tests.support.absent import NOT_FOR_EXPORTED, command_without, run_without
from tests.support.data_sets import write_metadata

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tests.conftest import write_photos

    return write_photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run_folder(photos, tmp_path_factory):
    from hf_accel.config.recipe import apply_patch, load_recipe
    from tests.conftest import TINY

    patch = {"data": {"name": str(photos)}, "training": {"output_dir": str(tmp_path_factory.mktemp("trained") / "run")}}
    folder = train(load_recipe("finetune", overrides=apply_patch(TINY, patch)))
    assert compress.main([str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(run_folder):
    return run_folder / "exported"


def scored(capsys, *words) -> dict:
    capsys.readouterr()
    assert run(evaluate.main, [*map(str, words), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def same_scores(one: dict, other: dict) -> bool:
    return all(one[name] == other[name] for name in ("rows", "accuracy", "f1_macro", "f1_weighted", "per_class"))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_rows_of_the_run_get_the_scores_of_the_model(run_folder, exported, split, tmp_path, capsys):
    files = [tmp_path / "model.csv", tmp_path / "exported.csv"]
    words = ["--split", split, "--probabilities", "--output"]
    model, other = (
        scored(capsys, place, *words, file) for place, file in zip((run_folder, exported), files, strict=True)
    )
    assert same_scores(model, other)
    assert other["loss"] == pytest.approx(model["loss"], abs=1e-4)
    assert (other["data_changed"], other["model"]) == (False, str(exported / "onnx" / "model.onnx"))
    rows = [[line.split(",") for line in file.read_text().splitlines()] for file in files]
    assert [row[:4] for row in rows[0]] == [row[:4] for row in rows[1]]
    figures = [np.array([row[4:] for row in part[1:]], float) for part in rows]
    np.testing.assert_allclose(*figures, atol=1e-4)


def test_neither_torch_nor_transformers_nor_datasets_is_needed(exported, photos, tmp_path, capsys):
    output = tmp_path / "rows.csv"
    words = [exported, "--data.name", photos, "--json"]
    done = run_without("evaluate", *words, "--output", output)
    assert done.returncode == 0, done.stderr
    expected = scored(capsys, exported)
    assert same_scores(json.loads(done.stdout), expected)
    assert json.loads(done.stdout)["loss"] == pytest.approx(expected["loss"])
    assert len(output.read_text().splitlines()) == 9
    done = run_without("predict", exported, photos / "test", "--format", "csv")
    assert [line.split(",")[3] for line in done.stdout.splitlines()] == [
        line.split(",")[3] for line in output.read_text().splitlines()
    ]


def test_a_table_needs_datasets_and_not_torch(exported):
    with_tables = tuple(name for name in NOT_FOR_EXPORTED if name not in ("datasets", "pyarrow"))
    done = run_without("evaluate", exported, "--data.name", "digits", absent=with_tables)
    assert "digits, train split: the model does not know the class '0'" in done.stderr


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        ("transformers", "without transformers, the data of its run is unknown. Add --data.name"),
        ("sklearn", "needs scikit-learn, which is not installed. pip install scikit-learn"),
    ],
)
def test_what_is_missing_is_named(exported, absent, told, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "find_spec", lambda name: None if name == absent else name)
    assert run(evaluate.main, [str(exported)]) == 2
    assert told in capsys.readouterr().err


def test_the_demo_names_gradio_alone(exported, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(demo.main, [str(exported)]) == 2
    assert "needs Gradio, which is not installed. pip install gradio" in capsys.readouterr().err


def test_a_file_of_the_folder_is_taken_by_its_own_path(exported, photos, tmp_path, capsys):
    import onnx

    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    graph = onnx.load(folder / "onnx" / "model.onnx")
    props = {prop.key: prop.value for prop in graph.metadata_props}
    onnx.helper.set_model_props(graph, {**props, LABELS: json.dumps(["red", "blue"])})
    other = folder / "onnx" / "model_quantized.onnx"
    onnx.save(graph, other)
    first = scored(capsys, folder, "--data.name", photos)
    second = scored(capsys, other, "--data.name", photos)
    assert second["model"] == str(other)
    assert second["accuracy"] == pytest.approx(1 - first["accuracy"])
    answers = []
    for place in (folder, other):
        assert predict_main([str(place), str(photos / "test" / "red" / "00.png"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)[0]["predicted"])
    assert set(answers) == {"blue", "red"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bf16", "true"], "--bf16: has no effect on an exported model"),
        (["--data.cache", "none"], "--data.cache: has no effect on an exported model"),
        (["--model.lora.rank", "2"], "--model.lora: has no effect on an exported model"),
        (["--data.max_test_rows", "0"], "data.max_test_rows is 0"),
        (["--data.validation", "0.2"], "--data.validation: divides the data of a run that trains"),
        (["--probabilities"], "is about the rows of --output FILE"),
    ],
)
def test_settings_without_effect_are_refused_by_name(exported, words, told, capsys):
    assert run(evaluate.main, [str(exported), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_moved_folder_is_not_of_a_run_and_labels_may_be_stated_in_a_file(exported, tmp_path, capsys):
    shutil.copytree(exported, tmp_path / "elsewhere")
    assert run(evaluate.main, [str(tmp_path / "elsewhere")]) == 2
    assert "so its data is unknown. Add --data.name" in capsys.readouterr().err
    folder = write_metadata(tmp_path / "stated", ["blue", "red", "red"])
    scores = scored(capsys, tmp_path / "elsewhere", "--data.name", folder)
    assert [row["support"] for row in scores["per_class"]] == [1, 2]
    (folder / "001.png").write_bytes(b"no image")
    words = [str(tmp_path / "elsewhere"), "--data.name", str(folder)]
    assert run(evaluate.main, words) == 2
    assert f"{folder}/001.png: cannot be read as an image" in capsys.readouterr().err
    assert scored(capsys, *words, "--data.on_bad_image", "skip")["rows"] == 2


def test_several_processes_and_a_space_are_refused(exported, tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    assert run(demo.main, [str(exported), "--space", str(tmp_path / "space")]) == 2
    assert "a Space has the weights for PyTorch" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(evaluate.main, [str(exported)]) == 2
    assert "an exported model is scored by one process" in capsys.readouterr().err


def test_a_model_for_training_has_weights_for_pytorch(exported, photos, capsys):
    from hf_accel import train as train_door

    assert run(train_door.main, ["--data.name", str(photos), "--model.name", str(exported)]) == 2
    assert (
        "is an exported model (model.onnx), which `hf-accel predict`, `evaluate` and `demo` take"
        in capsys.readouterr().err
    )


def test_the_demo_answers_as_predict_does(exported, photos, capsys):
    client = pytest.importorskip("gradio_client", reason='needs Gradio: pip install "hf_accel[demo]"')
    command = command_without("demo", exported)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    image = str(photos / "test" / "red" / "00.png")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as page:
        try:
            line = page.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert address, line + page.stderr.read()
            assert line.startswith("finetune: ")  # the recipe of its run
            answer, note = client.Client(address[0], verbose=False).predict(
                client.handle_file(image), api_name="/classify"
            )
        finally:
            page.terminate()
    assert predict_main([str(exported), image, "--json"]) == 0
    (expected,) = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in answer["confidences"]] == [row["label"] for row in expected["labels"]]
    assert answer["confidences"][0]["confidence"] == pytest.approx(expected["confidence"])
    assert "ms for this image" in note
