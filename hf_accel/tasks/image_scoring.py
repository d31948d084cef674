"""Images, of files or in memory -> the probabilities of the classes, one by one and in their order.

Images are read and resized by threads while the model computes. Only a few batches of finished images are held at a time,
however many images there are, and an image that cannot be read is a result like any other.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hf_accel.data.images import MAX_PIXELS, UnreadableImageError, decode_image
from hf_accel.data.urls import fetch_image, is_url
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import MOST_ENLARGED, Preprocessing
from hf_accel.models.load import LoadedModel
from hf_accel.transforms.views import mean_logits

# A file, a URL, the bytes of a file, an image, or its pixels (H, W, 3) uint8 RGB.
ImageSource = Path | str | bytes | PIL.Image.Image | np.ndarray
MOST_THREADS = 4  # each may hold a photograph of hundreds of megabytes
_BATCHES_AHEAD = 2

Inputs = dict[str, Tensor]  # of one image: pixel_values (1, 3, H, W) and what else a processor makes
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class ScoredImage:
    """The answer for one image."""

    position: int  # among the images that were given, from 0
    source: ImageSource
    probabilities: np.ndarray | None = None  # (C,) float32, in the order of the model's classes; None: unreadable
    error: UnreadableImageError | None = None  # why there are none


def score_images(
    loaded: LoadedModel,
    sources: Iterable[ImageSource],
    batch_size: int = 32,
    test_time_augmentation: str = "none",
    max_pixels: int | None = MAX_PIXELS,
) -> Generator[ScoredImage, None, None]:
    """Classify images with the model's own image processor.

    Args:
        loaded: the model, which computes on the device that it is on.
        sources: may be endless: they are taken as they are needed, a few batches ahead.
        batch_size: the most images in a forward pass.
        test_time_augmentation: as `data.test_time_augmentation`.
        max_pixels: width x height from which an image counts as unreadable; None: any size.
    Yields:
        One answer for each source, in their order, as soon as its batch is done.
    """
    prepare = _Preparation(loaded, max_pixels)
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        prepared = _ahead(pool, prepare, enumerate(sources), _BATCHES_AHEAD * batch_size)
        with contextlib.closing(prepared):
            for group in _groups(prepared, batch_size):
                yield from _answers(loaded, group, test_time_augmentation)


@dataclass(frozen=True)
class _Prepared:
    position: int
    source: ImageSource
    inputs: Inputs | None
    error: UnreadableImageError | None = None


class _Preparation:
    """Position and source of an image -> the model's inputs; called by several threads."""

    def __init__(self, loaded: LoadedModel, max_pixels: int | None) -> None:
        self.processor = loaded.processor
        self.max_pixels = max_pixels
        self._reading: Preprocessing | None = None
        self._is_read = False
        self._lock = threading.Lock()

    def __call__(self, item: tuple[int, ImageSource]) -> _Prepared:
        position, source = item
        try:
            return _Prepared(position, source, self._inputs(pixels_of(source, self.max_pixels)))
        except UnreadableImageError as error:
            return _Prepared(position, source, None, error)

    def _inputs(self, pixels: np.ndarray) -> Inputs:
        short, long = sorted(pixels.shape[:2])
        reading = self._preprocessing() if long > MOST_ENLARGED * short else None
        if reading is not None:
            return {"pixel_values": torch.from_numpy(reading.pixel_values(pixels))[None]}
        return dict(self.processor(images=[PIL.Image.fromarray(pixels)], return_tensors="pt"))

    def _preprocessing(self) -> Preprocessing | None:
        """How to make the crop of a strip alone, since the whole of it would take gigabytes; None: the processor must."""
        with self._lock:
            if not self._is_read:
                self._is_read = True
                with contextlib.suppress(UserError):  # it can classify, if not be fine-tuned
                    reading = Preprocessing.of(self.processor)
                    self._reading = reading if reading.processor is None else None
            return self._reading


def pixels_of(source: ImageSource, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image, (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImageError: the file, URL or bytes give no image.
    """
    if isinstance(source, PIL.Image.Image):
        return np.array(source.convert("RGB"))
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, str):
        if not is_url(source):
            return decode_image(Path(source), max_pixels)
        try:
            return decode_image(fetch_image(source), max_pixels)
        except UnreadableImageError as error:
            raise UnreadableImageError(source, error.reason) from error
    return decode_image(source, max_pixels)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Made], items: Iterable[Item], count: int
) -> Generator[Made, None, None]:
    """What `work` makes of the items, in their order, with at most `count` of them in work or waiting."""
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the reader may have seen enough
        for future in waiting:
            future.cancel()


def _groups(images: Iterable[_Prepared], batch_size: int) -> Iterator[list[_Prepared]]:
    """Neighbours that fit into one forward pass: as many as a batch, of equal shapes. Unreadable ones fit anywhere."""
    group: list[_Prepared] = []
    shapes: dict[str, torch.Size] | None = None
    for image in images:
        own = None if image.inputs is None else {name: tensor.shape for name, tensor in image.inputs.items()}
        if len(group) == batch_size or (own and shapes and own != shapes):
            yield group
            group, shapes = [], None
        group.append(image)
        shapes = shapes or own
    if group:
        yield group


def _answers(loaded: LoadedModel, group: list[_Prepared], views: str) -> Iterator[ScoredImage]:
    inputs = [image.inputs for image in group if image.inputs is not None]
    scores = iter(_probabilities(loaded, inputs, views) if inputs else ())
    for image in group:
        probabilities = None if image.inputs is None else next(scores)
        yield ScoredImage(image.position, image.source, probabilities, image.error)


def _probabilities(loaded: LoadedModel, images: list[Inputs], views: str) -> np.ndarray:
    """(B, C) float32"""
    device = next(loaded.model.parameters()).device
    inputs = {name: torch.cat([image[name] for image in images]).to(device) for name in images[0]}
    forward = partial(_logits, loaded, {name: inputs[name] for name in inputs if name != "pixel_values"})
    with torch.inference_mode():
        return mean_logits(forward, inputs["pixel_values"], views).float().softmax(-1).cpu().numpy()


def _logits(loaded: LoadedModel, others: dict[str, Any], pixel_values: Tensor) -> Tensor:
    return loaded.model(pixel_values=pixel_values, **others).logits
