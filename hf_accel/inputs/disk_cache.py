"""Decoded pixels in a file, shared by ranks and by later runs.

A cache is a folder: `pixels.bin`, `index.npy`, and `manifest.json`, written last. It is built next to its place under a
file lock and renamed into it, so whoever sees the folder sees a whole one, and one that another user has built needs no
permission but to read it. The sizes and the index are compared with the manifest when a cache is opened; each image has a
checksum (XXH3, which costs less than reading the image), which is compared whenever it is read. Pixels are read into the
batch and not mapped: a mapped file that becomes shorter ends the process with SIGBUS.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock

from hf_accel.errors import RunError, UserError
from hf_accel.files import cache_folder, write_whole
from hf_accel.formatting import format_bytes
from hf_accel.inputs.stored import StoredImages

logger = logging.getLogger(__name__)

_FORMAT = 3  # 1: photographs were decoded whole and shrunk by Pillow; 2: without checksums of images
_SPARE_BYTES = 64 << 20  # left free on the disk: a full one breaks more than this run
_MANIFEST, _PIXELS, _INDEX = "manifest.json", "pixels.bin", "index.npy"
_ALL_BITS = 2**64 - 1


def open_disk_cache(stored: StoredImages, cache_dir: str | None) -> Path:
    """The folder of a whole, fresh cache of these pixels; built when there is none.

    Raises:
        UserError: it cannot be written, or the disk cannot hold it.
    """
    identity = {"format": _FORMAT, "split": stored.split.fingerprint, "pixels": stored.key, "rows": len(stored)}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    parent = cache_folder(cache_dir)
    folder = parent / name
    try:
        if _problem(folder, identity) is None:  # without the lock, which only who may write here can take
            logger.info("%s: decoded images are read from %s", stored.split.source, folder)
            return folder
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{name}.lock", mode=0o666):
            problem = _problem(folder, identity)  # another process may have built it
            if problem is not None:
                if os.path.lexists(folder):
                    logger.warning("%s: %s; it is built again", folder, problem)
                    _remove(folder)
                _build(stored, folder, identity)
    except OSError as error:
        place = error.filename or parent
        raise UserError(
            f"data.cache_dir {parent}: {place}: {error.strerror or error}. Expected a folder that can be written; name another "
            "one, or set data.cache: memory or none."
        ) from error
    return folder


class PixelFile:
    """The images of a cache, each compared with its checksum when it is read.

    A process that is forked shares the open files, and a pickled copy opens them again.

    Attributes:
        index: (N, 4) int64, memory-mapped: first byte, height, width and checksum of each image.
        nbytes: size of all pixels.
    """

    def __init__(self, folder: Path, channels: int = 3) -> None:
        self.folder, self.channels = folder, channels
        self.index: np.ndarray = np.load(folder / _INDEX, mmap_mode="r")
        self._pixels, self._index = (os.open(folder / name, os.O_RDONLY) for name in (_PIXELS, _INDEX))
        weakref.finalize(self, _close, self._pixels, self._index)
        self._index_bytes = os.fstat(self._index).st_size
        self.nbytes = os.fstat(self._pixels).st_size

    def entries(self, rows: np.ndarray) -> list[list[int]]:
        """The entries of these rows in the index.

        Raises:
            RunError: the index has become shorter, or an entry lies outside of the pixels.
        """
        if os.fstat(self._index).st_size != self._index_bytes:
            raise self._damaged(_INDEX, "it is truncated")
        found = self.index[rows]
        ends = found[:, 0] + found[:, 1:3].astype(np.float64).prod(1) * self.channels  # integers could overflow
        if (found[:, 0] < 0).any() or (found[:, 1:3] < 1).any() or (ends > self.nbytes).any():
            raise self._damaged(_INDEX, "it is not as it was written")
        return found.tolist()

    def read(self, rows: np.ndarray, entries: list[list[int]], targets: Iterable[np.ndarray]) -> None:
        """Read images into arrays.

        Args:
            rows: (B,) int64.
            entries: of these rows.
            targets: for each of them (H, W, channels) uint8, contiguous.
        Raises:
            RunError: the file has become shorter, cannot be read, or an image is not what was written; the next run builds
                the cache again.
        """
        for row, (start, _, _, checksum), target in zip(rows.tolist(), entries, targets, strict=True):
            try:
                count = os.preadv(self._pixels, [target.data], start)
            except OSError as error:
                raise self._damaged(_PIXELS, f"image {row} cannot be read ({error.strerror})") from error
            if count != target.nbytes:
                raise self._damaged(_PIXELS, "it is truncated")
            if xxhash.xxh3_64_intdigest(target.data, row) != checksum & _ALL_BITS:
                raise self._damaged(_PIXELS, f"image {row} is not as it was written")

    def _damaged(self, name: str, what: str) -> RunError:
        repeat = (
            "Repeat the command: the cache is built again, and an unfinished run continues from its last checkpoint."
        )
        try:
            (self.folder / _MANIFEST).unlink(missing_ok=True)
        except OSError:  # of another user
            repeat = "Have the folder deleted, or name another data.cache_dir, and repeat the command."
        return RunError(f"{self.folder / name}: {what}, so the cache of decoded images is damaged. {repeat}")

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelFile, (self.folder, self.channels)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _build(stored: StoredImages, folder: Path, identity: dict) -> None:
    shapes = stored.shapes()
    sizes = shapes.prod(1) * stored.channels
    nbytes = int(sizes.sum())
    free = shutil.disk_usage(folder.parent).free
    logger.info("%s: decoded images take %s in %s", stored.split.source, format_bytes(nbytes), folder)
    if nbytes + _SPARE_BYTES > free:
        raise UserError(
            f"data.cache: disk needs {format_bytes(nbytes)} for {stored.split.source} in {folder.parent}, and "
            f"{format_bytes(_SPARE_BYTES)} more to stay free; {format_bytes(free)} are free. "
            "Name a larger disk with data.cache_dir, lower data.cache_size, or set data.cache: none."
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed: this process holds the lock
    partial.mkdir()
    try:
        checksums = np.zeros(len(shapes), dtype=np.uint64)

        def note(row: int, image: np.ndarray) -> None:
            checksums[row] = xxhash.xxh3_64_intdigest(np.ascontiguousarray(image).data, row)

        with open(partial / _PIXELS, "w+b") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a disk that fills up later would kill the process
            file.truncate(nbytes)
            pixels = np.memmap(file, dtype=np.uint8, mode="r+", shape=(nbytes,))
            stored.fill(pixels, shapes, f"cache of {stored.split.source}", note)
            pixels.flush()
        np.save(partial / _INDEX, np.column_stack([np.cumsum(sizes) - sizes, shapes, checksums.view(np.int64)]))
        files = {name: (partial / name).stat().st_size for name in (_PIXELS, _INDEX)}
        manifest = {**identity, "source": stored.split.source, "files": files, "index": _checksum(partial / _INDEX)}
        write_whole(partial / _MANIFEST, json.dumps(manifest, indent=1))
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _problem(folder: Path, identity: dict) -> str | None:
    """Why a cache cannot be used, or None. Raises OSError where it cannot be read."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if not isinstance(manifest, dict):
            return f"{_MANIFEST} is damaged"
        if any(manifest.get(key) != value for key, value in identity.items()):
            return "the cache is of other images"
        for name in (_PIXELS, _INDEX):
            if manifest["files"][name] != (folder / name).stat().st_size:
                return f"{name} is truncated"
        return None if _checksum(folder / _INDEX) == manifest["index"] else f"{_INDEX} is damaged"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError):
        return f"{_MANIFEST} is damaged"


def _checksum(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())
