"""The README's commands are run, in tiny form, as they stand there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_accel.cli import COMMANDS, command_parser, parse_with_overrides
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import load_recipe, shipped_recipes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMAND_LINES = [line for line in SHELL if re.match(r"(hf-accel|accelerate launch)", line)]


def test_the_first_screen_trains_on_the_readers_own_images_and_shows_the_page():
    screen = "\n".join(README.splitlines()[:40])
    assert COMMAND_LINES[0] == "hf-accel train ./photos"
    assert COMMAND_LINES[0] in screen
    (image,) = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", screen)
    assert (ROOT / image).stat().st_size < 200_000
    assert "no figure for a GPU exists yet" in screen


def test_every_document_of_docs_is_linked_from_the_readme():
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in README, path.name


def test_every_verb_and_recipe_that_the_documents_name_exists():
    texts = [README, *(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))]
    texts += [path.read_text("utf-8") for path in (ROOT / "hf_accel").rglob("*.py")]
    for text in texts:
        for verb in re.findall(r"hf-accel ([a-z]+)\b", text):
            assert verb in (*COMMANDS, "verb", "help", "version"), verb
        for names in re.findall(r"(?:hf-accel|-m hf_accel\.)\s?[a-z]+ +--recipe ((?:[a-z]\w+(?![\w./]) ?)+)", text):
            assert set(names.split()) <= set(shipped_recipes()), names


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if " train " in line or "hf_accel.train" in line])
def test_the_flags_of_a_training_command_are_accepted(line):
    words = shlex.split(line.split("&&")[-1])
    arguments = words[next(i for i, word in enumerate(words) if word in ("train", "hf_accel.train")) + 1 :]
    parser = command_parser("train", "")
    parser.add_argument("data", nargs="?")
    for name in ("--recipe", "--variant"):
        parser.add_argument(name)
    known, flags = parse_with_overrides(parser, arguments, check=overrides_from_flags)
    recipe = "resnet20_cifar10" if str(known.recipe).endswith(".yaml") else known.recipe
    load_recipe(recipe or "finetune", known.variant, overrides_from_flags(flags))


def test_ci_installs_and_tests_with_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    second = next(line for line in SHELL if "pytest" in line)
    for part in second.split(" && "):
        assert part.strip() in script, part


def test_the_main_command_then_evaluate_predict_and_the_python_block_run(tmp_path):
    first = next(line for line in SHELL if "--recipe digits" in line)
    train = first.split(" && ")[-1].replace(".venv/bin/hf-accel", f"{sys.executable} -m hf_accel.cli")
    python = next(block for kind, block in BLOCKS if kind == "python" and "build_trainer" in block)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(command):
        return subprocess.run(
            shlex.split(command), cwd=tmp_path, check=True, capture_output=True, text=True, env=environment
        ).stdout

    # 8 steps each, of which the first 3 are not measured
    assert "test" in run(f"{train} --max_steps 8")
    Image.new("RGB", (40, 30), "white").save(tmp_path / "photo.png")
    (tmp_path / "block.py").write_text(python.replace('"num_train_epochs": 3', '"max_steps": 8'))
    accuracy, label, measured = run(f"{sys.executable} block.py").split("\n")[:3]
    assert 0 <= float(accuracy) <= 1
    assert label in "0123456789"
    assert all(float(figure) > 0 for figure in measured.split())
    evaluate = next(line for line in COMMAND_LINES if line.startswith("hf-accel evaluate"))
    assert "accuracy" in run(evaluate.replace("hf-accel", f"{sys.executable} -m hf_accel.cli", 1))
