"""Photographs of 12 megapixels and of 500 pixels, and how fast each way decodes, resizes and crops them on one core.

The photographs are those of `hymenoptera/`, enlarged, with grain, as JPEGs of quality 90. The ways take turns photograph by
photograph in one process.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from benchmarks.session import Session, failure, figures, middle, ratio_cells
from benchmarks.workloads import data_folder
from hf_accel.errors import UserError

SIZES = {"12 megapixels": (4032, 3024), "500 px": (500, 375)}  # width, height
QUICK_SIZES = {"12 megapixels": (600, 400), "500 px": (50, 40)}
WHOLE = "Pillow, decoded whole"
ONLY_RESIZE = "Pillow, decoded whole; torchvision's resize"
OURS = "hf_accel"
WITHOUT_TORCH = "hf_accel, exported model: Pillow alone"
HEADINGS = ("photographs", "way", "images/s on one core", "way / Pillow, decoded whole (95 % interval)", "pairs")
SIDE, SHORT_SIDE = 224, 256
QUICK_SIDE, QUICK_SHORT_SIDE = 32, 36


def write_photographs(folder: str, size: str, count: int, quick: bool) -> dict[str, Any]:
    """Write `0000.jpg`... into a new folder.

    Args:
        size: a key of `SIZES`.
        quick: of random patterns and small.
    """
    Path(folder).mkdir()
    width, height = (QUICK_SIZES if quick else SIZES)[size]
    sources = [] if quick else sorted(data_folder("hymenoptera").rglob("*.jpg"))
    for number in range(count):
        random = np.random.default_rng(number)
        pattern = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        picture = PIL.Image.fromarray(pattern) if quick else PIL.Image.open(sources[number % len(sources)])
        picture = picture.convert("RGB").resize((width, height), PIL.Image.Resampling.BICUBIC)
        grain = random.normal(0, 3, (height, width, 1)).astype(np.float32)
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(Path(folder, f"{number:04}.jpg"), quality=90)
    return {}


def decoding_rows(session: Session, place: str) -> list[tuple[str, ...]]:
    """Measure every way; the photographs are written below `place`."""
    rows = []
    count = 2 if session.quick else 12
    for number, size in enumerate(SIZES):
        folder = str(Path(place, f"photographs-{number}"))

        def measure(round_number: int, size: str = size, folder: str = folder) -> dict[str, Any] | None:
            return session.measure(
                "benchmarks.decoding:rates",
                {"size": size, "count": count, "seconds": 0.1 if session.quick else 20.0, "quick": session.quick},
                lambda: written(session, folder, size, count),
                round_number,
            )

        measured = session.rounds({size: measure})[size]
        why = failure(measured)
        if why is not None:
            rows.append((size, why, "-", "-", "0"))
        whole = figures(measured, WHOLE)
        for way in (WHOLE, ONLY_RESIZE, OURS, WITHOUT_TORCH) if why is None else ():
            values = figures(measured, way)
            rows.append((size, way, middle(values), *ratio_cells(values, whole)))
    return rows


def written(session: Session, folder: str, size: str, count: int) -> dict[str, Any]:
    """The place of the photographs, which are written on the first call.

    Raises:
        UserError: they could not be written.
    """
    if not Path(folder).is_dir():
        arguments = {"folder": folder, "size": size, "count": count, "quick": session.quick}
        result = session.call("benchmarks.decoding:write_photographs", arguments)
        if "error" in result:
            raise UserError(f"the photographs could not be written: {result['error']}")
    return {"folder": folder}


def rates(folder: str, size: str, count: int, seconds: float, quick: bool) -> dict[str, float]:
    """Images/s of every way, on one core."""
    from hf_accel.machine.allocator import keep_freed_memory

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a run; every way gains by it
    files = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    ways = _ways(QUICK_SIDE, QUICK_SHORT_SIDE) if quick else _ways(SIDE, SHORT_SIDE)
    spent = dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way(files[0])
    images, end = 0, time.perf_counter() + seconds
    for encoded in cycle(files):
        for name, way in ways.items():
            start = time.perf_counter()
            way(encoded)
            spent[name] += time.perf_counter() - start
        images += 1
        if time.perf_counter() >= end:
            break
    return {name: images / total for name, total in spent.items()}


def _ways(side: int, short_side: int) -> dict[str, Callable[[bytes], np.ndarray]]:
    """Each makes the (side, side, 3) uint8 pixels of a model with the preprocessing of most networks of timm: bicubic."""
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    from hf_accel.data.images import decode_image
    from hf_accel.inputs.preprocessing import Preprocessing

    config = {"input_size": (3, side, side), "interpolation": "bicubic", "crop_pct": side / short_side}
    preprocessing = Preprocessing.of(TimmWrapperImageProcessor(pretrained_cfg=config))

    def whole(encoded: bytes) -> np.ndarray:
        image = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
        height, width = preprocessing.resized(image.height, image.width)
        top, left = preprocessing.crop_offset(height, width)
        resized = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
        return np.array(resized.crop((left, top, left + side, top + side)))

    def only_resize(encoded: bytes) -> np.ndarray:
        return preprocessing.apply(np.array(PIL.Image.open(io.BytesIO(encoded)).convert("RGB")))

    def ours(encoded: bytes, by: Preprocessing) -> np.ndarray:
        return by.apply(decode_image(encoded, target_side=by.target_side))

    return {
        WHOLE: whole,
        ONLY_RESIZE: only_resize,
        OURS: lambda encoded: ours(encoded, preprocessing),
        WITHOUT_TORCH: lambda encoded: ours(encoded, replace(preprocessing, resizer="pillow")),
    }
