"""One measurement in a separate process.

Thread counts, allocators, compile caches and peak memory belong to a process, so no two measurements share one. The
answer is the last line of the process, as JSON; whatever else it prints is shown only when it fails.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hf_accel.runs.process import ENDS_WITH_PARENT, failure_reason

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "measured: "


class OutOfTimeError(Exception):
    """The time that was given is used up; the measurements so far are kept."""


def call_in_process(target: str, arguments: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
    """Call `package.module:function(**arguments)` in a new process.

    Returns:
        What the function returned, or {"error": why it failed, in a line}.
    Raises:
        OutOfTimeError: it was still running after `timeout` seconds, and was ended.
    """
    parent = ENDS_WITH_PARENT if sys.platform == "linux" else ()
    command = [*parent, sys.executable, "-m", "benchmarks.processes", target, json.dumps(arguments)]
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "PYTHONPATH": path}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, env=env)
    except subprocess.TimeoutExpired:
        raise OutOfTimeError from None
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        return {"error": failure_reason(done.returncode, f"{done.stdout}\n{done.stderr}")}
    return json.loads(answers[-1].removeprefix(MARK))


def call(target: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The same in this process."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


if __name__ == "__main__":
    print(MARK + json.dumps(call(sys.argv[1], json.loads(sys.argv[2]))), flush=True)
