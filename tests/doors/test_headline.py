"""The headline commands, verbatim, in a fresh process that downloads everything from a Hub on this machine."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_contents import fill_for_headline
from tests.support.hub_server import HubServer

pytestmark = pytest.mark.slow

RECIPES = [f"{model}_{data}" for model in ("vit", "resnet50", "efficientnet_b0") for data in ("cifar10", "cifar100")]


@pytest.fixture(scope="module")
def filled_hub(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[HubServer]:
    # Two layers of ViT-B/16 have every kind of tensor that twelve have, and take a sixth of the time.
    with HubServer() as hub:
        fill_for_headline(
            hub, tmp_path_factory.mktemp("served"), data_dir, train_rows=16, test_rows=10, num_hidden_layers=2
        )
        yield hub


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: a run of ResNet50 leaves 700 MB of checkpoints."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_headline_command_downloads_trains_saves_and_reloads(filled_hub, work, recipe):
    command = [sys.executable, "-m", "hf_accel.train", "--recipe", recipe, "--max_steps", "2"]
    done = subprocess.run(command, env=filled_hub.environment(work), cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = work / "outputs" / recipe / "default"
    report = json.loads((folder / "report.json").read_text())
    assert report["train"]["steps"] == 2
    assert report["data"]["test_rows"] == 10

    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder / "model")
    AutoImageProcessor.from_pretrained(folder / "model")
    assert model.config.num_labels == (100 if recipe.endswith("100") else 10)
    assert list(model.config.id2label.values()) == report["data"]["labels"]

    card = (folder / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "base_model_revision: " in card
    assert "- uoft-cs/cifar10" in card
