"""`python -m benchmarks.inputs`: images/s of each way from a stored image to a normalised batch at 224 px, and of decoding.

The yardstick is the chain of the Hugging Face example: PIL and torchvision, one image at a time, on one core. It is
timed from the encoded file and from decoded pixels, because this package decodes once and then only transforms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torchvision.transforms.v2 as tv2
from torch.utils.data import DataLoader, Dataset

from benchmarks import decoding
from benchmarks.decoding import decoding_rows
from benchmarks.hf_script import train_chain
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.workloads import data_folder
from hf_accel.cli import run
from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import ImageSplit, load_splits
from hf_accel.inputs.batches import ImageBatches, TransformedBatches
from hf_accel.inputs.cache import open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.machine.allocator import keep_freed_memory
from hf_accel.machine.probes import now
from hf_accel.training.arguments import accelerator_type
from hf_accel.transforms.pipeline import TrainTransform

DESCRIPTION = """\
Images/s of each input path, random-resized crop and flip to 224 px: from 32-pixel images and from photographs, on one
core and on all, against the PIL chain on one core. And of decoding, resizing and cropping photographs of 12 megapixels and of
500 pixels, against Pillow.

  python -m benchmarks.inputs
  python -m benchmarks.inputs --part decoding"""

HEADINGS = ("images", "cores", "path", "images/s", "per core / PIL from the file, 1 core (95 % interval)",
            "per core / PIL from pixels, 1 core (95 % interval)", "pairs")  # fmt: skip
PIL_FILE, PIL_PIXELS = "PIL chain, from the file", "PIL chain, from decoded pixels"
V2 = "torchvision v2 one by one, from the file"
SIZE = 224
# of a timm model with ImageNet's usual preprocessing; bilinear, as torchvision's and most models' default
DATA_CONFIG = {
    "input_size": (3, SIZE, SIZE),
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("inputs", DESCRIPTION)
    parser.add_argument("--seconds", type=float, help="time given to each path in each round; default 2")
    parser.add_argument("--part", choices=("paths", "decoding"), help="default: both")
    session = open_session(parser, argv)
    part = session.options.part
    cores = session.machine["environment"]["cores"]
    sources = ("digits",) if session.quick else ("cifar10", "hymenoptera")
    rows: list[tuple[str, ...]] = []
    with workplace() as place:
        for source in sources if part != "decoding" else ():
            rows += source_rows(session, source, cores, place)
        decoded = decoding_rows(session, place) if part != "paths" else []
    notes = [
        "every path reads, crops and flips at random, resizes to 224 px, normalises; bilinear; batches of 64 (128 on a GPU)",
        "from the file: decoding included (32 px: lossless WebP or PNG; photographs: JPEG, short side 256); `cache none` "
        "decodes too, the other caches were decoded before",
        "all cores: one loader worker per core for paths that decode, else the threads of one process",
        "one core: the process may run on one core only; on a GPU the transforms run there either way",
        "within a round the paths take turns in one process; rounds are processes of their own; medians",
        "decoding: from the bytes of a JPEG to 224 x 224 uint8 pixels, bicubic to a short side of 256, centre crop; the ways "
        "take turns photograph by photograph",
    ]
    tables = [("Input paths", HEADINGS, rows), ("Decoding", decoding.HEADINGS, decoded)]
    session.write([table for table in tables if table[-1]], notes)
    return 0


def source_rows(session: Session, source: str, cores: int, place: str) -> list[tuple[str, ...]]:
    """Measure one kind of images on one core and on all."""
    seconds = session.options.seconds or (0.05 if session.quick else 2.0)
    measures = {
        name: lambda n, one=one: session.measure(
            "benchmarks.inputs:rates",
            {"source": source, "one_core": one, "seconds": seconds},
            lambda: {"place": place},
            n,
        )
        for name, one in (("1", True), (str(cores), False))
    }
    results = session.rounds(measures)
    yardsticks = [figures(results["1"], name) for name in (PIL_FILE, PIL_PIXELS)]
    rows = []
    for name, measured in results.items():
        why = failure(measured)
        if why is not None:
            rows.append((source, name, why, "-", "-", "-", "0"))
        for path in dict.fromkeys(key for r in measured if r is not None for key in r if key != "error"):
            values = figures(measured, path)
            per_core = [None if value is None else value / int(name) for value in values]
            against = [ratio_cells(per_core, yardstick) for yardstick in yardsticks]
            rows.append((source, name, path, middle(values), against[0][0], against[1][0], against[1][1]))
    return rows


def rates(place: str, source: str, one_core: bool, seconds: float) -> dict[str, float]:
    """Images/s of every path, in this process.

    Args:
        place: a folder for the disk cache, shared by the rounds.
        source: cifar10 or hymenoptera below HF_ACCEL_DATA, or digits.
        one_core: run on one core only.
    """
    workers = _bind(one_core)
    device = torch.device(accelerator_type())
    name = source if source == "digits" else str(data_folder(source))
    settings = {"name": name, "max_train_rows": 2048 if source == "cifar10" else None, "cache_dir": place}
    split = load_splits(DataSettings(**settings), seed=0, selection=False).train
    batch = 64 if device.type == "cpu" else 128
    measured = {path: _rate(make, seconds, device) for path, make in _one_by_one(split, batch, workers).items()}
    augment = AugmentSettings(crop="random_resized", flip=True)
    preprocessing = _preprocessing()
    if device.type == "cpu":
        keep_freed_memory()  # as in a run; the chains above had the allocator as it comes
    same_size = len({split.read(row).shape for row in range(min(len(split), 50))}) == 1
    caches = ["none", "disk", "memory", *(["device"] if same_size and device.type != "cpu" else [])]
    for cache in caches:
        data = DataSettings(**settings, cache=cache, augment=augment)
        pixels = open_training_pixels(split, data, preprocessing, device)
        transform = TrainTransform(augment, preprocessing, 2, seed=0, channels_last=True)
        batches = ImageBatches(split, pixels)
        use = workers if cache == "none" else 0
        path = f"hf_accel, cache {cache}"
        measured[path] = _rate(lambda b=batches, t=transform, u=use: _ours(b, t, batch, u, device), seconds, device)
    return measured


def _bind(one_core: bool) -> int:
    """Keep this process to one core, or leave it all; returns the loader workers for paths that decode."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if not one_core:
        torch.set_num_threads(len(cores))
        return len(cores)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores[-1]})
    torch.set_num_threads(1)
    return 0


def _preprocessing() -> Preprocessing:
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    return Preprocessing.of(TimmWrapperImageProcessor(pretrained_cfg={**DATA_CONFIG, "crop_pct": 0.875}))


class OneByOne(Dataset):
    """Images of a split through a chain, one at a time."""

    def __init__(self, read: Callable[[int], Any], chain: Callable[[Any], torch.Tensor], num_rows: int) -> None:
        self.read, self.chain, self.num_rows = read, chain, num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.chain(self.read(row))


def _one_by_one(split: ImageSplit, batch: int, workers: int) -> dict[str, Callable[[], Iterator[torch.Tensor]]]:
    """The chains of torchvision, each as a function that begins a pass over the images."""
    decoded = [PIL.Image.fromarray(np.ascontiguousarray(split.read(row))) for row in range(min(len(split), 256))]
    v2 = tv2.Compose(
        [
            tv2.ToImage(),
            tv2.RandomResizedCrop(SIZE, antialias=True),
            tv2.RandomHorizontalFlip(),
            tv2.ToDtype(torch.float32, scale=True),
            tv2.Normalize(DATA_CONFIG["mean"], DATA_CONFIG["std"]),
        ]
    )
    chain = train_chain(DATA_CONFIG)
    sets = {
        PIL_FILE: OneByOne(lambda row: PIL.Image.fromarray(split.read(row)), chain, len(split)),
        PIL_PIXELS: OneByOne(decoded.__getitem__, chain, len(decoded)),
        V2: OneByOne(split.read, v2, len(split)),
    }
    return {
        name: lambda s=images: iter(
            DataLoader(s, batch, shuffle=True, num_workers=workers, multiprocessing_context=_context(workers))
        )
        for name, images in sets.items()
    }


def _ours(
    batches: ImageBatches, transform: TrainTransform, batch: int, workers: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Batches as the Trainer gets them; with workers and no GPU the workers transform, too."""
    in_worker = workers > 0 and device.type == "cpu"
    loader = DataLoader(
        TransformedBatches(batches, transform) if in_worker else batches,
        batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        multiprocessing_context=_context(workers),
    )
    for read in loader:
        if in_worker:
            yield read["pixel_values"]
        else:
            moved = {name: value.to(device, non_blocking=True) for name, value in read.items()}
            yield transform(batches.complete(moved))["pixel_values"]


def _as_it_is(batch: Any) -> Any:
    return batch


def _context(workers: int) -> str | None:
    return "fork" if workers and Path("/proc").is_dir() else None  # closures do not travel to a spawned worker


def _rate(begin: Callable[[], Iterator[torch.Tensor]], seconds: float, device: torch.device) -> float:
    """Images/s after the first three batches, passes joined; the start of a pass counts, as in a run."""
    images, start = 0, 0.0
    seen = 0
    while True:
        for batch in begin():
            seen += 1
            if seen <= 3:
                start = now(device)
                continue
            images += len(batch)
            if time.perf_counter() - start >= seconds:
                return images / (now(device) - start)


if __name__ == "__main__":
    raise SystemExit(run(main))
