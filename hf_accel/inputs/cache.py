"""Where the decoded pixels of a split live: memory, a file, the training device, or nowhere.

The mode changes speed and memory, never a pixel. `memory`: fastest to start, a copy in each rank. `disk`: one file for
all ranks and later runs, no anonymous memory. `device`: batches carry row numbers only; images of one size that fit.
`none`: decoded for every batch, in DataLoader workers if there are any; right when a run sees each image once or twice,
or when neither memory nor disk can hold them.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import ImageSplit
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.inputs.disk_cache import PixelFile, open_disk_cache
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.stored import StoredImages, stored_for_model, stored_for_training

logger = logging.getLogger(__name__)

DEFAULT_CACHE_SCALE = 0.875  # image size / short side of cached photographs: the share that most models' crops keep
WORTH_SAYING_BYTES = 1 << 30  # a cache in memory that is smaller is not announced
MEMORY_SHARE = 0.9  # of the available memory, which a cache may take


class PixelStore(ABC):
    """uint8 pixels of the rows of a split, read a batch at a time.

    Attributes:
        mode: memory, disk, device or none.
        nbytes: size of the stored pixels; 0 when none are stored.
    """

    mode: str
    nbytes: int

    @abstractmethod
    def loaded(self, rows: np.ndarray) -> dict[str, Tensor]:
        """What the loader puts into a batch of these rows: `pixels` and `sizes` of `LoadedPixels.batch`, or nothing."""

    @abstractmethod
    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the training device, with its pixels."""


class LoadedPixels(PixelStore):
    """Pixels that the loader reads."""

    @abstractmethod
    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Read rows.

        Returns:
            pixels (B, H, W, 3) uint8, images of different sizes at the top left of the largest frame, zeros around;
            sizes (B, 2) int64, height and width of each, or None where all images of the batch have one size.
        """

    def loaded(self, rows: np.ndarray) -> dict[str, Tensor]:
        pixels, sizes = self.batch(rows)
        return {"pixels": pixels} if sizes is None else {"pixels": pixels, "sizes": sizes}

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


class CachedPixels(LoadedPixels):
    """Pixels in one flat buffer in memory. A pickled copy (a spawned DataLoader worker) shares it through torch."""

    mode = "memory"

    def __init__(self, flat: Tensor, index: np.ndarray, channels: int = 3) -> None:
        self.flat = flat  # (nbytes,) uint8
        self.index = index  # (N, 3) int64: first byte, height, width
        self.channels = channels
        self.nbytes = self.flat.numel()
        self.shape = _common_shape(index)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        if self.shape is not None:
            return self.images().index_select(0, torch.from_numpy(rows)), None
        starts, heights, widths = self.index[rows].T.tolist()
        images = [
            self.flat[start : start + height * width * self.channels].view(height, width, self.channels)
            for start, height, width in zip(starts, heights, widths, strict=True)
        ]
        return frame(images)

    def images(self) -> Tensor:
        """(N, H, W, channels) uint8, a view; only where all images have one size."""
        assert self.shape is not None
        return self.flat.view(len(self.index), *self.shape, self.channels)


class DiskPixels(LoadedPixels):
    """Pixels in a cache on disk, which are read when they are needed."""

    mode = "disk"

    def __init__(self, file: PixelFile) -> None:
        self.file = file
        self.nbytes = file.nbytes
        self.shape = _common_shape(file.index)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        entries = self.file.entries(rows)
        if self.shape is not None:
            pixels = torch.empty(len(rows), *self.shape, self.file.channels, dtype=torch.uint8)
            self.file.read(rows, entries, pixels.numpy())
            return pixels, None
        images = [torch.empty(height, width, self.file.channels, dtype=torch.uint8) for _, height, width, _ in entries]
        self.file.read(rows, entries, [image.numpy() for image in images])
        return frame(images)


def _common_shape(index: np.ndarray) -> tuple[int, int] | None:
    """Height and width of all images of an index; None where they differ."""
    shapes = index[:, 1:3]
    return tuple(map(int, shapes[0])) if bool((shapes == shapes[0]).all()) else None  # type: ignore[return-value]


class DevicePixels(PixelStore):
    """Pixels on the training device; nothing but row numbers travels."""

    mode = "device"

    def __init__(self, images: Tensor) -> None:
        self.images = images  # (N, H, W, 3) uint8
        self.nbytes = images.numel()

    def loaded(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {}

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        prefixes = [prefix for prefix in ("", "partner_") if f"{prefix}rows" in batch]
        return batch | {f"{prefix}pixels": self.images.index_select(0, batch[f"{prefix}rows"]) for prefix in prefixes}

    def __getstate__(self) -> dict[str, Any]:
        return {"nbytes": self.nbytes, "images": torch.empty(0)}  # workers send row numbers and need no pixels


class DecodedPixels(LoadedPixels):
    """Pixels decoded again for every batch, in whichever process asks."""

    mode = "none"
    nbytes = 0

    def __init__(self, stored: StoredImages) -> None:
        self.stored = stored

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        return frame([torch.from_numpy(np.ascontiguousarray(self.stored.read(row))) for row in rows.tolist()])


def frame(images: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack (h, w, 3) images, those of different sizes in a frame as `LoadedPixels.batch` describes it."""
    sizes = torch.tensor([image.shape[:2] for image in images])
    if bool((sizes == sizes[0]).all()):
        return torch.stack(images), None
    height, width = sizes.amax(0).tolist()
    framed = torch.zeros(len(images), height, width, images[0].shape[2], dtype=torch.uint8)
    for target, image in zip(framed, images, strict=True):
        target[: image.shape[0], : image.shape[1]] = image
    return framed, sizes


def open_pixels(
    split: ImageSplit,
    settings: DataSettings,
    *,
    short_side: int | None,
    preprocessing: Preprocessing | None,
    device: torch.device | str = "cpu",
) -> PixelStore:
    """Open the pixels of a split in the mode `data.cache` asks for; a missing cache is built.

    Args:
        short_side: keep photographs at this short side (smaller ones as they are), for random-resized crops.
        preprocessing: keep what this model sees of each image, for evaluation and for training without such crops;
            small images of one size are stored as they are. Exactly one of the two is given.
        device: the training device, for `data.cache: device`.
    Raises:
        UserError: an image is unreadable, or memory, disk or device cannot hold the pixels.
    """
    if preprocessing is not None:
        stored = stored_for_model(split, preprocessing)
    else:
        assert short_side is not None
        stored = stored_for_training(split, short_side)
    if settings.cache == "none" or not split.is_fixed or split.is_streamed:
        return DecodedPixels(stored)
    if settings.cache == "disk":
        return DiskPixels(PixelFile(open_disk_cache(stored, settings.cache_dir), stored.channels))
    cached = _read_into_memory(stored)
    return cached if settings.cache == "memory" else _move_to_device(stored, cached, torch.device(device))


def open_training_pixels(
    split: ImageSplit, settings: DataSettings, preprocessing: Preprocessing, device: torch.device | str = "cpu"
) -> PixelStore:
    """The pixels that training needs: photographs at `data.cache_size` for random-resized crops, else the model's."""
    if settings.augment.crop != "random_resized":
        return open_pixels(split, settings, short_side=None, preprocessing=preprocessing, device=device)
    side = min(preprocessing.height, preprocessing.width)
    short_side = settings.cache_size or round(side / DEFAULT_CACHE_SCALE)
    return open_pixels(split, settings, short_side=short_side, preprocessing=None, device=device)


def open_evaluation_pixels(
    split: ImageSplit, settings: DataSettings, preprocessing: Preprocessing, device: torch.device | str = "cpu"
) -> PixelStore:
    """The pixels that evaluation needs: exactly what the model's processor sees, never a cache of another size."""
    return open_pixels(split, settings, short_side=None, preprocessing=preprocessing, device=device)


def fits_in_memory(nbytes: int) -> bool:
    """Whether a cache of this size may be kept in memory now."""
    return nbytes <= MEMORY_SHARE * psutil.virtual_memory().available


def _read_into_memory(stored: StoredImages) -> CachedPixels:
    shapes = stored.shapes()
    sizes = shapes.prod(1) * stored.channels
    nbytes = int(sizes.sum())
    level = logging.INFO if nbytes >= WORTH_SAYING_BYTES else logging.DEBUG
    logger.log(level, "%s: decoded images take %s of memory", stored.split.source, format_bytes(nbytes))
    if not fits_in_memory(nbytes):
        available = format_bytes(psutil.virtual_memory().available)
        raise UserError(
            f"data.cache: memory needs {format_bytes(nbytes)} for {stored.split.source}, and {available} are "
            "available. Set data.cache: disk, or lower data.cache_size."
        )
    flat = torch.empty(nbytes, dtype=torch.uint8)
    stored.fill(flat.numpy(), shapes, f"decode {stored.split.source}")
    return CachedPixels(flat, np.column_stack([np.cumsum(sizes) - sizes, shapes]), channels=stored.channels)


def _move_to_device(stored: StoredImages, cached: CachedPixels, device: torch.device) -> DevicePixels:
    if cached.shape is None:
        raise UserError(
            f"data.cache: device keeps images of one size, and those of {stored.split.source} differ. Set data.cache: "
            "memory or disk, or train without random_resized crops."
        )
    try:
        return DevicePixels(cached.images().to(device))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"data.cache: device needs {format_bytes(cached.nbytes)} for {stored.split.source}, which {device} does not have "
            "free. Set data.cache: memory."
        ) from error
