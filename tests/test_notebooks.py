"""The notebooks run from the first cell to the last, as a reader runs them, in a folder of their own."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
SMALL = """\
extends: digits
model: {args: {channels: [8, 16, 32, 64]}}
data: {max_train_rows: 160, max_test_rows: 60}
training: {per_device_train_batch_size: 16}
"""


def sources(name: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads((NOTEBOOKS / name).read_text("utf-8"))["cells"]]


def test_there_is_a_quickstart():
    assert "quickstart.ipynb" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_with_the_outputs_of_one_run_from_top_to_bottom(name):
    cells = json.loads((NOTEBOOKS / name).read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert "error" not in {output["output_type"] for output in outputs}
    said = "".join("".join(output.get("text", ())) for output in outputs)
    assert said.strip()
    assert "Traceback" not in said


def test_the_quickstart_shows_pictures_and_its_hardest_class():
    cells = json.loads((NOTEBOOKS / "quickstart.ipynb").read_text("utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    said = "".join("".join(output.get("text", ())) for output in outputs)
    assert re.search(r"hardest class: \w+, F1 0\.\d{4}", said)
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert {"image/png", "text/html"} <= set(shown)


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_of_a_notebook_are_small_and_name_no_folder_of_the_machine_it_ran_on(name):
    text = (NOTEBOOKS / name).read_text("utf-8")
    assert len(text.encode()) < 1_000_000
    assert not re.search(r"/(home|root|Users|tmp|work|mnt|usr)/", text)


def test_a_kept_output_is_what_a_screen_shows_at_the_end():
    nbformat = pytest.importorskip("nbformat", reason='needs nbformat: pip install "hf_accel[test]"')
    pytest.importorskip("nbclient", reason='needs nbclient: pip install "hf_accel[test]"')
    keep_what_is_seen = runpy.run_path(str(NOTEBOOKS / "execute.py"))["keep_what_is_seen"]
    new = nbformat.v4.new_output
    printed = ["train:  50%", "\rtrain: 100%\r\n", "\r          \repoch 1/1\n\x1b[32mdone\x1b[0m\n"]
    outputs = [new("stream", name="stdout", text=text) for text in printed]
    outputs += [new("stream", name="stderr", text="/home/jane/lib: a warning"), new("display_data", {"image/png": ""})]
    cell = nbformat.v4.new_code_cell("", outputs=outputs)
    keep_what_is_seen(nbformat.v4.new_notebook(cells=[cell]))
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].text == "train: 100%\nepoch 1/1\ndone\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_badge_opens_this_very_notebook_from_the_address_of_the_project_if_that_is_known(name):
    project = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    address, text = project["urls"].get("Repository"), "\n".join(sources(name))
    if address is None:
        assert not re.search(r"colab\.research|github\.com", text)
    else:
        repository = address.removeprefix("https://github.com/")
        assert f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})" in text


@pytest.mark.parametrize("name", NAMES)
def test_no_package_index_is_named(name):
    text = "\n".join(sources(name)).lower()
    assert not re.search(r"pypi|index[-_]url", text)


def test_the_quickstart_runs_from_the_first_cell_to_the_last(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason='needs nbclient: pip install "hf_accel[test]"')
    nbformat = pytest.importorskip("nbformat", reason='needs nbformat: pip install "hf_accel[test]"')
    pytest.importorskip("ipykernel", reason='needs ipykernel: pip install "hf_accel[test]"')
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    # What runs here is the commands: 160 digits, a network of a tenth of the size, and one run per variant, because the
    # starts of processes take most of the time. test_compare.py tests repeats.
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    shorter = {
        'RECIPE = "digits"': 'RECIPE = "small.yaml"',
        "EPOCHS = 4": "EPOCHS = 2",
        "baseline channels_last cached": "baseline cached",
        "REPEATS = 2": "REPEATS = 1",
    }
    for old, new in shorter.items():
        assert old in notebook.cells[2].source
        notebook.cells[2].source = notebook.cells[2].source.replace(old, new)

    # A kernel that runs the commands without a terminal, as Colab's does; a command that fails stops a later cell.
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "10 classes" in said
    assert "epoch 2/2" in said
    assert "hardest class: " in said
    assert re.search(r"^cached +[\d.,]+ ", said, re.MULTILINE)
    shown = [output.data for output in outputs if "data" in output]
    assert len([data for data in shown if "image/png" in data]) == 1
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert ["Report of a run" in page for page in pages] == [True, False]
    assert all(page.startswith('<div><iframe srcdoc="&lt;!') for page in pages)
    comparison = json.loads((tmp_path / "comparison" / "compare.json").read_text("utf-8"))
    assert [(arm["name"], arm["num_runs"]) for arm in comparison["arms"]] == [("baseline", 1), ("cached", 1)]


def test_the_notebook_of_the_python_api_runs_and_says_what_it_shows(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason='needs nbclient: pip install "hf_accel[test]"')
    nbformat = pytest.importorskip("nbformat", reason='needs nbformat: pip install "hf_accel[test]"')
    pytest.importorskip("ipykernel", reason='needs ipykernel: pip install "hf_accel[test]"')
    notebook = nbformat.read(NOTEBOOKS / "python_api.ipynb", as_version=4)
    nbformat.validate(notebook)
    shown = [printed(cell) for cell in notebook.cells]

    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    # the figures depend on the machine, the number of lines and the shapes do not
    again = [printed(cell) for cell in notebook.cells]
    assert [len(text.splitlines()) for text in again] == [len(text.splitlines()) for text in shown]
    assert "(80, 2)" in "".join(again)
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))


def printed(cell) -> str:
    """The lines that a cell's own `print` calls wrote."""
    streams = [output for output in cell.get("outputs", []) if output.output_type == "stream"]
    text = "".join(output.text for output in streams if output.name == "stdout")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("{"))
