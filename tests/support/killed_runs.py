"""Runs that are killed with SIGKILL at random moments, each in a process of its own.

The processes are forked from one that has imported everything, so that a run takes a second.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import Trainer

from hf_accel.cli import run as run_command
from hf_accel.inputs import disk_cache
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.train import main
from hf_accel.training import finish
from hf_accel.training.trainer import ImageTrainer

PHASES = ("training", "evaluation", "checkpoint", "cache", "test scoring", "report")
_COUNTS = struct.Struct(f"{len(PHASES)}I")
_POLL_SECONDS = 0.0005
LONGEST_SECONDS = 300.0  # of a run, on a busy machine
KILLS_OF_A_FOLDER = 5  # then the run is left alone until it ends


@dataclass
class Tally:
    """What the kills of one family of runs came to.

    Attributes:
        phases: kills by phase; "any" are those at a moment that was drawn from the whole run.
        needed, trained: batches of the runs, and those that were trained with what the kills cost.
        differences: of the runs from the one that was not killed.
    """

    phases: Counter[str] = field(default_factory=Counter)
    needed: int = 0
    trained: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.phases.values())

    def __str__(self) -> str:
        kept = self.needed / max(1, self.trained)
        where = ", ".join(f"{phase} {count}" for phase, count in sorted(self.phases.items()))
        equal = "equal" if not self.differences else f"DIFFERENT: {'; '.join(self.differences)}"
        return f"{self.kills} kills ({where}), {self.runs} runs, {kept:.0%} of the work kept, {equal}"


class Entered:
    """How often a run has entered each phase, in a file that both processes map."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        self.path.write_bytes(bytes(_COUNTS.size))

    def counts(self) -> dict[str, int]:
        return dict(zip(PHASES, _COUNTS.unpack(self.path.read_bytes()), strict=True))

    def add(self, phase: str) -> None:
        counts = self.counts()
        counts[phase] += 1
        with self.path.open("r+b") as file:
            file.write(_COUNTS.pack(*counts.values()))


def run_watched(words: list[str], entered: str, log: str, restores_random_states: bool) -> None:
    """Run `hf-accel train` in this process, which is forked for it, and say which phases it enters."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a command of its own
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    phases = Entered(Path(entered))
    for owner, name, phase in (
        (ImageTrainer, "training_step", "training"),
        (ImageTrainer, "_save_checkpoint", "checkpoint"),
        (disk_cache, "_build", "cache"),
        (finish, "write_extras", "report"),
    ):
        setattr(owner, name, _entering(phases, phase, getattr(owner, name)))
    loop = ImageTrainer.evaluation_loop

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        phases.add("evaluation" if self.is_in_train else "test scoring")
        return loop(self, *args, **kwargs)

    ImageTrainer.evaluation_loop = evaluation_loop
    if not restores_random_states:
        Trainer._load_rng_state = lambda *args: None
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))  # a run must not live on what its process had before
    code = run_command(main, words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _entering(phases: Entered, phase: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        phases.add(phase)
        return original(*args, **kwargs)

    return call


class Family:
    """One command, which is run whole once, and then again and again with kills.

    Args:
        place: an empty folder.
        words: the command, without its output folder.
        seed: of the moments.
        restores_random_states: False is a fault, which must be found.
    """

    def __init__(self, place: Path, words: list[str], seed: int | str = 0, restores_random_states: bool = True) -> None:
        self.place, self.words = place, words
        self.restores_random_states = restores_random_states
        self.dice = random.Random(seed)
        self.entered = Entered(place / "entered")
        self.tally = Tally()
        self.context = multiprocessing.get_context("forkserver")
        start = time.perf_counter()
        with self._running("whole") as process:
            process.join(LONGEST_SECONDS)
            assert process.exitcode == 0, self._told(process)
        self.seconds = time.perf_counter() - start
        self.counts = self.entered.counts()
        self.tally.trained = 0
        self.whole = outcome(place / "whole")

    def kill(self, count: int, moment: tuple[str, int] | None = None) -> Tally:
        """Kill runs so often, and compare each with the one that was not killed, once it has ended.

        Args:
            moment: a phase, and which time it is entered; None: drawn.
        """
        while self.tally.kills < count:
            name = f"run {self.tally.runs}"
            shutil.rmtree(self.place / "cache", ignore_errors=True)
            for _ in range(min(KILLS_OF_A_FOLDER, count - self.tally.kills)):
                if RunFolder(self.place / name).is_finished or not self._run_and_kill(name, moment):
                    break
            if not RunFolder(self.place / name).is_finished:  # a run may be killed after its last file
                with self._running(name) as process:
                    process.join(LONGEST_SECONDS)
                    assert process.exitcode == 0, self._told(process)
            self._compare(self.place / name)
            shutil.rmtree(self.place / name)
        return self.tally

    def _run_and_kill(self, name: str, moment: tuple[str, int] | None) -> bool:
        """Whether the run was killed before it ended."""
        phase, entry = moment or self._drawn()
        with self._running(name) as process:
            if phase == "any":
                process.join(self.dice.uniform(0, self.seconds))
            else:
                while process.is_alive() and self.entered.counts()[phase] < entry:
                    time.sleep(_POLL_SECONDS)
                time.sleep(self.dice.uniform(0, 0.03))
            if process.exitcode is not None:
                assert process.exitcode == 0, self._told(process)
                return False
            os.kill(process.pid, signal.SIGKILL)  # the processes that read its data end by themselves
            process.join()
        self.tally.phases[phase] += 1
        return True

    def _drawn(self) -> tuple[str, int]:
        """A phase, and which time it is entered; "any": a moment of the whole run."""
        phase = self.dice.choice(["any", *(phase for phase in PHASES if self.counts[phase])])
        return phase, self.dice.randint(1, max(1, -(-self.counts.get(phase, 0) // 2)))

    @contextmanager
    def _running(self, name: str) -> Iterator[Any]:
        self.entered.clear()
        words = [*self.words, "--output_dir", str(self.place / name)]
        arguments = (words, str(self.entered.path), str(self.place / "log"), self.restores_random_states)
        process = self.context.Process(target=run_watched, args=arguments)
        process.start()
        try:
            yield process
        finally:
            if process.is_alive():
                process.kill()
            process.join()
            self.tally.trained += self.entered.counts()["training"]

    def _compare(self, folder: Path) -> None:
        """Count a run that has ended."""
        found = outcome(folder)
        self.tally.runs += 1
        self.tally.needed += self.counts["training"]
        self.tally.differences += [
            f"{folder.name}: {name}" for name, value in self.whole.items() if found[name] != value
        ]

    def _told(self, process: Any) -> str:
        return f"exit code {process.exitcode}\n" + (self.place / "log").read_text("utf-8", "replace")[-3000:]


class FamilyOfTwo(Family):
    """A command that two processes run, which `accelerate launch` starts; all of them are killed at once."""

    @contextmanager
    def _running(self, name: str) -> Iterator[Any]:
        self.entered.clear()
        words = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                 "--main_process_port", "0", "-m", "hf_accel.train", *self.words,
                 "--output_dir", str(self.place / name)]  # fmt: skip
        with (self.place / "log").open("ab") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            yield _Joined(process)
        finally:
            _kill_all(process)

    def _compare(self, folder: Path) -> None:
        """The batches are those that the report counts: what was trained before the first checkpoint is missing there."""
        super()._compare(folder)
        train = RunReport.load(folder).train
        self.tally.needed += train.steps or 0
        self.tally.trained += (train.steps or 0) + (train.repeated_steps or 0)

    def _run_and_kill(self, name: str, moment: tuple[str, int] | None) -> bool:
        with self._running(name) as process:
            process.join(self.dice.uniform(0.3 * self.seconds, self.seconds))  # before that, Python starts
            if process.exitcode is not None:
                assert process.exitcode == 0, self._told(process)
                return False
        self.tally.phases["any"] += 1
        return True


def _kill_all(launcher: subprocess.Popen) -> None:
    """SIGKILL to a launcher and its processes, which are in sessions of their own."""
    if launcher.poll() is None:
        found = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found[1:], LONGEST_SECONDS)
    launcher.wait()


class _Joined:
    """A subprocess with the methods of a multiprocessing process."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, self.pid = process, process.pid

    @property
    def exitcode(self) -> int | None:
        return self.process.poll()

    def join(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a run was killed, by name."""
    report = RunReport.load(folder)
    timed = ("seconds", "images_per_second")
    train = json.loads((folder / "report.json").read_text("utf-8"))["train"]
    summed = ("steps", "skipped_steps", "epochs", "world_size", "effective_batch_size", "final_loss", "accuracy")
    return {
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_bytes(),
        "history": [{name: value for name, value in entry.items() if name not in timed} for entry in report.history],
        "scores": (report.validation, report.test, report.reference and report.reference.accuracy),
        "summed figures": {name: train[name] for name in summed},
        "sparsity": (report.sparsity, report.phases),
    }
