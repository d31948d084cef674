"""Class names are text from outside: a run with the worst of them ends as any other, and shows them as they are."""

import html
import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from transformers import AutoConfig

from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder

pytestmark = pytest.mark.slow

NAMES = ["$x^2$", "1 $ and $2", "a_b_c", "50% {}", "back\\slash\\$", "cat \N{CAT FACE}", "\u732b", "=cmd()", "two\nlines",
         "<b>bold", "\x1b[2Jclear"]  # fmt: skip


def test_a_run_with_hostile_class_names_ends_well_and_shows_them(tiny_recipe, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in NAMES:
            folder = tmp_path / "names" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    recipe = tiny_recipe({"data": {"name": str(tmp_path / "names"), "validation": 0.25}})
    recipe.write(tmp_path / "recipe.yaml")
    command = [
        sys.executable,
        "-m",
        "hf_accel.train",
        "--recipe",
        tmp_path / "recipe.yaml",
        "--output_dir",
        tmp_path / "run",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=300)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said[-3000:]
    assert "not written" not in said
    assert "\x1b[2J" not in said
    assert "Warning" not in said
    run = RunFolder(tmp_path / "run")
    assert sorted(RunReport.load(run.path).data.labels) == sorted(NAMES)
    assert sorted(AutoConfig.from_pretrained(run.model).id2label.values()) == sorted(NAMES)
    page = run.page.read_text(encoding="utf-8")
    card = run.card.read_text(encoding="utf-8")
    shown = re.sub(r"\s+", " ", page)
    for name in ("$x^2$", "a_b_c", "50% {}", "cat \N{CAT FACE}", "=cmd()", "back\\slash\\$"):
        assert html.escape(name) in shown
    assert "<b>bold" not in page
    assert html.escape("<b>bold") in page
    assert "<b>bold" not in card
    for plot in run.plots.iterdir():
        ElementTree.parse(plot)  # a control character would make it no XML
    assert "\x1b" not in page + card + run.log.read_text(encoding="utf-8")
    assert len(list(run.plots.iterdir())) >= 4
    assert len(run.predictions.read_text().splitlines()) == 1 + 2 * len(NAMES)
    assert json.loads(run.notebook.read_text())["cells"]
