"""Real runs that are pushed: no file that they leave holds a secret, and the notebook works for a stranger."""

import os
import re
from pathlib import Path

import pytest

from hf_accel.config.recipe import load_recipe
from hf_accel.hub.notebook import notebook_text
from hf_accel.train import train
from tests.support.hub_server import TOKEN

pytestmark = pytest.mark.slow


def test_a_run_leaves_the_token_in_no_file_and_no_folder_of_this_machine_in_an_upload(
    hub, tiny_recipe, tmp_path, monkeypatch
):
    hub.use_here(monkeypatch)
    push = {"push_to_hub": True, "hub_model_id": "tester/tiny", "hub_token": TOKEN, "hub_private_repo": True}
    folder = train(tiny_recipe({"training": push}))
    files = hub.files("tester/tiny")
    assert {"model.safetensors", "config.json", "README.md", "report.json", "recipe.yaml"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl", ".png"))]
    sent = b"".join(body for _, body in hub.requests) + b"".join(files.values())
    assert TOKEN.encode() not in sent
    assert str(tmp_path).encode() not in sent
    assert "pushed" in (folder / "log.txt").read_text()
    files = [path for path in folder.rglob("*") if path.is_file()]  # checkpoints with their pickles included
    assert any(path.name == "training_args.bin" for path in files)
    assert [str(path) for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_a_hub_that_is_down_costs_a_run_nothing_but_the_push(hub, tiny_recipe, monkeypatch, tmp_path):
    hub.use_here(monkeypatch)
    hub.fail(500)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    folder = train(tiny_recipe({"training": {"push_to_hub": True, "hub_model_id": "tester/tiny"}}))
    log = (folder / "log.txt").read_text()
    assert "not pushed" in log
    assert f"hf-accel push {folder} --hub_model_id tester/tiny" in log
    assert (folder / "report.json").is_file()
    assert (folder / "model" / "README.md").is_file()


@pytest.mark.slow
def test_the_notebook_of_a_pushed_model_runs_for_a_stranger(hub, tiny_recipe, photos, tmp_path, monkeypatch):
    """From the Hub, in a fresh kernel: load, predict, evaluate to the card's accuracy, continue the training."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbformat, nbclient and ipykernel")
    hub.use_here(monkeypatch)
    train(tiny_recipe({"training": {"push_to_hub": True, "hub_model_id": "tester/tiny"}}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.symlink(photos, elsewhere / "photos")
    notebook = nbformat.reads(hub.files("tester/tiny")["notebook.ipynb"].decode(), as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(elsewhere)}}
    )
    client.execute(env=hub.environment(tmp_path) | {"OMP_NUM_THREADS": "1"})

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    output = ["".join(str(part.get("text", part.get("data"))) for part in cell.outputs) for cell in cells]
    assert "import hf_accel.cifar_nets" in cells[1].source
    assert "'blue', 'red'" in output[1]
    assert "score" in output[2]
    card = hub.files("tester/tiny")["README.md"].decode()
    accuracy = re.search(r"\| Accuracy +\| +([\d.]+)", card)[1]
    assert f"accuracy          {accuracy}" in output[3]
    assert "continued/model" in output[4]
    assert Path(elsewhere / "continued" / "report.json").is_file()


@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_a_command_that_fails_stops_the_notebook_and_is_not_passed_over(verb, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbformat, nbclient and ipykernel")
    text = notebook_text(load_recipe("digits"), "no_such_folder", False, local_data=True, has_examples=False)
    notebook = nbformat.reads(text, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [cells[0], next(cell for cell in cells if f"hf_accel.{verb}" in cell.source)]
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=f"hf_accel.{verb} failed with exit code 2"):
        client.execute()
