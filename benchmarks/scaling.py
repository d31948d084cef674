"""`python -m benchmarks.scaling`: time and memory for 1, 3 and 10 times the images, and for 1 and 2 processes.

The runs are `hf-accel train` as a user starts it. Memory is anonymous memory, read from outside every 50 ms: pages of a
mapped cache file belong to nobody and are left out, and the building of a cache is watched as well as the training.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.session import benchmark_parser, failure, figures, middle, open_session, workplace
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

DESCRIPTION = """\
Wall time, images/s and peak anonymous memory of `hf-accel train` for 1, 3 and 10 times the images in each cache mode,
and of 2 processes at 10 times.

  python -m benchmarks.scaling --pairs 1"""

HEADINGS = ("cache", "processes", "images", "run, s", "training img/s", "peak memory, largest process", "of all processes",
            "runs")  # fmt: skip
CACHES = ("memory", "disk", "none")
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--mixed_precision", "no",
          "--dynamo_backend", "no", "--num_machines", "1")  # fmt: skip
GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("scaling", DESCRIPTION)
    parser.add_argument("--rows", type=int, help="images of the smallest run; default 5,000")
    parser.add_argument("--steps", type=int, help="optimizer steps of a run; default 40")
    session = open_session(parser, argv)
    rows = session.options.rows or (100 if session.quick else 5000)
    caches = CACHES[:1] if session.quick else CACHES
    factors = (1,) if session.quick else (1, 3, 10)
    plan = [(cache, 1, factor * rows) for cache in caches for factor in factors]
    plan += [(cache, 2, factors[-1] * rows) for cache in caches]
    settings = {
        "data": "digits" if session.quick else "cifar10",
        "steps": session.options.steps or (4 if session.quick else 40),
        "batch": 16 if session.quick else 128,
        "overrides": session.overrides,
    }

    def measure(cache: str, processes: int, images: int, number: int) -> dict[str, Any] | None:
        with workplace() as place:  # a cache of its own: building it is part of the run
            case = {**settings, "cache": cache, "processes": processes, "images": images}
            return session.measure("benchmarks.scaling:train", case, lambda: {"place": place}, number)

    results = session.rounds({repr(case): lambda n, case=case: measure(*case, n) for case in plan})
    table = []
    for case in plan:
        measured = results[repr(case)]
        cells = [failure(measured) or middle(figures(measured, name)) for name in ("seconds", "images_per_second")]
        memory = [middle(figures(measured, name)) + " GiB" for name in ("largest_gib", "all_gib")]
        done = sum(r is not None and "error" not in r for r in measured)
        table.append((case[0], str(case[1]), f"{case[2]:,}", *cells, *memory, str(done)))
    notes = [
        f"ResNet-20, 32 px, {settings['steps']} steps of {settings['batch']} images over all processes, whatever the number "
        "of images",
        "run: the whole command, imports, building the cache, training, scoring 100 images and saving included; img/s: "
        "training alone, without its warm-up",
        "memory: peak of RssAnon, sampled every 50 ms from outside; 2 processes are started by accelerate launch; medians",
    ]
    session.write([("Scaling", HEADINGS, table)], notes)
    return 0


def train(
    place: str,
    data: str,
    cache: str,
    processes: int,
    images: int,
    steps: int,
    batch: int,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `hf-accel train` and watch its memory.

    Returns:
        seconds of the command, images_per_second of the training over all ranks, largest_gib, all_gib; or error.
    """
    if processes > 1 and torch.cuda.is_available() and torch.cuda.device_count() < processes:
        return {"error": f"{processes} processes need {processes} GPUs, here is {torch.cuda.device_count()}"}
    folder = Path(place)
    flags = {
        "recipe": "resnet20_cifar10",
        "data.name": data if data == "digits" else str(data_folder(data)),
        "data.image_size": 32,
        "data.cache": cache,
        "data.cache_dir": folder / "cache",
        "data.max_train_rows": images,
        "data.max_test_rows": 100,
        "per_device_train_batch_size": batch // processes,
        "max_steps": steps,
        "save_strategy": "no",
        "output_dir": folder / "run",
        **as_flags(overrides or {}),
    }
    command = [sys.executable, *(LAUNCH if processes > 1 else ()), "-m", "hf_accel.train"]
    command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    start = time.perf_counter()
    with (folder / "output.txt").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen([*parent, *command], stdout=output, stderr=subprocess.STDOUT)
        largest, together = watch_memory(process)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if process.returncode:
        return {"error": failure_reason(process.returncode, text)}
    report = RunReport.load(folder / "run")
    assert report.train.world_size == processes, "the launcher started another number of processes"
    return {
        "seconds": seconds,
        "images_per_second": report.train.images_per_second,
        "largest_gib": largest / GIB,
        "all_gib": together / GIB,
    }


def watch_memory(process: subprocess.Popen) -> tuple[int, int]:
    """Peak anonymous bytes of the largest process and of all of them, until the first one ends."""
    largest = together = 0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            sizes = [anonymous_bytes(p.pid) for p in (root, *root.children(recursive=True))]
        except psutil.NoSuchProcess:
            sizes = [0]
        largest, together = max(largest, *sizes), max(together, sum(sizes))
        time.sleep(0.05)
    return largest, together


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


if __name__ == "__main__":
    raise SystemExit(run(main))
