"""Fixtures of the whole suite: real data where it is, tiny data and models made on the spot where it is not."""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start: two test processes share two cores

import numpy as np
import PIL.Image
import pytest
import torch

from hf_accel import terminal
from tests.support.forking import start_fork_server
from tests.support.hub_server import hub  # noqa: F401

torch.set_num_threads(1)  # the models here are tiny: a second thread waits more than it works on a busy machine
DATA = Path(os.environ.get("HF_ACCEL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("kills") and "kills" not in config.getoption("markexpr"):
            item.add_marker(pytest.mark.skip(reason="runs only with -m kills"))
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.skip(reason="needs the Hub"))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the imports made is no garbage: a Trainer collects it several times, which took most of the time of a tiny run."""
    if any(item.get_closest_marker("slow") or item.get_closest_marker("kills") for item in session.items):
        start_fork_server()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_messages() -> Iterator[None]:
    """A run sends the package's log to stderr and a file; the next test finds it as in a new process."""
    _reset_messages()
    yield
    _reset_messages()


def _reset_messages() -> None:
    logger = logging.getLogger("hf_accel")
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    terminal.be_quiet(False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}: set HF_ACCEL_DATA")
    return DATA


def write_photos(place: Path) -> Path:
    """An image folder: two classes that differ in colour, 24 train and 8 test images of varying size."""
    rng = np.random.default_rng(0)
    folder = place / "photos"
    for split, count in (("train", 12), ("test", 4)):
        for label, colour in (("blue", (40, 60, 200)), ("red", (200, 60, 40))):
            target = folder / split / label
            target.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(36, 60, 2)
                noise = rng.integers(-40, 40, (height, width, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                PIL.Image.fromarray(pixels).save(target / f"{number:02}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path)


TINY = {
    "model": {
        "name": "hf_accel/cifar_resnet20",
        "pretrained": False,
        "args": {"depth": 8, "width": 4},
        "channels_last": False,
        "freeze_batch_norm": False,
    },
    "data": {"image_size": 16, "validation": 0.2},
    "training": {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "bf16": False,
    },
}


@pytest.fixture
def tiny_recipe(photos: Path, tmp_path: Path):
    """Make a recipe that trains in a second: `tiny_recipe({"training": {"seed": 1}})`."""
    from hf_accel.config.recipe import apply_patch, load_recipe

    def make(*patches: dict):
        overrides = apply_patch(
            TINY, {"data": {"name": str(photos)}, "training": {"output_dir": str(tmp_path / "run")}}
        )
        for patch in patches:
            overrides = apply_patch(overrides, patch)
        overrides["model"].setdefault("pretrained", False)  # dropped with the name of another model
        return load_recipe("finetune", overrides=overrides)

    return make
