"""Images, of files or in memory -> the logits of the classes, one by one and in their order.

Images are read and resized by threads while the model computes. Only a few batches of finished images are held at a time,
however many images there are, and an image that cannot be read is a result like any other.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import PIL.Image

from hf_accel.data.images import MAX_PIXELS, UnreadableImageError, decode_image, with_channels
from hf_accel.data.urls import fetch_image, is_url

# A file, a URL, the bytes of a file, an image, or its pixels (H, W, 3) uint8 RGB.
ImageSource = Path | str | bytes | PIL.Image.Image | np.ndarray
MOST_THREADS = 8  # each may hold a photograph of hundreds of megabytes
_BATCHES_AHEAD = 2

Inputs = dict[str, Any]  # arrays or tensors of one image: pixel_values (1, 3, H, W) and what else a processor makes
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class ScoredImage:
    """The answer for one image."""

    position: int  # among the images that were given, from 0
    source: ImageSource
    logits: np.ndarray | None = None  # (C,) float, in the order of the model's classes; None: unreadable
    error: UnreadableImageError | None = None  # why there are none


class Scorer(Protocol):
    """A classifier, as images are scored by it."""

    @property
    def target_side(self) -> int | None:
        """What `prepare` shrinks the short side of an image to, for `decode_image`; None: it takes images whole."""

    @property
    def channels(self) -> int:
        """Of the pixels that `prepare` takes; three are RGB."""

    def prepare(self, pixels: np.ndarray) -> Inputs:
        """(H, W, channels) uint8 -> the inputs of the model; called by several threads."""

    def score(self, images: list[Inputs]) -> np.ndarray:
        """Inputs of B images of equal shapes -> logits (B, C) float, in the order of the model's classes."""


def score_images(
    scorer: Scorer, sources: Iterable[ImageSource], batch_size: int = 32, max_pixels: int | None = MAX_PIXELS
) -> Generator[ScoredImage, None, None]:
    """Classify images.

    Args:
        sources: may be endless: they are taken as they are needed, a few batches ahead.
        batch_size: the most images in a forward pass.
        max_pixels: width x height from which an image counts as unreadable; None: any size.
    Yields:
        One answer for each source, in their order, as soon as its batch is done.
    """

    def prepare(item: tuple[int, ImageSource]) -> _Prepared:
        position, source = item
        try:
            return _Prepared(position, source, scorer.prepare(pixels_of(source, max_pixels, target_side, channels)))
        except UnreadableImageError as error:
            return _Prepared(position, source, None, error)

    target_side, channels = scorer.target_side, scorer.channels
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        prepared = _ahead(pool, prepare, enumerate(sources), _BATCHES_AHEAD * batch_size)
        with contextlib.closing(prepared):
            for group in _groups(prepared, batch_size):
                yield from _answers(scorer, group)


@dataclass(frozen=True)
class _Prepared:
    position: int
    source: ImageSource
    inputs: Inputs | None
    error: UnreadableImageError | None = None


def pixels_of(
    source: ImageSource, max_pixels: int | None = MAX_PIXELS, target_side: int | None = None, channels: int = 3
) -> np.ndarray:
    """The pixels of an image, (H, W, channels) uint8; the arguments are those of `decode_image`.

    Raises:
        UnreadableImageError: the file, URL or bytes give no image.
    """
    if isinstance(source, PIL.Image.Image):
        return _pixels_in_memory(source, channels)
    if isinstance(source, np.ndarray):
        fits = source.ndim == 3 and source.shape[2] == channels
        return source if fits else _pixels_in_memory(PIL.Image.fromarray(source), channels)
    if isinstance(source, str):
        if not is_url(source):
            return decode_image(Path(source), max_pixels, target_side, channels)
        try:
            return decode_image(fetch_image(source), max_pixels, target_side, channels)
        except UnreadableImageError as error:
            raise UnreadableImageError(source, error.reason) from error
    return decode_image(source, max_pixels, target_side, channels)


def _pixels_in_memory(image: PIL.Image.Image, channels: int) -> np.ndarray:
    try:
        pixels = np.array(image.convert("RGB") if channels == 3 else with_channels(image, channels))
    except ValueError as error:
        raise UnreadableImageError("image", str(error)) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


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
    shapes: dict[str, tuple[int, ...]] | None = None
    for image in images:
        own = None if image.inputs is None else {name: tuple(array.shape) for name, array in image.inputs.items()}
        if len(group) == batch_size or (own and shapes and own != shapes):
            yield group
            group, shapes = [], None
        group.append(image)
        shapes = shapes or own
    if group:
        yield group


def _answers(scorer: Scorer, group: list[_Prepared]) -> Iterator[ScoredImage]:
    inputs = [image.inputs for image in group if image.inputs is not None]
    scores = iter(scorer.score(inputs) if inputs else ())
    for image in group:
        logits = None if image.inputs is None else next(scores)
        yield ScoredImage(image.position, image.source, logits, image.error)
