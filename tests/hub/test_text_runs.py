"""A pushed text classifier: its notebook works for a stranger, and its demo page and Space give the model's answers."""

import os
import re
import sys

import pytest
from transformers import pipeline

from hf_accel import demo
from hf_accel.train import train
from tests.support.texts import LABELS, save_text_model, text_recipe


@pytest.fixture
def model(tmp_path):
    folder = save_text_model(tmp_path / "reviews", "bert", LABELS)
    (folder / "examples").mkdir()
    (folder / "examples" / "1.txt").write_text("it is good")
    return folder


def test_the_page_gives_the_answers_of_the_pipeline_and_refuses_a_book(model):
    gr = pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    from hf_accel.hub.text_space_app import LONGEST, load_classifier

    likeliest, names = load_classifier(str(model))
    assert names == LABELS
    (expected,) = pipeline("text-classification", model=str(model), top_k=None)(["it is good"])
    assert likeliest(" it is good ") == pytest.approx({row["label"]: row["score"] for row in expected}, abs=1e-5)
    assert sum(likeliest("the thing " * 900).values()) == pytest.approx(1), "what the model cannot take is cut"
    with pytest.raises(gr.Error, match="expected at most 20,000"):
        likeliest("x" * (LONGEST + 1))


def test_a_space_of_a_text_classifier_has_its_tokenizer_and_its_own_page(model, tmp_path):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    space = tmp_path / "space"
    assert demo.main([str(model), "--space", str(space)]) == 0
    files = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    assert files == {
        *("app.py", "requirements.txt", "README.md", "model/config.json", "model/model.safetensors"),
        *("model/tokenizer.json", "model/tokenizer_config.json", "model/examples/1.txt"),
    }
    assert "TITLE = 'reviews'" in (space / "app.py").read_text()
    assert "Enter a text, see its class." in (space / "README.md").read_text()
    names = [line.partition("==")[0] for line in (space / "requirements.txt").read_text().splitlines()]
    assert names == ["transformers", "torch"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["demo", "space"])
def test_a_text_that_is_sent_to_the_page_gets_the_models_answer(model, tmp_path, way):
    client = pytest.importorskip("gradio_client", reason='needs Gradio: pip install "hf_accel[demo]"')
    from tests.doors.test_demo import served

    command = [sys.executable, "-m", "hf_accel.demo", str(model)]
    if way == "space":
        demo.main([str(model), "--space", str(tmp_path / "space")])
        command = [sys.executable, str(tmp_path / "space" / "app.py")]
    (expected,) = pipeline("text-classification", model=str(model))(["it is good"])
    with served(command) as address:
        answer, _ = client.Client(address, verbose=False).predict("it is good", api_name="/classify")
    assert answer["label"] == expected["label"]
    assert answer["confidences"][0]["confidence"] == pytest.approx(expected["score"], abs=1e-5)


@pytest.mark.slow
def test_the_notebook_of_a_pushed_text_classifier_runs_for_a_stranger(hub, tmp_path, monkeypatch):
    """From the Hub, in a fresh kernel: load, predict, evaluate to the card's accuracy, continue the training."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbformat, nbclient and ipykernel")
    hub.use_here(monkeypatch)
    push = {"push_to_hub": True, "hub_model_id": "tester/tiny"}
    train(text_recipe(tmp_path, {"data": {"text_column": ["text"]}, "training": push, "push": {"examples": True}}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.symlink(tmp_path / "reviews", elsewhere / "reviews")
    assert {"examples/1.txt", "tokenizer.json", "notebook.ipynb"} <= set(hub.files("tester/tiny"))
    notebook = nbformat.reads(hub.files("tester/tiny")["notebook.ipynb"].decode(), as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(elsewhere)}}
    )
    client.execute(env=hub.environment(tmp_path) | {"OMP_NUM_THREADS": "1"})
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    output = ["".join(str(part.get("text", part.get("data"))) for part in cell.outputs) for cell in cells]
    assert "'negative', 'positive'" in output[1]
    assert "score" in output[2]
    accuracy = re.search(r"\| Accuracy +\| +([\d.]+)", hub.files("tester/tiny")["README.md"].decode())[1]
    assert f"accuracy          {accuracy}" in output[3]
    assert "--data.text_column '[\"text\"]'" in cells[3].source
    assert "continued/model" in output[4]
