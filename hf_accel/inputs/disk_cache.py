"""Decoded pixels in a memory-mapped file, shared by ranks and by later runs.

A cache is a folder: `pixels.bin`, `index.npy`, and `manifest.json`, written last. It is built next to its place under a
file lock and renamed into it, so whoever sees the folder sees a whole one; sizes and sampled checksums in the manifest
tell one that was damaged afterwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
from filelock import FileLock

from hf_accel.errors import UserError
from hf_accel.files import cache_folder, write_whole
from hf_accel.formatting import format_bytes
from hf_accel.inputs.stored import StoredImages

logger = logging.getLogger(__name__)

_FORMAT = 2  # 1: photographs were decoded whole and shrunk by Pillow
_SPARE_BYTES = 64 << 20  # left free on the disk: a full one breaks more than this run
_SAMPLES, _SAMPLE_BYTES = 256, 64 << 10  # checksummed: all of a cache up to 16 MiB, evenly spaced parts of a larger one


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
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{name}.lock"):
            problem = _problem(folder, identity)
            if problem is None:
                logger.info("%s: decoded images are read from %s", stored.split.source, folder)
            else:
                if folder.exists():
                    logger.warning("%s: %s; it is built again", folder, problem)
                    shutil.rmtree(folder)
                _build(stored, folder, identity)
    except OSError as error:
        raise UserError(
            f"data.cache_dir {parent}: {error.strerror or error}. Expected a folder that can be written; name another "
            "one, or set data.cache: memory or none."
        ) from error
    return folder


def read_index(folder: Path) -> np.ndarray:
    """(N, 3) int64, memory-mapped: first byte, height and width of each image."""
    return np.load(folder / "index.npy", mmap_mode="r")


def map_pixels(folder: Path) -> np.ndarray:
    """All pixels, flat uint8, memory-mapped. Copy-on-write only because torch wants writable memory."""
    return np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="c")


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
        with open(partial / "pixels.bin", "w+b") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a disk that fills up later would kill the process
            file.truncate(nbytes)
            pixels = np.memmap(file, dtype=np.uint8, mode="r+", shape=(nbytes,))
            stored.fill(pixels, shapes, f"cache of {stored.split.source}")
            pixels.flush()
        np.save(partial / "index.npy", np.column_stack([np.cumsum(sizes) - sizes, shapes]))
        files = {name: (partial / name).stat().st_size for name in ("pixels.bin", "index.npy")}
        manifest = {**identity, "source": stored.split.source, "files": files, "checksums": _checksums(partial)}
        write_whole(partial / "manifest.json", json.dumps(manifest, indent=1))
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _problem(folder: Path, identity: dict) -> str | None:
    """Why a cache cannot be used, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        if {key: manifest[key] for key in identity} != identity:
            return "the cache is of other images"
        for name, size in manifest["files"].items():
            if (folder / name).stat().st_size != size:
                return f"{name} is truncated"
        return None if _checksums(folder) == manifest["checksums"] else "its content is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError):
        return "manifest.json is damaged"


def _checksums(folder: Path) -> dict[str, int]:
    return {name: _checksum(folder / name) for name in ("pixels.bin", "index.npy")}


def _checksum(path: Path) -> int:
    size, crc = path.stat().st_size, 0
    with open(path, "rb") as file:
        for position in np.linspace(0, max(0, size - _SAMPLE_BYTES), _SAMPLES).astype(int):
            file.seek(int(position))
            crc = zlib.crc32(file.read(_SAMPLE_BYTES), crc)
    return crc
