"""Images of any number of channels as NumPy saves them (.npy), because Pillow reads four at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ARRAY_SUFFIX = ".npy"
MOST_OF_PILLOW = 4  # channels


def is_array_file(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ARRAY_SUFFIX


def read_array(path: Path, channels: int | None, max_pixels: int | None = None) -> np.ndarray:
    """The pixels of an array file, (H, W, channels) uint8.

    Args:
        channels: the length of the last axis, or of the first; None: the shorter of the two is taken.
        max_pixels: width x height from which an array is refused; None: any size.
    Raises:
        ValueError: it is larger, has another shape, or values that are neither 8 bits, 16 bits nor fractions; it holds a pickle.
    """
    if not path.is_file():  # a pipe or a device would never end
        raise ValueError("it is not a regular file" if path.exists() else "no such file")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or not array.size:
        raise ValueError(f"it has the shape {array.shape}, expected (height, width, channels)")
    wanted = min(array.shape[0], array.shape[2]) if channels is None else channels
    if wanted not in (array.shape[0], array.shape[2]):
        raise ValueError(f"it has the shape {array.shape}, and data.channels is {channels}")
    if max_pixels is not None and array.size // wanted > max_pixels:
        raise ValueError(f"it has {array.size // wanted:,} pixels, more than data.max_pixels ({max_pixels:,}) allows")
    array = array if array.shape[2] == wanted else array.transpose(1, 2, 0)
    return np.ascontiguousarray(_eight_bits(array))


def for_people(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 -> (H, W, 3): the first three channels, or the first one as grey."""
    return pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)


def _eight_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.array(array)  # out of the file
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if array.dtype.kind == "f" and 0 <= np.nanmin(array) <= np.nanmax(array) <= 1:
        return np.rint(np.nan_to_num(array) * 255).astype(np.uint8)
    raise ValueError(
        f"it holds {array.dtype} from {array.min()} to {array.max()}, expected uint8, uint16, or fractions from 0 to 1"
    )
