"""What this machine gives, measured in seconds: matrix peak, copy bandwidth, and the speed of its disk and of JPEG decoding.

Each probe is a short measurement on an idle machine: a load next to it lowers the figure. Floating-point operations count a
multiply-add as two; all units are plain (FLOP/s, bytes/s, images/s).
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from hf_accel.data.images import UnreadableImageError, decode_image

SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices: a GPU is not full with less
OTHER_SIDE = 2048
SMALLEST_SIDE = 256
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # beyond every cache
BLOCK = 1 << 23
JPEG_SIDE = (375, 500)  # rows and columns of the photograph that stands for those of a user who names none


@dataclass(frozen=True)
class Peaks:
    """The fastest that a device was seen to compute and to move bytes.

    Attributes:
        device: its type: cpu, cuda...
        matrix_flops_per_second: "float32" and "bfloat16" -> FLOP/s of a product of two square matrices.
        copy_bytes_per_second: bytes read plus bytes written, as STREAM counts them.
    """

    device: str
    matrix_flops_per_second: dict[str, float]
    copy_bytes_per_second: float


def measure_peaks(device: str = "cpu", seconds: float = 0.5) -> Peaks:
    """Matrix peaks in fp32 and bf16, and the copy bandwidth, of a device.

    Args:
        seconds: for each of the three, after a warm-up; in all about two seconds by default.
    """
    side = SIDES.get(device, OTHER_SIDE)
    flops = {
        str(dtype).removeprefix("torch."): matrix_peak(side, dtype, device, seconds)
        for dtype in (torch.float32, torch.bfloat16)
    }
    return Peaks(device, flops, copy_bandwidth(device, seconds))


def matrix_peak(side: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    """FLOP/s of the fastest of many `side` x `side` products, on random numbers, after a warm-up.

    On CUDA float32 is what PyTorch does by default: no TF32. Where one product would take longer than `seconds`, as in
    bf16 on a CPU without any support for it (0.3 GFLOP/s on an AMD EPYC of 2021), the sides are halved until it does not.
    """
    while (
        side > SMALLEST_SIDE and product_seconds(SMALLEST_SIDE, dtype, device) * (side / SMALLEST_SIDE) ** 3 > seconds
    ):
        side //= 2
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(_seconds_of(lambda: a @ b, device, seconds))


def copy_bandwidth(device: str, seconds: float, size: int | None = None) -> float:
    """Bytes/s, read plus written, of the median copy of a tensor within the memory of a device.

    Args:
        size: bytes of the tensor; None: more than any cache holds.
    """
    source = torch.ones(size or COPIED_BYTES.get(device, COPIED_BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / statistics.median(_seconds_of(lambda: target.copy_(source), device, seconds))


def product_seconds(side: int, dtype: torch.dtype, device: str) -> float:
    """The fastest of three products of that size, after one that starts the library: other programs slow some of them."""
    a = torch.randn(side, side, device=device).to(dtype)
    a @ a
    found = []
    for _ in range(3):
        start = now(device)
        a @ a
        found.append(now(device) - start)
    return min(found)


def _seconds_of(work: Callable[[], object], device: str, seconds: float) -> list[float]:
    """The seconds of each call for so long, at least one, after a warm-up; on a GPU each of them is a mean of ten."""
    calls = 10 if device == "cuda" else 1
    for _ in range(2):
        work()
    found: list[float] = []
    end = now(device) + seconds
    while not found or time.perf_counter() < end:
        start = now(device)
        for _ in range(calls):
            work()
        found.append((now(device) - start) / calls)
    return found


def now(device: str | torch.device) -> float:
    """Host seconds, when all work given to the device is done."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))
    return time.perf_counter()


def read_speed(files: Iterable[Path], seconds: float = 1.0) -> float | None:
    """Bytes/s with which files come from the disk; None when there are none, or they are empty.

    The system is first asked to forget their content (Linux; elsewhere they may come from memory). Where it keeps the
    content, as that of files which a process has mapped, the figure is that of its memory.
    """
    read = 0
    spent = 0.0
    for path in files:
        with open(path, "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while (block := file.read(BLOCK)) and spent + time.perf_counter() - start < seconds:
                read += len(block)
            spent += time.perf_counter() - start
        if spent >= seconds:
            break
    return read / spent if read else None


def disk_speeds(folder: Path, size: int = 1 << 26) -> tuple[float, float | None]:
    """Bytes/s of writing a file of `size` bytes to the disk of a folder, and of reading it back; the file is deleted.

    Raises:
        OSError: the folder is not writable, or its disk is full.
    """
    block = os.urandom(min(size, BLOCK))
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".hf_accel-probe-") as file:
        start = time.perf_counter()
        for _ in range(max(1, size // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = file.tell() / (time.perf_counter() - start)
        return written, read_speed([Path(file.name)])


def decode_speed(images: Sequence[bytes | Path] = (), target_side: int | None = 224, seconds: float = 0.5) -> float:
    """Images/s that one core decodes, as training does it.

    Args:
        images: encoded ones; none: a JPEG of 500 x 375 pixels, made here. Those that cannot be read are passed over.
        target_side: pixels to which they are shrunk later, see `decode_image`.
    """
    readable = list(images) or [sample_jpeg()]
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        image = readable[done % len(readable)]
        try:
            decode_image(image, target_side=target_side)
            done += 1
        except UnreadableImageError:
            readable.remove(image)
            readable = readable or [sample_jpeg()]
    return done / (time.perf_counter() - start)


def sample_jpeg() -> bytes:
    """A JPEG with as much detail as a photograph: noise at several scales, of a size like those of ImageNet (100 KB)."""
    random = np.random.default_rng(0)
    rows, columns = JPEG_SIDE
    total = np.full((rows, columns, 3), 128.0)
    for scale in (1, 4, 16, 64):
        small = random.normal(128, 10 * scale**0.5, (rows // scale + 1, columns // scale + 1, 3))
        picture = PIL.Image.fromarray(small.clip(0, 255).astype(np.uint8))
        total += np.asarray(picture.resize((columns, rows), PIL.Image.Resampling.BICUBIC), np.float64) - 128
    buffer = io.BytesIO()
    PIL.Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
