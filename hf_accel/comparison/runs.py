"""One run of one entry in a process of its own, and whether a finished one may be used again.

TF32 flags, compile caches and peak memory belong to a process, so entries never share one. A run is used again when its
recipe, its overrides, the versions, the device and the data are what they were: all of that is its key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_accel.comparison.schema import Entry, RunOutcome
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.lock import refuse_folder_in_use
from hf_accel.runs.output_place import writable_place
from hf_accel.runs.process import failure_reason, last_words, run_process

KEY_ENVIRONMENT = ("device", "cpu", "cores", "driver", "cuda", "python", "torch", "transformers", "timm", "accelerate",
                   "datasets", "hf_accel", "commit")  # fmt: skip
RECORD = "compare_run.json"
RUNS = "runs"
ROUND = re.compile(r"round-\d+(-replaced)?")
WRITTEN = ("report.html", "plots", "compare.csv", "compare.md", "compare.tex")  # after compare.json
# Run in a separate process: a CUDA context in this one would stay on the device during every run.
_PROBE = """
import json
from hf_accel.training.arguments import accelerator_type
from hf_accel.machine.description import describe_environment
from hf_accel.machine.precision import native_bf16
device = accelerator_type()
native, reason = native_bf16(device)
print(json.dumps({"environment": describe_environment(), "mixed_precision": native or device == "cuda", "reason": reason}))
"""


@dataclass(frozen=True)
class Machine:
    """The facts that all runs of a comparison share."""

    environment: dict[str, Any]
    mixed_precision: bool  # whether any 16-bit format is fast here
    reason: str


@dataclass(frozen=True)
class PlannedRun:
    """One run: which entry, which round, where it is kept."""

    entry: Entry
    round: int
    folder: Path
    command: tuple[str, ...]  # arguments of TRAIN
    key: str

    @property
    def seed(self) -> int:
        return seed_of(self.entry, self.round)

    @property
    def replaced(self) -> Path:
        """Where a finished run with other settings waits until this one has finished, too."""
        return self.folder.with_name(f"{self.folder.name}-replaced")


def claim_folder(folder: Path) -> None:
    """Check that a comparison may use its output folder; nothing is written.

    Raises:
        UserError: it cannot be written, is in use, holds a run, or files of other origin under the names that a
            comparison uses.
    """
    writable_place(folder)
    refuse_folder_in_use(folder)
    if RunFolder(folder).is_ours():
        raise UserError(f"{folder}: holds a run, and a comparison would replace its page. Choose another --output_dir.")
    kept = [] if (folder / "compare.json").is_file() else [name for name in WRITTEN if os.path.lexists(folder / name)]
    if os.path.lexists(folder / RUNS) and not (folder / RUNS).is_dir():
        kept.append(RUNS)
    if kept:
        raise UserError(
            f"{folder}: holds {', '.join(kept)}, and no comparison left {'it' if len(kept) == 1 else 'them'} there. Move "
            "such files, or choose another --output_dir."
        )


def remove_runs(folder: Path) -> None:
    """Delete the runs of a comparison, and nothing else that may lie next to them."""
    for path in folder.glob(f"{RUNS}/*/round-*"):
        if path.is_dir() and ROUND.fullmatch(path.name):
            shutil.rmtree(path)


def probe_machine() -> Machine:
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"compare: the device could not be described: {last_words(done.stderr)}")
    return Machine(**json.loads(done.stdout.splitlines()[-1]))


def seed_of(entry: Entry, round_number: int) -> int:
    """The entries of a round share their seed, so that accuracy is compared pair by pair, too."""
    return int(entry.recipe.training.get("seed", 42)) + round_number


def plan_run(entry: Entry, round_number: int, folder: Path, options: Sequence[str], machine: Machine) -> PlannedRun:
    """Describe one run without doing it.

    Args:
        folder: the folder of the comparison.
        options: the arguments of `hf_accel.train`, from `--recipe` on.
    """
    seed, entry = seed_of(entry, round_number), entry.in_round(round_number)
    described = {name: value for name, value in entry.recipe.to_dict().items() if name != "output_name"}
    described["training"] = {k: v for k, v in described["training"].items() if k not in ("seed", "output_dir")}
    environment = {name: machine.environment.get(name) for name in KEY_ENVIRONMENT}
    text = json.dumps([described, seed, environment], sort_keys=True, default=str)
    place = folder / RUNS / entry.name.replace("/", "_") / f"round-{round_number}"
    fold = () if entry.folds is None else ("--data.fold", str(entry.recipe.data.fold))
    command = (*options, *fold, "--seed", str(seed), "--output_dir", str(place))
    return PlannedRun(entry, round_number, place, command, hashlib.sha256(text.encode()).hexdigest())


def reusable_run(planned: PlannedRun, data_fingerprint: Callable[[Entry, int], str]) -> RunOutcome | None:
    """The run that an earlier comparison left here, if it is the same run."""
    for folder in (planned.folder, planned.replaced):
        values = finished_record(folder)
        if values is None or values["key"] != planned.key:
            continue
        try:
            report = RunReport.load(folder)
        except UserError:  # damaged, so the run is done again
            continue
        if report.data.fingerprint == data_fingerprint(planned.entry, planned.seed):
            return RunOutcome(planned.round, planned.seed, values["started"], values["wall_seconds"], report)
    return None


def finished_record(folder: Path) -> dict[str, Any] | None:
    """The record of the run in this folder; None when it was interrupted or failed, or when the record is damaged."""
    if not RunFolder(folder).is_finished:
        return None
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(values, dict) and {"key", "started", "wall_seconds", "error"} <= values.keys()
    return values if complete and not values["error"] else None


def do_run(planned: PlannedRun, tick: Callable[[], None]) -> RunOutcome:
    """Train in a separate process; a failure is an outcome, not an exception.

    Args:
        tick: called about once a second while the run lasts, for the clock of a progress bar.
    """
    if finished_record(planned.folder) is not None:  # a run with other settings, which may be the right ones
        shutil.rmtree(planned.replaced, ignore_errors=True)
        planned.folder.rename(planned.replaced)
    elif planned.folder.exists():
        shutil.rmtree(planned.folder)  # an unfinished or failed run, in a folder that is the comparison's own
    planned.folder.mkdir(parents=True)
    started, clock = time.time(), time.perf_counter()
    code, output = run_process(planned.command, planned.folder / "output.txt", tick)
    wall_seconds = time.perf_counter() - clock
    report, error = None, None
    if code or not RunFolder(planned.folder).is_finished:
        error = failure_reason(code, output)
    else:
        report = RunReport.load(planned.folder)
        # an eager run in the place of a compiled one says nothing about compilation
        error = report.train.compile_failure
    # Weights would fill the disk: twelve entries with eight seeds of ViT-B are 32 GB. Only the reports are compared.
    RunFolder(planned.folder).remove_weights()
    record = {"key": planned.key, "started": started, "wall_seconds": wall_seconds, "error": error}
    write_whole(planned.folder / RECORD, json.dumps(record, indent=2))
    if error is None:
        shutil.rmtree(planned.replaced, ignore_errors=True)
    return RunOutcome(planned.round, planned.seed, started, wall_seconds, None if error else report, error)
