"""Stands in for `hf_accel.train` where a test is about the runs and not about training: writes a report at once.

Each variant has a speed of its own; environment variables set the noise, how long the runs after the first sleep, and
that every run fails.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hf_accel.report.run_report import DataSummary, DetailedScores, ModelSummary, RunReport, TrainSummary

SPEEDS = {"baseline": 100.0, "all": 150.0, "bf16": 100.0}
SLOWS_DOWN = ("--model.channels_last", "false")  # to a half
COSTS_ACCURACY = ("--data.augment.crop", "none")  # ten points


def run_here(words: Sequence[str], output: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """What `hf_accel.runs.process.run_process` does, without a process."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = main(words)
    output.write_text(told.getvalue(), encoding="utf-8")
    return code, told.getvalue()


def main(words: Sequence[str]) -> int:
    options = dict(zip(words[::2], words[1::2], strict=True))
    folder, seed = Path(options["--output_dir"]), int(options.get("--seed", 0))
    variant = options.get("--variant", "default")
    calls = Path(os.environ["STUB_CALLS"])
    is_first = not calls.is_file()
    with calls.open("a", encoding="utf-8") as file:
        file.write(f"{variant} {seed} {os.getpid()}\n")
    time.sleep(0 if is_first else float(os.environ.get("STUB_SECONDS", "0")))
    if variant == "fp16" or "STUB_FAILS" in os.environ:
        print("error: digits: training.fp16 needs a CUDA device")
        return 2
    speed = SPEEDS.get(variant, 100.0) * (0.5 if SLOWS_DOWN in options.items() else 1.0)
    noise = float(os.environ.get("STUB_NOISE", "0"))
    accuracy = 0.8 if COSTS_ACCURACY in options.items() else 0.9
    rng = np.random.default_rng([seed, *map(ord, variant)])
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    RunReport(
        recipe="digits",
        variant=variant,
        environment={"device": "cpu", "cpu": "Stub CPU", "cores": 2},
        data=DataSummary(
            name="digits", fingerprint=os.environ.get("STUB_DATA", "data"), train_rows=1000, test_rows=100
        ),
        model=ModelSummary(name="stub", parameters=1000),
        train=TrainSummary(
            compiled=False if variant == "compile" else None,
            compile_failure="torch_compile: no compiler" if variant == "compile" else None,
            steps=20 if variant == "ga_larger_batch" else 40,
            epochs=2.0,
            effective_batch_size=100 if variant == "ga_larger_batch" else 50,
            seconds=1000 / speed,
            images_per_second=speed * float(np.exp(rng.normal(0, noise))),
            step_seconds_median=0.5,
            peak_anonymous_gib=1.0,
        ),
        test=DetailedScores(accuracy=accuracy + 0.01 * rng.random(), f1_macro=0.9),
    ).save(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
