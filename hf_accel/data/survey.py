"""One reading of the images of a data set: which cannot be read, how large they are, and which are the same picture."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from hf_accel import terminal
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.images import UnreadableImageError
from hf_accel.data.listing import content_number
from hf_accel.data.near_duplicates import SIDE, near_pairs, thumbnail

MOST_IMAGES = 20_000  # that are read where nobody asks for another number
SMALLEST_SIDE = (
    2 * SIDE
)  # smaller pictures, such as digits, look alike without being the same: their files alone are compared
_PORTION = 256


class Place(NamedTuple):
    """A row of a split."""

    role: str
    row: int


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture.

    Attributes:
        is_exact: their files are byte for byte the same.
        same_label: both are of one class.
    """

    first: Place
    second: Place
    is_exact: bool
    same_label: bool

    @property
    def is_across_splits(self) -> bool:
        return self.first.role != self.second.role


@dataclass(frozen=True)
class Survey:
    """What the images of a data set turned out to be.

    Attributes:
        num_read: images that were looked at; num_images: all there are.
        unreadable: each with its file or row, and the reason.
        sizes: (N, 2) int64 width and height of the readable ones, as they are stored.
        formats: Pillow's name of the format -> number of images.
        pairs: each image but the first of those that show the same picture, with the first.
    """

    num_read: int
    num_images: int
    unreadable: list[str]
    sizes: np.ndarray
    formats: dict[str, int]
    pairs: list[Pair]


class _Seen(NamedTuple):
    """What is kept of an image that could be read."""

    place: Place
    label: str
    content: int
    size: tuple[int, int]
    format: str
    thumbnail: np.ndarray


def survey_images(parts: Mapping[str, ImageSplit], most: int = MOST_IMAGES) -> Survey:
    """Read images of each split, drawn evenly from all of it, and of streams the first ones.

    Args:
        parts: role -> split, in the order train, validation, test.
        most: images that are read in all, each split by its share.
    """
    places = _chosen_places(parts, most)
    seen: list[_Seen] = []
    unreadable = []
    bar = terminal.bar(len(places), "reading images", "image")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(places), _PORTION):
            portion = places[start : start + _PORTION]
            for place, found in zip(
                portion, pool.map(lambda place: _look(parts[place.role], place), portion), strict=True
            ):
                if isinstance(found, str):
                    unreadable.append(f"{parts[place.role].where(place.row)}: {found}")
                else:
                    seen.append(found)
            bar.update(len(portion))
    sizes = np.array([one.size for one in seen], np.int64).reshape(-1, 2)
    formats = dict(Counter(one.format for one in seen).most_common())
    num_images = sum(map(len, parts.values()))
    return Survey(len(places), num_images, unreadable, sizes, formats, _pairs(seen))


def some_images(part: ImageSplit, most: int = 64) -> list[bytes | Path]:
    """Encoded images from all of a split, of a stream its first ones; a file is not read."""
    step = 1 if part.is_streamed else max(1, len(part) // most)
    cells = [part.dataset[row][part.image_column] for row in range(0, len(part), step)[:most]]
    found = [cell["bytes"] or (Path(cell["path"]) if cell["path"] else None) for cell in cells if cell]
    return [image for image in found if image is not None]


def _chosen_places(parts: Mapping[str, ImageSplit], most: int) -> list[Place]:
    total = sum(map(len, parts.values()))
    places = []
    for role, part in parts.items():
        count = len(part) if total <= most else most * len(part) // total
        last = count - 1 if part.is_streamed else len(part) - 1
        places += [Place(role, int(row)) for row in np.unique(np.linspace(0, last, count).astype(int))] if count else []
    return places


def _look(part: ImageSplit, place: Place) -> _Seen | str:
    """What is kept of an image, or why it cannot be read."""
    cell = part.dataset[place.row][part.image_column]
    try:
        encoded = cell["bytes"] if cell else None
        if cell and not encoded and cell["path"]:
            encoded = Path(cell["path"]).read_bytes()
        pixels = part.decode({"bytes": encoded, "path": None}, target_side=SIDE)
    except UnreadableImageError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)
    assert encoded is not None, "it was decoded"
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        size, kind = image.size, image.format or "unknown"
    content = content_number(hashlib.sha256(encoded).digest())
    small = thumbnail(pixels if min(size) >= SMALLEST_SIDE else np.zeros_like(pixels))
    return _Seen(place, part.label_text(place.row), content, size, kind, small)


def _pairs(seen: list[_Seen]) -> list[Pair]:
    """Each image that shows the picture of an earlier one, with the first of these."""
    if not seen:
        return []
    contents = np.array([one.content for one in seen], np.uint64)
    _, first_of, inverse = np.unique(contents, return_index=True, return_inverse=True)
    origin = first_of[inverse]  # (N,) the first image of equal content
    own = np.unique(origin)
    alike = own[near_pairs(np.stack([seen[number].thumbnail for number in own]))]
    earliest = np.arange(len(seen))
    for first, second in alike.tolist():  # in order: the first one of a picture stays its own
        earliest[second] = min(earliest[second], earliest[first])
    earliest = earliest[origin]
    return [
        Pair(seen[first].place, one.place, bool(contents[first] == contents[number]), seen[first].label == one.label)
        for number, one in enumerate(seen)
        if (first := int(earliest[number])) != number
    ]
