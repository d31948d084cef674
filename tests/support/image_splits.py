"""Splits made of pixels that a test knows."""

import io

import datasets
import numpy as np
import PIL.Image
import pytest
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import ImageSplit
from hf_accel.inputs import disk_cache
from hf_accel.inputs.cache import open_pixels


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors are slower in two threads, and a hundred times slower when other processes hold the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_split(images: list[np.ndarray], format: str = "PNG", fingerprint: str = "made") -> ImageSplit:
    """A split of these (H, W, 3) uint8 images; row n has label n % 3."""
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, format=format)
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    labels = np.arange(len(images)) % 3
    table = datasets.Dataset.from_dict(
        {"image": encoded, "label": labels}, features=datasets.Features(
            {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
        )
    )  # fmt: skip
    return ImageSplit(table, "image", labels, ["a", "b", "c"], "made, train split", fingerprint)


def noise(*shapes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


SMALL = [(32, 32)] * 24
VARIED = [(40 + n, 90 - n) for n in range(24)]


def open_in_process(folder: str, barrier, results) -> None:
    """Open a disk cache when all are ready, in a spawned process: it imports this file and not the tests."""
    settings = DataSettings(name="made", cache="disk", cache_dir=folder)
    builds = []
    build = disk_cache._build
    disk_cache._build = lambda *args: (builds.append(1), build(*args))
    split = make_split(noise(*VARIED))
    barrier.wait()
    store = open_pixels(split, settings, short_side=40, preprocessing=None)
    results.put((len(builds), int(store.batch(np.arange(len(VARIED)))[0].sum())))
