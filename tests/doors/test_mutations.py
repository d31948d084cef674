"""Damaged runs and command lines at random: every command ends with an exit code and a message, never with a traceback.

HF_ACCEL_MUTATIONS is the number of cases, for example 10000 by hand; MUTATION_SEED chooses others.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path

import pytest

from hf_accel import cli, compare, compress, demo, evaluate, page, push, recipe, train
from hf_accel.errors import UserError
from tests.conftest import write_photos

pytestmark = pytest.mark.slow

predict = import_module("hf_accel.predict")  # hf_accel.predict is the function

COUNT = int(os.environ.get("HF_ACCEL_MUTATIONS", "0"))
SEED = int(os.environ.get("MUTATION_SEED", "0"))
FILES = ("recipe.yaml", "report.json", ".hf_accel.json", "predictions.csv", "history.csv", "model/config.json",
         "model/model.safetensors", "model/README.md", "model/notebook.ipynb")  # fmt: skip
ODD = [
    None,
    True,
    -1,
    0,
    3.5,
    1e400,
    "",
    "x",
    "\0",
    "\ud800",
    "../../x",
    "a" * 5000,
    [],
    [1],
    {},
    {"a": 1},
    {"1": "x"},
    "=x()",
]
WORDS = [
    *(
        "",
        " ",
        "-",
        "--",
        "---",
        "-h",
        "=",
        "--=",
        "--x",
        "--seed",
        "--seed=",
        "--seed=1",
        "--seed=x",
        "1",
        "-1",
        "1e9",
        "\0",
    ),
    *(
        "--recipe",
        "digits",
        "--recipe=",
        "--recipe=/",
        "nothing",
        "--variant",
        "baseline",
        "--variant=all",
        "--overwrite",
    ),
    *(
        "--overwrite=1",
        "--data.name",
        "--data.name=digits",
        "--data",
        "--data.=1",
        "--.=",
        "--data.augment.flip=true",
        "./x",
    ),
    *(
        "--model.name=",
        "--model.args={a: 1}",
        "--model.args=[",
        "--training.seed=1",
        "--bf16",
        "--bf16=maybe",
    ),
    *(
        "--output_dir=/dev/null/x",
        "--output_dir=",
        "--output_dir",
        "--learning_rate=nan",
        "--max_steps=-5",
        "--split",
        "test",
    ),
    *(
        "--split=x",
        "--format",
        "json",
        "--format=x",
        "--top_k",
        "--top_k=0",
        "--batch_size=-1",
        "--batch_size=x",
        "--repeats",
    ),
    *(
        "--repeats=0",
        "--repeats=x",
        "--variants",
        "baseline",
        "fp16",
        "all",
        "--port=x",
        "--port=99999",
        "--space",
        "--private",
    ),
    *(
        "--hub_model_id=a/b/c",
        "--revision=",
        "list",
        "show",
        "validate",
        "copy",
        "schema",
        "--format=markdown",
        "'",
        '"',
        "%s",
    ),
    *("--resume_from_checkpoint=true", "--resume_from_checkpoint=./x", "--gradient_accumulation_steps=0", "é" * 300),
]
DOORS = {"train": train, "evaluate": evaluate, "predict": predict, "compare": compare, "recipe": recipe, "page": page,
         "compress": compress, "push": push, "demo": demo}  # fmt: skip


def count(default: int) -> int:
    return COUNT or default


def code_of(words: list[str]) -> int:
    """The exit code of a command; argparse ends with SystemExit."""
    try:
        return cli.main(words)
    except SystemExit as ended:
        return ended.code


def outcome(words: list[str], capsys) -> tuple[int | None, str]:
    """The exit code, and what is wrong with how the command ended."""
    try:
        code = code_of(words)
    except BaseException as error:
        return None, "".join(traceback.format_exception(error)[-4:])
    shown = capsys.readouterr()
    if "Traceback" in shown.err:
        return code, shown.err
    if code not in (0, 1, 2) or (code and not (shown.err + shown.out).strip()):
        return code, f"exit code {code}: {shown.err}"
    return code, ""


def damaged(content: bytes, name: str, dice: random.Random) -> bytes:
    """A file with one value, some bytes or its end changed."""
    kind = dice.randrange(6)
    if kind <= 2 and name.endswith(("json", "ipynb")):
        values = json.loads(content)
        change_one(values, dice)
        return json.dumps(values).encode("utf-8", "surrogatepass")
    if kind == 3:
        return content[: dice.randrange(len(content))]
    if kind == 4:
        return dice.choice(
            [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"\0" * 100, b"[" * 5000, b"x: &a [*a]", content * 2]
        )
    damage = bytearray(content)
    for _ in range(dice.choice([1, 1, 3, 20])):
        damage[dice.randrange(min(len(damage), 3000))] = dice.randrange(256)
    return bytes(damage)


def change_one(values, dice: random.Random) -> None:
    """Replace, remove or add a value somewhere in nested dictionaries and lists, in place."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(values[key], dict | list) and values[key] and dice.random() < 0.7:
            values = values[key]
            continue
        if dice.random() < 0.25:
            del values[key]
        elif dice.random() < 0.15 and isinstance(values, dict):
            values["zz"] = dice.choice(ODD)
        else:
            values[key] = dice.choice(ODD)
        return


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("damaged")
    photos = write_photos(place)
    words = {"data.name": photos, "output_dir": place / "run", "model.name": "hf_accel/cifar_resnet20",
             "model.pretrained": "false", "model.args": "{depth: 8, width: 4}", "data.image_size": 16,
             "num_train_epochs": 1, "bf16": "false", "data.cache": "none"}  # fmt: skip
    assert code_of(["train", *(f"--{name}={value}" for name, value in words.items())]) == 0
    return place / "run", photos / "test" / "red" / "00.png"


def test_a_damaged_run_is_scored_or_refused_in_words(finished, capsys, monkeypatch):
    folder, photo = finished
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commands = {
        "evaluate": ["evaluate", str(folder)],
        "predict": ["predict", str(folder), str(photo)],
        "page": ["page", str(folder)],
        "push": ["push", str(folder), "--hub_model_id", "a/b"],
        "demo": ["demo", str(folder), "--space", str(folder.parent / "space")],
        "train": ["train", "--model.name", str(folder), "--data.name", "nowhere/at/all"],
        "longer": ["train", "--recipe", str(folder / "recipe.yaml"), "--output_dir", str(folder)],
    }
    dice, failures, outcomes = random.Random(SEED), [], {}
    sound = {folder / name: (folder / name).read_bytes() for name in FILES}
    for number in range(count(60)):
        name, command = dice.choice(FILES), dice.choice(list(commands))
        content = damaged(sound[folder / name], name, dice)
        (folder / name).write_bytes(content)
        code, problem = outcome(commands[command], capsys)
        outcomes[command, code] = outcomes.get((command, code), 0) + 1
        if problem:
            failures.append(f"case {number}: {command} with {name}: {problem}")
        for path, before in sound.items():
            path.write_bytes(before)
        shutil.rmtree(folder.parent / "space", ignore_errors=True)
    print(sorted(outcomes.items(), key=str))
    assert not failures, "\n\n".join(failures[:20])


@pytest.fixture
def no_work(monkeypatch):
    """Commands that stop where their words are understood: nothing is trained, scored, loaded or sent."""

    def stop(*_, **__):
        raise UserError("understood")

    for module, name in ((train, "train"), (evaluate, "evaluate"), (predict, "classify")):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr("hf_accel.compression.compress.compress", stop)
    monkeypatch.setattr("hf_accel.comparison.plan.Plan", stop)


def random_words(dice: random.Random) -> list[str]:
    words = [dice.choice(list(DOORS)), *(dice.choice(WORDS) for _ in range(dice.randrange(6)))]
    if dice.random() < 0.05:
        words[0] = dice.choice(WORDS)
    return words


def test_any_command_line_is_understood_or_refused(no_work, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dice, failures, outcomes = random.Random(SEED), [], {}
    for _ in range(count(300)):
        words = random_words(dice)
        code, problem = outcome(words, capsys)
        outcomes[code] = outcomes.get(code, 0) + 1
        if problem:
            failures.append(f"{words}: {problem}")
    print(outcomes)
    assert not failures, "\n\n".join(failures[:20])
    assert outcomes[2]


@pytest.mark.parametrize("seed", range(max(1, min(COUNT // 200, 50))))
def test_any_command_line_of_a_process_of_its_own_is_understood_or_refused(seed, tmp_path):
    dice = random.Random(1000 * SEED + seed)
    words = [word for word in random_words(dice) if "\0" not in word]
    words = [word for word in words if "digits" not in word] + ["--nothing=1"]  # nothing is trained
    done = subprocess.run(
        [sys.executable, "-m", "hf_accel", *words], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode in (0, 2), (words, done.stderr)
    assert "Traceback" not in done.stderr, words
    assert not list(Path(tmp_path).iterdir())
