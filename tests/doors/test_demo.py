"""The demo page in a real browser, and the Space it is written as."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from hf_accel import demo
from hf_accel.errors import UserError
from tests.support.hub_contents import write_run

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Chromium may contact no machine but the page's.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run")
    (folder / "model" / "examples").mkdir()
    Image.linear_gradient("L").convert("RGB").save(folder / "model" / "examples" / "1.png")
    return folder


@contextmanager
def served(command: list[str], variables: dict[str, str] | None = None) -> Iterator[str]:
    """Start a page in a process of its own; gives its address."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    environment |= variables or {}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    return
            raise AssertionError("no page: " + "".join(lines))
        finally:
            process.terminate()


def classes_in_browser(address: str, image: Path, profile: Path) -> tuple[list[str], set[str]]:
    """Drop an image on the page; the classes listed then, likeliest first, and the hosts that the page asked."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 1000, "height": 700}
        )
        page = browser.new_page()
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(re.sub(r"^(\w+://[^/:]*).*", r"\1", request.url)))
        page.goto(address)
        page.wait_for_selector("text=3 classes: cat, dog, frog")
        page.set_input_files("input[type=file]", image)
        page.wait_for_selector("text=ms for this image")
        classes = [text for text in page.locator("dt").all_inner_texts() if text]
        if os.environ.get("HF_ACCEL_SCREENSHOTS"):
            page.screenshot(path=Path(os.environ["HF_ACCEL_SCREENSHOTS"]) / f"{profile.name}.png")
        browser.close()
    return classes, {host for host in hosts if host.startswith("http")}


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.parametrize("way", ["demo", "space"])
def test_an_image_dropped_on_the_page_gets_the_models_answer(run_folder, tmp_path, way):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    image = run_folder / "model" / "examples" / "1.png"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hf_accel.demo", str(run_folder), "--port", str(port)]
    if way == "space":
        assert demo.main([str(run_folder), "--space", str(tmp_path / "space")]) == 0
        shutil.rmtree(run_folder / "model" / "examples")
        image = tmp_path / "space" / "model" / "examples" / "1.png"
        command = [sys.executable, str(tmp_path / "space" / "app.py")]
    with served(command) as address:
        classes, hosts = classes_in_browser(address, image, tmp_path / way)
    assert classes == likeliest_first(run_folder / "model", image)
    assert hosts == {"http://127.0.0.1"}, "the page asks other machines"


def test_only_this_machine_reaches_the_page_whatever_the_environment_says(run_folder):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    command = [sys.executable, "-m", "hf_accel.demo", str(run_folder)]
    open_to_all = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/",
                   "GRADIO_NODE_SERVER_NAME": "0.0.0.0", "GRADIO_SSR_MODE": "True", "GRADIO_ROOT_PATH": "/x"}  # fmt: skip
    with served(command, open_to_all) as address:
        port = int(address.rsplit(":", 1)[1].strip("/"))
        listening = {c.laddr for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert {host.ip for host in listening if host.port == port} == {"127.0.0.1"}
        secret = urllib.request.Request(f"{address}/gradio_api/file=/etc/hostname")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(secret)
        body = (
            b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
            + bytes(21 << 20)
            + b"\r\n--x--"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        upload = urllib.request.Request(f"{address}/gradio_api/upload", body, headers)
        with pytest.raises(urllib.error.HTTPError, match="413"):
            urllib.request.urlopen(upload)


def likeliest_first(model: Path, image: Path) -> list[str]:
    from transformers import pipeline

    answers = pipeline("image-classification", model=str(model))(str(image))
    return [answer["label"] for answer in answers]


def test_a_space_of_a_local_model_holds_the_weights_and_names_its_versions(run_folder, tmp_path):
    gradio = pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    (run_folder / "model" / "training_args.bin").write_bytes(b"a pickle")
    space = tmp_path / "space"
    assert demo.main([str(run_folder), "--space", str(space)]) == 0
    files = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    assert files == {
        *("app.py", "requirements.txt", "README.md", "model/config.json", "model/model.safetensors"),
        *("model/preprocessor_config.json", "model/examples/1.png"),
    }
    card = (space / "README.md").read_text()
    assert f"sdk_version: {gradio.__version__}" in card
    assert "title: digits" in card
    requirements = (space / "requirements.txt").read_text()
    assert re.search(r"^transformers==\d", requirements, re.MULTILINE)
    assert "hf_accel" not in requirements


def test_json_names_the_space_that_was_written(tmp_path, capsys):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    space = tmp_path / "my space"
    assert demo.main(["someone/model", "--space", str(space), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"space": str(space), "command": f"python '{space}/app.py'"}


def test_json_names_the_address_of_the_page_and_nothing_else(run_folder):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    command = [sys.executable, "-m", "hf_accel.demo", str(run_folder), "--json"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            assert urllib.request.urlopen(document["url"]).status == 200
        finally:
            process.terminate()
            assert process.stdout.read() == ""


def test_a_space_of_a_hub_model_names_it_and_copies_nothing(tmp_path):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    space = tmp_path / "space"
    assert demo.main(["someone/model", "--space", str(space)]) == 0
    assert {path.name for path in space.iterdir()} == {"app.py", "requirements.txt", "README.md"}
    assert "MODEL = 'someone/model'" in (space / "app.py").read_text()
    assert "- someone/model" in (space / "README.md").read_text()


def test_a_space_never_overwrites_a_folder_with_files(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already and is not empty"):
        demo.main([str(run_folder), "--space", str(tmp_path / "full")])


def test_without_gradio_the_message_says_what_to_install(run_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "hf_accel\[demo\]"'):
        demo.main([str(run_folder)])


@pytest.mark.parametrize(("name", "problem"), [("no/such/folder", "no such folder"), (".", "has no model/config.json")])
def test_a_name_that_is_not_a_model_is_refused(tmp_path, monkeypatch, name, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        demo.main([name])


def test_a_model_that_cannot_be_loaded_is_one_message(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="nobody/nothing is not on this machine"):
        demo.main(["nobody/nothing"])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_a_space_of_a_damaged_model_is_refused_and_not_written(content, tmp_path):
    pytest.importorskip("gradio", reason='needs Gradio: pip install "hf_accel[demo]"')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"expected the config of a model\. Nothing was written"):
        demo.main([str(tmp_path / "model"), "--space", str(tmp_path / "space")])
    assert not (tmp_path / "space").exists()
