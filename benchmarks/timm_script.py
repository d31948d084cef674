"""timm's own `train.py`, run from a checkout of huggingface/pytorch-image-models, and the rate it reports.

The script prints the mean seconds and images/s since its first step. Two of those lines, one after the warm-up and one
at the end, give the mean between them: its own clock, without the warm-up, as for the other programs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.workloads import LEARNING_RATE
from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

# Train: 0 [  12/13 (100%)]  Loss: 2.3 (2.4)  Time: 0.789s,   20.27/s  (0.801s,   19.98/s)  LR: ...
_LINE = re.compile(r"Train: \d+ \[\s*(\d+)/\d+ .*?\([\d.]+s,\s*([\d.]+)/s\)")


def train(
    place: str,
    checkout: str,
    model: str,
    batch: int,
    steps: int,
    warmup: int,
    classes: int,
    interpolation: str,
    device: str,
    flags: list[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Run the script on the images and weights of `write_workload`.

    Args:
        checkout: folder that holds train.py; its own timm is the one that runs.
        flags: flags of the script besides those that fix the work: images, weights, batch, optimizer, clipping, crop, flip.
    Returns:
        images_per_second; version of timm in the checkout.
    """
    folder, script = Path(place), Path(checkout).resolve() / "train.py"
    command = [
        sys.executable, str(script), "--data-dir", str(folder / "images"), "--train-split", "train", "--val-split", "",
        "--model", model.removeprefix("timm/"), "--initial-checkpoint", str(folder / "timm.safetensors"),
        "--num-classes", str(classes), "--batch-size", str(batch), "--device", device, "--seed", str(seed),
        "--opt", "adamw", "--lr", str(LEARNING_RATE), "--weight-decay", "0", "--clip-grad", "1.0",
        "--smoothing", "0", "--color-jitter", "0", "--train-interpolation", interpolation,
        "--epochs", "1", "--warmup-epochs", "0", "--train-batches-per-epoch", str(warmup + 1 + steps),
        "--log-interval", str(warmup), "--output", str(folder / "timm_run"), *flags,
    ]  # fmt: skip
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    done = subprocess.run([*parent, *command], capture_output=True, text=True, errors="replace", cwd=folder)
    if done.returncode:
        return {"error": failure_reason(done.returncode, done.stderr)}
    rate = mean_rate(done.stderr + done.stdout, batch, warmup)
    return {"images_per_second": rate, "version": version_in(script.parent)}


def version_in(checkout: Path) -> str | None:
    """The version of the timm that a checkout holds."""
    found = re.search(r"__version__ = '([^']+)'", (checkout / "timm" / "version.py").read_text("utf-8"))
    return found.group(1) if found else None


def mean_rate(log: str, batch: int, warmup: int) -> float:
    """Mean images/s after the warm-up, from the running means that the script printed.

    >>> line = "Train: 0 [{:>4d}/9 (99%)]  Loss: 2.3 (2.4)  Time: 0.1s, 9.0/s  ({:.3f}s, {:>7.2f}/s)  LR: 0"
    >>> round(mean_rate(line.format(1, 2.0, 8.0) + line.format(9, 0.8, 20.0), batch=16, warmup=1), 2)
    32.0
    """
    means = {int(index) + 1: float(rate) for index, rate in _LINE.findall(log)}  # steps so far -> images/s
    before, last = warmup + 1, max(means)
    seconds = batch * last / means[last] - batch * before / means[before]
    return batch * (last - before) / seconds
