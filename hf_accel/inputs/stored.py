"""Rows of a split -> the uint8 pixels that are stored of them, and how large those will be before any is decoded.

Whatever the cache mode, pixels are made here, so that every mode gives the same batches.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL.Image

from hf_accel import terminal
from hf_accel.data.splits import ImageSplit
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing, resize_image

SMALL_SIDE = 64  # pixels; images of one size up to this are kept as they are and resized on the training device
MAX_ASPECT = 16  # long side / short side; a crop of 8 % of the area does not fit into a longer strip
_CHUNK = 64  # rows; a slice of the table costs 1 us per row, single rows 60 us
_THREADED_PIXELS = 128 * 128  # PIL decodes smaller images faster in one thread: they mostly hold the interpreter lock
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: these orientations swap height and width


@dataclass(frozen=True)
class StoredImages:
    """What is stored of each image of a split: one of three geometries.

    `short_side` set: shrunk to that short side, never enlarged (random crops follow). `preprocessing` set: exactly what
    the model's processor makes of it, without the normalisation. Neither: the pixels of the file.
    """

    split: ImageSplit
    short_side: int | None = None
    preprocessing: Preprocessing | None = None
    original_shape: tuple[int, int] | None = None  # height and width of every file, where they are known to be equal

    @property
    def key(self) -> str:
        channels = "" if self.channels == 3 else f"{self.channels} channels, "
        if self.preprocessing is not None:
            return channels + self.preprocessing.key
        return channels + ("original" if self.short_side is None else f"short-side-{self.short_side}")

    @property
    def channels(self) -> int:
        return self.split.channels

    @property
    def target_side(self) -> int | None:
        """For `decode_image`."""
        return self.short_side if self.preprocessing is None else self.preprocessing.target_side

    def __len__(self) -> int:
        return len(self.split)

    def read(self, row: int) -> np.ndarray:
        """(H, W, channels) uint8 of one row. Raises UserError naming an unreadable image."""
        return self._as_stored(self.split.read(row, self.target_side))

    def read_many(self, rows: range) -> Iterator[np.ndarray]:
        """The same for neighbouring rows, read from the table at once."""
        for row, encoded in zip(rows, self._encoded(rows), strict=True):
            try:
                image = self.split.decode(encoded, self.target_side)
            except UserError:
                image = self.split.read(row, self.target_side)  # raises again, naming the image
            yield self._as_stored(image)

    def shapes(self) -> np.ndarray:
        """(N, 2) int64: height and width of what `read` will give, from the headers of the files."""
        if self.preprocessing is not None:
            return np.tile(np.array([self.preprocessing.height, self.preprocessing.width], np.int64), (len(self), 1))
        if self.original_shape is not None:
            return np.tile(np.array(self._stored_shape(*self.original_shape), np.int64), (len(self), 1))
        sizes = []
        with terminal.bar(len(self), "reading sizes", "image") as bar:
            for height, width in self.original_shapes():
                sizes.append(self._stored_shape(height, width))
                bar.update()
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def original_shapes(self) -> Iterator[tuple[int, int]]:
        """Height and width of each image as decoded, lazily."""
        for start in range(0, len(self), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(self)))
            for row, encoded in zip(rows, self._encoded(rows), strict=True):
                yield self._header_shape(row, encoded)

    def fill(
        self,
        buffer: np.ndarray,
        shapes: np.ndarray,
        title: str,
        note: Callable[[int, np.ndarray], None] = lambda row, image: None,
    ) -> None:
        """Decode every row into a flat uint8 buffer, with a progress bar and, for photographs, on all cores.

        Args:
            buffer: has room for all of them.
            shapes: (N, 2), of `shapes`.
            title: of the bar.
            note: is called with the number of each row and its image, in several threads.
        """
        ends = np.cumsum(shapes.prod(1) * self.channels)

        def fill_chunk(start: int) -> int:
            rows = range(start, min(start + _CHUNK, len(self)))
            for row, image in zip(rows, self.read_many(rows), strict=True):
                if image.shape[:2] != tuple(shapes[row]):
                    raise UserError(
                        f"{self.split.where(row)}: decodes to {image.shape[:2]} pixels, expected {tuple(shapes[row])} as "
                        "its header says. Fix or remove it, or set data.cache: none."
                    )
                buffer[ends[row] - image.size : ends[row]] = image.reshape(-1)
                note(row, image)
            return len(rows)

        height, width = next(self.original_shapes())
        threads = os.cpu_count() if height * width >= _THREADED_PIXELS else 1
        starts = range(0, len(self), _CHUNK)
        with terminal.bar(len(self), title, "image") as bar, ThreadPoolExecutor(threads) as pool:
            for count in pool.map(fill_chunk, starts):
                bar.update(count)

    def _as_stored(self, image: np.ndarray) -> np.ndarray:
        if self.preprocessing is not None:
            return self.preprocessing.apply(image)
        if self.short_side is None:
            return image
        height, width = _without_ends(*image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        part = image[top : top + height, left : left + width]
        return resize_image(part, *self._stored_shape(height, width), "bicubic", "torchvision")

    def _stored_shape(self, height: int, width: int) -> tuple[int, int]:
        if self.short_side is None:
            return height, width
        height, width = _without_ends(height, width)
        short = min(height, width)
        if short <= self.short_side:
            return height, width
        return round(height * self.short_side / short), round(width * self.short_side / short)

    def _encoded(self, rows: range) -> list[dict]:
        return self.split.dataset[rows.start : rows.stop][self.split.image_column]

    def _header_shape(self, row: int, encoded: dict) -> tuple[int, int]:
        try:
            source = encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"])
            with PIL.Image.open(source) as image:
                width, height = image.size
                # Pillow decodes a whole PNG in search of EXIF that the header does not announce
                has_exif = "exif" in image.info or image.format in ("JPEG", "MPO", "TIFF")
                turned = has_exif and image.getexif().get(_ORIENTATION) in _TURNED
        except Exception:  # broken files raise errors of every kind; decoding gives the message that names the file
            return self.split.read(row).shape[:2]
        return (width, height) if turned else (height, width)


def _without_ends(height: int, width: int) -> tuple[int, int]:
    """Height and width of the middle of a strip, which is what random crops of its area take.

    A batch has a frame as large as its largest image, so one long strip would take gigabytes.
    """
    longest = MAX_ASPECT * min(height, width)
    return min(height, longest), min(width, longest)


def stored_for_training(split: ImageSplit, short_side: int) -> StoredImages:
    """Images for random-resized crops."""
    return StoredImages(split, short_side=short_side)


def stored_for_model(split: ImageSplit, preprocessing: Preprocessing) -> StoredImages:
    """Images in the model's own geometry; small ones of one size as they are, to be enlarged on the device.

    Originals of the model's size are never kept as they are: pixels of that size always mean "finished".
    """
    if not split.is_fixed or split.is_streamed:  # all rows would be read to see their sizes, which may change
        return StoredImages(split, preprocessing=preprocessing)
    sizes = StoredImages(split).original_shapes()
    height, width = next(sizes)
    resized = preprocessing.resized(height, width) if preprocessing.processor is None else (0, 0)
    enlarges = resized[0] >= height and resized[1] >= width
    is_small = max(height, width) <= SMALL_SIDE and (height, width) != (preprocessing.height, preprocessing.width)
    resizable = (
        is_small and enlarges and preprocessing.pad is None and preprocessing.interpolation in ("bilinear", "bicubic")
    )
    if resizable and all(size == (height, width) for size in sizes):
        return StoredImages(split, original_shape=(height, width))
    return StoredImages(split, preprocessing=preprocessing)
