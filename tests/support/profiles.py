"""Profiles with invented but plausible figures, and clocks whose time a test sets."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hf_accel.profiling.advice import Setup
from hf_accel.profiling.gauges import Gauges, Reading
from hf_accel.profiling.operators import Operator
from hf_accel.profiling.schema import Overhead, PhaseFigures, ProfiledRun, Row
from hf_accel.profiling.verdict import Facts
from hf_accel.profiling.whole_run import WholeRun
from tests.support.reports import ENVIRONMENT

SETUP = Setup(
    device="cpu", image_size=224, has_native_bf16=True, precision="fp32", channels_last=False, kernels="auto", cache="none",
    transforms="loader", workers=0, cores=2, pin_memory=False, optim="adamw_torch", is_compiled=False,
    keep_freed_memory=False, checkpointing=False, freezes=False, has_batch_norm=True, pretrained=True,
    save_strategy="epoch", groups_by_length=False,
)  # fmt: skip
STEP = {"load": 0.01, "decode": 0.05, "forward": 0.1, "backward": 0.2, "optimizer": 0.02, "unaccounted": 0.005}
WHOLE_SECONDS = {"once": 8.0, "input": 60.0, "network": 300.0, "optimizer": 20.0, "loop": 5.0, "evaluation": 30.0,
                 "saving": 4.0}  # fmt: skip
FACTS = Facts(
    60.0, 300.0, 20.0, 5.0, 4.0, 30.0, 8.0, operator_share=0.9, compute_share=0.8, of_peak=0.5, of_bandwidth=0.4
)


class SetGauges(Gauges):
    """Counters that move only when a test moves them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Reading(100.0, 5.0, 0, 0, 0, 0.0, 1000, 500, None)

    def read(self) -> Reading:
        return self.now

    def memory(self) -> tuple[int | None, int | None]:
        return self.now.rss, self.now.anonymous

    def advance(self, seconds: float, **values: float) -> None:
        """Let time pass; every other counter as given."""
        moved = {name: getattr(self.now, name) + value for name, value in values.items()}
        self.now = self.now._replace(wall=self.now.wall + seconds, **moved)


class SlowedGauges(Gauges):
    """The counters of this process, to which a test adds seconds that nobody waits for."""

    def __init__(self) -> None:
        self.added = 0.0
        super().__init__()

    def read(self) -> Reading:
        found = super().read()
        return found._replace(wall=found.wall + self.added)


def operator(name: str, seconds: float, flops: int = 0, moved_bytes: int = 10**6, dtype: str = "float32") -> dict:
    compute = seconds if flops else 0.0
    return Operator(name, dtype, 3, seconds, flops, moved_bytes, compute).to_dict()


def profiled_run(**changes) -> ProfiledRun:
    """A run of ten steps: mostly network."""
    phases = [PhaseFigures("start", 1, 0, 5.0, 4.0), PhaseFigures("prepare", 2, 0, 3.0, 2.0, 10, 20, 10**6)]
    phases += [
        PhaseFigures(name, 10, 640, 10 * seconds, 15 * seconds, 0, 0, 0, None, 1.0, 0.5)
        for name, seconds in STEP.items()
        if name != "unaccounted"
    ]
    phases += [PhaseFigures("evaluation", 1, 256, 2.0, 3.0), PhaseFigures("checkpoint", 1, 0, 0.4, 0.2)]
    phases += [PhaseFigures("inference_one", 30, 30, 0.6, 1.0), PhaseFigures("unaccounted", 0, 0, 0.05, 0.05)]
    spans = [("start", 0.0, 5.0), ("prepare", 5.0, 3.0)]
    for number in range(10):
        spans += [(name, 8.0 + number + place / 10, seconds) for place, (name, seconds) in enumerate(STEP.items())]
    run = ProfiledRun(
        phases=phases,
        measuring_seconds=3.0,
        step=dict(STEP),
        num_steps=10,
        step_starts=[8.0 + number for number in range(10)],
        spans=spans,
        overhead=Overhead(1.004, 0.998, 1.01, 10),
        batch_sizes={"step": 64, "inference_one": 1, "inference_many": 256},
        worker_cpu_seconds=0.0,
        operators=[
            operator("convolution", 0.15, flops=10**10),
            operator("native_batch_norm", 0.1),
            operator("relu_", 0.02),
        ],
        peaks={
            "device": "cpu",
            "matrix_flops_per_second": {"float32": 2e11, "bfloat16": 9e11},
            "copy_bytes_per_second": 2e10,
        },
        setup=SETUP,
        whole=WholeRun(1000, 10, 10, 500, 0),
        whole_seconds=dict(WHOLE_SECONDS),
        facts=FACTS,
        environment=dict(ENVIRONMENT),
        model="timm/resnet50",
        data="cifar10",
        task="image-classification",
        notes=[],
    )
    return replace(run, **changes)


def run_here(calls: list, words: Sequence[str], output: Path, *_: Any, **__: Any) -> tuple[int, str]:
    """What `hf_accel.runs.process.run_process` does for a profile, without a process; fp16 is refused, and compile crashes.

    Args:
        calls: gets the words of each run.
    """
    calls.append(words)
    if "fp16" in words:
        return 2, "error: training.fp16 needs a CUDA device"
    if "compile" in words:
        return 1, "RuntimeError: no compiler"
    Path(words[words.index("--result") + 1]).write_text(json.dumps(asdict(profiled_run())), encoding="utf-8")
    return 0, ""


def profile_row(name: str = "baseline", **changes) -> Row:
    return Row(name, "resnet50_cifar10", profiled_run(**changes), profiled_run(operators=[], overhead=None, peaks=None))
