"""What this machine gives to a run, measured and described: `hf-accel doctor`."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from hf_accel.formatting import device_text, format_bytes, format_count, format_gib, format_percent, format_quantity
from hf_accel.machine.description import describe_environment
from hf_accel.machine.precision import precisions
from hf_accel.machine.probes import Peaks, decode_speed, disk_speeds, measure_peaks, read_speed

BUSY = 0.15  # share of the cores from which a line tells of it
_LISTENING_SECONDS = 0.3
_SHORT = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Disk:
    """The disk of a folder.

    Attributes:
        write_bytes_per_second: None where it was not tried.
        read_bytes_per_second: None where there is no file to read.
    """

    folder: str
    free_bytes: int
    write_bytes_per_second: float | None
    read_bytes_per_second: float | None


@dataclass(frozen=True)
class Checkup:
    """The machine, and what was measured on it.

    Attributes:
        environment: see `describe_environment`.
        accelerators: name and memory of each.
        precisions: of the device of a run: name -> whether it is native, and why.
        peaks: of the CPU, and of the accelerator where there is one.
        threads: that PyTorch computes with on the CPU.
        threads_set_by: the variable of the environment that chose them, if one did.
        busy: share of the cores that other programs took just before; the measured speeds are too low by about as much.
        decode_images_per_second: of one core.
        decoded: which images these were.
    """

    environment: dict[str, Any]
    accelerators: list[str]
    precisions: dict[str, tuple[bool, str]]
    peaks: list[Peaks]
    threads: int
    threads_set_by: str | None
    busy: float
    free_memory_gib: float
    disks: list[Disk]
    decode_images_per_second: float
    decoded: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def check_machine(device: str, outputs: Path, images: Sequence[bytes | Path] = ()) -> Checkup:
    """Describe and measure the machine, in about five seconds; a file of 64 MiB is written, read and deleted.

    Args:
        device: the type of the device of a run: cpu, cuda...
        outputs: an existing folder on the disk that runs are written to.
        images: encoded ones of the user's data: they are decoded, and the disk of those that are files is measured.
    """
    busy = psutil.cpu_percent(_LISTENING_SECONDS) / 100
    files = [image for image in images if isinstance(image, Path) and image.is_file()]
    accelerators = []
    if device == "cuda":
        every = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        accelerators = [f"{one.name}, {format_bytes(one.total_memory)}" for one in every]
    return Checkup(
        environment=describe_environment(device),
        accelerators=accelerators,
        precisions=precisions(device),
        peaks=[measure_peaks(kind) for kind in dict.fromkeys(("cpu", device))],
        threads=torch.get_num_threads(),
        threads_set_by=next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)), None),
        busy=busy,
        free_memory_gib=psutil.virtual_memory().available / 2**30,
        disks=[_disk_of_outputs(outputs), *([_disk_of_images(files)] if files else [])],
        decode_images_per_second=decode_speed(images),
        decoded="of the data" if images else "JPEG of 500 x 375 pixels",
    )


def _disk_of_outputs(folder: Path) -> Disk:
    free = shutil.disk_usage(folder).free
    try:
        written, read = disk_speeds(folder)
    except OSError:  # read-only, or full: a run is refused there for that reason
        return Disk(str(folder), free, None, None)
    return Disk(str(folder), free, written, read)


def _disk_of_images(images: Sequence[Path]) -> Disk:
    folder = images[0].parent
    return Disk(str(folder), shutil.disk_usage(folder).free, None, read_speed(images))


def machine_rows(checkup: Checkup) -> list[tuple[str, str]]:
    """The checkup as lines of a subject and what there is to say about it."""
    environment = checkup.environment
    cpu = device_text({**environment, "device": "cpu"})
    set_by = f" ({checkup.threads_set_by} is set)" if checkup.threads_set_by else ""
    rows = [("device", f"{cpu}; PyTorch's threads: {checkup.threads}{set_by}")]
    rows += [("", name) for name in checkup.accelerators]
    if checkup.busy >= BUSY:
        share = format_percent(checkup.busy)
        rows.append(("", f"other programs take {share} of the processor: the speeds below are too low"))
    if environment["device"] not in ("cpu", None) and not checkup.accelerators:
        rows.append(("", str(environment["device"])))
    rows.append(("precision", "; ".join(_precision(name, *found) for name, found in checkup.precisions.items())))
    rows += [(f"peak, {peaks.device}", _peak(peaks)) for peaks in checkup.peaks]
    total = format_gib(environment["memory_gib"])
    rows.append(("memory", f"{total}, {format_gib(checkup.free_memory_gib)} of it free"))
    rows += [("disk", _disk(disk)) for disk in checkup.disks]
    images = format_count(checkup.decode_images_per_second)
    return [*rows, ("decoding", f"{images} images/s per core ({checkup.decoded})")]


def _precision(name: str, is_native: bool, why: str) -> str:
    if name == "fp32":
        return name
    return f"{name} is{'' if is_native else ' not'} native: {why}"


def _peak(peaks: Peaks) -> str:
    flops = [f"{_SHORT[name]} {format_quantity(value / 1e9)}" for name, value in peaks.matrix_flops_per_second.items()]
    copies = format_quantity(peaks.copy_bytes_per_second / 1e9)
    return f"matrix products {', '.join(flops)} GFLOP/s; copies {copies} GB/s"


def _disk(disk: Disk) -> str:
    speeds = [
        f"{verb} {format_quantity(speed / 1e6)} MB/s"
        for verb, speed in (("writes", disk.write_bytes_per_second), ("reads", disk.read_bytes_per_second))
        if speed is not None
    ]
    return ", ".join([f"{disk.folder}: {format_bytes(disk.free_bytes)} free", *speeds])
