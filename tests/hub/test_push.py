"""Pushing a finished run with the real client to a Hub on this machine that works, fails or is away."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id

from hf_accel import push
from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError
from hf_accel.hub import push as hf_hub
from hf_accel.hub.card import write_card, write_notebook
from hf_accel.report.finished_run import FinishedRun
from tests.support.hub_contents import write_run
from tests.support.hub_server import TOKEN, HubServer

EXPECTED_FILES = {
    *("README.md", "notebook.ipynb", "config.json", "model.safetensors", "preprocessor_config.json"),
    *("report.json", "recipe.yaml", "history.csv", "confusion.svg", ".gitattributes"),
}


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = write_run(tmp_path / "outputs" / "run")
    (folder / "confusion.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><g></g></svg>", encoding="utf-8")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces sleeping; gives the seconds that each sleep was to last."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def push_here(hub: HubServer, monkeypatch: pytest.MonkeyPatch, folder: Path, **options: object) -> hf_hub.PushResult:
    hub.use_here(monkeypatch)
    return hf_hub.push_run(FinishedRun.read(folder), hub_model_id="tester/pushed", **options)


def test_a_push_uploads_what_the_allow_list_names_and_no_pickle(hub, run_folder, monkeypatch):
    for name in ("training_args.bin", "optimizer.pt", "model.pkl", "notes.txt"):
        (run_folder / "model" / name).write_bytes(b"\x80\x04 a pickle")
    (run_folder / "checkpoint-30").mkdir()
    (run_folder / "checkpoint-30" / "model.safetensors").write_bytes(b"old")
    (run_folder / "log.txt").write_text("a log")
    result = push_here(hub, monkeypatch, run_folder)
    assert result.error is None
    assert set(hub.files("tester/pushed")) == EXPECTED_FILES
    assert hub.files("tester/pushed")["model.safetensors"] == (run_folder / "model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_pushed_model_gives_the_same_logits_in_a_fresh_process(hub, run_folder, tmp_path, monkeypatch):
    assert push_here(hub, monkeypatch, run_folder).error is None
    code = (
        "import json, sys, torch; from transformers import AutoImageProcessor, AutoModelForImageClassification as M;"
        "from PIL import Image; torch.set_num_threads(1);"
        "p = AutoImageProcessor.from_pretrained(sys.argv[1]); m = M.from_pretrained(sys.argv[1]);"
        "x = p(Image.linear_gradient('L').convert('RGB'), return_tensors='pt');"
        "print(json.dumps([m(**x).logits.tolist(), m.config.id2label]))"
    )

    def logits(model: str) -> list:
        command = [sys.executable, "-c", code, model]
        done = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    assert logits("tester/pushed") == logits(str(run_folder / "model"))


@pytest.mark.parametrize("failure", [{"status": 409, "pattern": "/commit/"}, {"status": 429, "retry_after": 3},
                                     {"status": 500}, {"status": None, "pattern": "^PUT"},
                                     {"status": None, "pattern": "/commit/"}], ids=str)  # fmt: skip
def test_a_hub_that_fails_twice_is_asked_again(hub, run_folder, monkeypatch, quick, failure):
    hub.fail(**failure, times=2)
    result = push_here(hub, monkeypatch, run_folder)
    assert result.error is None
    assert set(hub.files("tester/pushed")) == EXPECTED_FILES
    assert sum(quick) >= (6 if failure["status"] == 429 else 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"status": 401}, "answered 401: the token is missing or not valid. Log in with `hf auth login`"),
        ({"status": 403}, "answered 403: the token may not write there"),
        ({"status": 409, "pattern": "/commit/"}, "answered 409: another commit came in between"),
        ({"status": 429, "retry_after": 3600}, "answered 429: too many requests"),
        ({"status": 500}, "answered 500"),
        ({"status": None, "pattern": "^PUT"}, "did not answer"),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else "",
)
def test_a_push_that_fails_for_good_says_why_and_the_printed_command_finishes_it(
    hub, run_folder, monkeypatch, quick, capsys, failure, reason
):
    hub.fail(**failure)
    result = push_here(hub, monkeypatch, run_folder, private=True)
    assert reason in result.error
    assert f"hf-accel push {run_folder} --hub_model_id tester/pushed --private" in str(result)
    assert sum(quick) < 300

    hub.heal()
    assert push.main(result.command.split()[2:]) == 0
    assert "pushed 9 files" in capsys.readouterr().out
    assert set(hub.files("tester/pushed")) == EXPECTED_FILES
    assert hub.repositories["model", "tester/pushed"].private


def test_a_401_is_not_tried_again(hub, run_folder, monkeypatch, quick):
    hub.fail(401)
    push_here(hub, monkeypatch, run_folder)
    assert [request for request, _ in hub.requests].count("POST /api/repos/create") == 1
    assert quick == []


def test_a_push_that_fails_gives_exit_code_1_and_leaves_the_folder_as_it_was(hub, run_folder, monkeypatch, capsys):
    hub.use_here(monkeypatch)
    write_card(FinishedRun.read(run_folder))
    write_notebook(FinishedRun.read(run_folder))
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    hub.fail(401)
    assert push.main([str(run_folder)]) == 1
    assert "not pushed" in capsys.readouterr().out
    assert push.main([str(run_folder), "--json"]) == 1
    assert "answered 401" in json.loads(capsys.readouterr().out)["error"]
    after = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.name != ".lock"} == before


def test_offline_mode_is_not_asked_and_the_message_says_so(hub, run_folder, monkeypatch, quick):
    hub.use_here(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = hf_hub.push_run(FinishedRun.read(run_folder), hub_model_id="tester/pushed")
    assert "HF_HUB_OFFLINE is set" in result.error
    assert quick == []


def test_a_second_push_replaces_weights_that_were_split_otherwise_and_keeps_other_files(hub, run_folder, monkeypatch):
    assert push_here(hub, monkeypatch, run_folder).error is None
    pushed = run_folder.parent / "first"
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "NOTES.md"):
        (pushed / name).parent.mkdir(exist_ok=True)
        (pushed / name).write_text("{}")
    hub.add_model("tester/pushed", pushed)
    assert push_here(hub, monkeypatch, run_folder).error is None
    assert set(hub.files("tester/pushed")) == EXPECTED_FILES - {".gitattributes"} | {"NOTES.md"}


def test_a_push_to_a_revision_makes_the_branch_and_leaves_main_alone(hub, run_folder, monkeypatch):
    assert push_here(hub, monkeypatch, run_folder, revision="v2").error is None
    assert set(hub.files("tester/pushed", "v2")) == EXPECTED_FILES
    assert set(hub.files("tester/pushed")) == {".gitattributes"}


def test_without_an_id_the_repository_is_named_after_the_recipe(hub, run_folder, monkeypatch):
    hub.use_here(monkeypatch)
    name = "tester/digits-vit-tiny-cifar10"  # model and data came from the command line
    assert hf_hub.push_run(FinishedRun.read(run_folder)).repo_id == name
    card = hub.files(name)["README.md"].decode()
    assert f'model="{name}"' in card
    assert "path/to/this/folder" not in card
    notebook = hub.files(name)["notebook.ipynb"].decode()
    assert f'"MODEL = \\"{name}\\"\\n"' in notebook


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({}, "digits"),
        ({"data": {"name": "./mes photos d'été"}}, "digits-mes-photos-d-t"),
        ({"data": {"name": "a" * 200}}, f"digits-{'a' * 89}"),
        ({"model": {"name": "timm/resnet50..a1--in1k"}}, "digits-resnet50.a1-in1k"),
    ],
)
def test_a_default_name_is_one_that_the_hub_takes(overrides, name):
    found = hf_hub.repository_name(load_recipe("digits", overrides=overrides))
    assert found == name
    validate_repo_id(found)


def test_no_uploaded_byte_holds_the_token_or_a_folder_of_this_machine(hub, tmp_path, monkeypatch):
    """The canaries stand in each place a run could carry them from; every byte of every request is searched."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "canary home"
    data, model, teacher = (home / "canary_work" / name for name in ("my_photos", "base", "large"))
    data.mkdir(parents=True)
    model.mkdir()
    teacher.mkdir()
    monkeypatch.setenv("HOME", str(home))
    hub.use_here(monkeypatch)
    folder = write_run(home / "canary_work" / "run", data_name=str(data), model_name=str(model), hub_token=TOKEN)
    load_recipe(folder / "recipe.yaml", overrides={"model": {"teacher": str(teacher)}}).write(folder / "recipe.yaml")
    report = json.loads((folder / "report.json").read_text())
    typed = f"--data.name canary_work/my_photos --model.name canary_work/base --output_dir {folder}"
    typed += " --model.teacher canary_work/large"
    report["environment"]["command"] = f"hf-accel train --hub_token {TOKEN} {typed}"
    report["notes"] += [
        f"read from {data}",
        "teacher: canary_work/large",
        f"token {TOKEN}",
        "cached in /mnt/canary_disk/cache",
    ]
    report["settings"] |= {"hub_token": TOKEN, "logging_dir": f"{home}/canary_work/logs"}
    report["data"]["skipped"] = [f"{data}/cat/broken 1.jpg: truncated"]
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "confusion.svg").write_text(f"<svg><!-- {folder} --></svg>")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | {"_name_or_path": str(model)}))

    assert hf_hub.push_run(FinishedRun.read(folder), hub_model_id="tester/pushed", token=TOKEN).error is None
    sent = b"".join(body for _, body in hub.requests) + b"".join(hub.files("tester/pushed").values())
    for canary in (TOKEN, "canary_work", "canary home", "canary_disk", str(tmp_path)):
        assert canary.encode() not in sent
    local = "".join((folder / "model" / name).read_text() for name in ("README.md", "notebook.ipynb"))
    assert "canary" not in local.lower()
    pushed = json.loads(hub.files("tester/pushed")["report.json"])
    assert pushed["data"]["skipped"] == ["my_photos/cat/broken 1.jpg: truncated"]
    assert pushed["data"]["labels"] == ["cat", "dog", "frog"]


def test_an_error_message_of_the_hub_never_shows_the_token(hub, run_folder, monkeypatch):
    hub.use_here(monkeypatch)
    monkeypatch.setattr(hf_hub.HfApi, "create_repo", lambda *a, **k: (_ for _ in ()).throw(ValueError(f"bad {TOKEN}")))
    monkeypatch.setattr(hf_hub, "WAITS_SECONDS", ())
    assert TOKEN not in str(hf_hub.push_run(FinishedRun.read(run_folder), hub_model_id="tester/pushed"))


def test_a_folder_that_is_not_a_finished_run_is_refused_with_the_names_of_the_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"report\.json, recipe\.yaml, model/config\.json not found"):
        FinishedRun.read(tmp_path)


@pytest.mark.parametrize(
    ("hub_model_id", "token", "role", "status", "problem"),
    [
        ("tester/pushed", TOKEN, "write", None, None),
        (None, TOKEN, "write", None, None),
        ("tester/pushed", None, "write", None, "no token was found"),
        ("tester/pushed", TOKEN, "read", None, "may only read"),
        ("someone-else/pushed", TOKEN, "write", None, "may not write to someone-else"),
        ("not a name", TOKEN, "write", None, "is not a name of a repository"),
        ("tester/pushed", TOKEN, "write", 401, "answered 401"),
        ("tester/pushed", TOKEN, "write", 500, "answered 500"),
    ],
)
def test_a_problem_that_would_stop_a_push_is_known_before_training(
    hub, tmp_path, monkeypatch, hub_model_id, token, role, status, problem
):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.use_here(monkeypatch, token=token)
    hub.role = role
    if status:
        hub.fail(status, pattern="whoami")
    found = hf_hub.hub_problem(hub_model_id)
    assert found == problem if problem is None else problem in found


def test_an_unreachable_hub_is_a_warning_before_training(run_folder, monkeypatch, caplog, hub):
    hub.use_here(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    recipe = load_recipe("digits", overrides={"training": {"push_to_hub": True, "hub_strategy": "checkpoint"}})
    hf_hub.warn_early(recipe)
    assert "http://127.0.0.1:9 did not answer" in caplog.text
    assert "pickles" in caplog.text
    caplog.clear()
    hf_hub.warn_early(load_recipe("digits"))
    assert caplog.text == ""


def test_a_run_that_did_not_ask_for_a_push_is_not_pushed(hub, run_folder, monkeypatch):
    hub.use_here(monkeypatch)
    run = FinishedRun.read(run_folder)
    assert hf_hub.push_if_asked(run) is None
    assert hub.requests == []
    training = run.recipe.training | {"push_to_hub": True, "hub_model_id": "tester/asked"}
    asked = replace(run, recipe=replace(run.recipe, training=training))
    assert hf_hub.push_if_asked(asked).error is None
    assert "model.safetensors" in hub.files("tester/asked")
