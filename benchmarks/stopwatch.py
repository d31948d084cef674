"""The learning curve of a whole command by the wall clock: every line that states an accuracy, and when it was printed.

One clock outside serves programs that log in different ways: seconds count from the start of the process, so imports,
reading, decoding, compilation and evaluation are in them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

Curve = Sequence[Sequence[float]]  # (seconds since the start, accuracy) of every evaluation, in their order


def learning_curve(
    command: Sequence[str], pattern: str, divisor: float = 1.0, folder: str | Path | None = None
) -> dict[str, Any]:
    """Run a command and note when it states an accuracy.

    Args:
        pattern: its group `accuracy` is the figure; it is searched in every line of stdout and stderr.
        divisor: 100 for a program that states percent.
        folder: where the command runs; None is the current folder.
    Returns:
        curve, and wall_seconds of the whole command; or error.
    """
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    curve, lines = [], []
    start = time.perf_counter()
    with subprocess.Popen(
        [*parent, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env=env,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(pattern, line)
            if found:
                curve.append([time.perf_counter() - start, float(found["accuracy"]) / divisor])
            lines.append(line)
    wall = time.perf_counter() - start
    if process.returncode:
        return {"error": failure_reason(process.returncode, "".join(lines))}
    if not curve:
        return {"error": f"no line of its output matched {pattern}"}
    return {"curve": curve, "wall_seconds": wall}


def seconds_until(curve: Curve, accuracy: float) -> float | None:
    """When the curve first reaches an accuracy; None: it never does.

    >>> seconds_until([(10.0, 0.7), (20.0, 0.81), (30.0, 0.79)], 0.8)
    20.0
    """
    return next((seconds for seconds, reached in curve if reached >= accuracy), None)


def best(curve: Curve) -> tuple[float, float]:
    """The highest accuracy of the curve, and when it was first reached.

    >>> best([(10.0, 0.7), (20.0, 0.81), (30.0, 0.79)])
    (0.81, 20.0)
    """
    seconds, accuracy = max(curve, key=lambda point: (point[1], -point[0]))
    return accuracy, seconds
