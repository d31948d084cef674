"""`python -m benchmarks.time_to_accuracy`: how long a user waits for a test accuracy, by this package and by its rivals.

Programs differ in what an epoch costs and in what it gains, so neither images per second nor accuracy per epoch says
which one is sooner. Here the clock starts with the process, and stops at the line that states the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.accuracy import mean_and_spread
from benchmarks.finetuning import NETWORKS, with_interval
from benchmarks.peers import flags_text
from benchmarks.session import Session, benchmark_parser, failure, middle, open_session, ratio_cells, workplace
from benchmarks.stopwatch import Curve, best, seconds_until
from benchmarks.workloads import data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe, merge
from hf_accel.errors import UserError

DESCRIPTION = """\
Seconds of a whole command until a test accuracy is reached, and the best accuracy: the recipes finetune and linear_probe of
this package, the Hugging Face example's method (default and best flags), timm's train.py and AutoTimm.

  python -m benchmarks.time_to_accuracy --timm ../pytorch-image-models --autotimm ENVIRONMENT/bin/python

--pairs is the number of seeds. Flags of `hf-accel train` apply to this package alone."""

FINETUNE, LINEAR_PROBE = "hf_accel, finetune", "hf_accel, linear probe"
EXAMPLE, EXAMPLE_BEST = "HF example, default flags", "HF example, best flags"
TIMM, AUTOTIMM = "timm train.py, best flags", "AutoTimm, best flags"
LEARNING_RATES = (3e-4, 1e-3, 3e-3)  # a wide grid: the recipe finetune has 5e-4 for 32 images
QUICK_RATES = LEARNING_RATES[:1]
TINY = {"training": {"num_train_epochs": 2, "per_device_train_batch_size": 4}}
SPEEDUP_HEADINGS = ("hf_accel", "program", "seconds to the target: program / hf_accel (95 % interval)", "pairs",
                    "seconds to the program's best accuracy: program / hf_accel (95 % interval)", "pairs",
                    "best accuracy: hf_accel - program, points (95 % interval)")  # fmt: skip
SEARCH_HEADINGS = ("program", "learning rate", "seconds to the target", "best accuracy")


@dataclass(frozen=True)
class Work:
    """What the rivals are given: the schedule of the recipe finetune, and what suits the machine."""

    epochs: float
    batch: int
    workers: int
    bf16: bool
    device: str
    rates: tuple[float, ...]

    def example(self, rate: float) -> dict[str, Any]:
        """The example's best flags, but for the learning rate; without `use_cpu`, the Trainer refuses bf16 on a CPU."""
        return {"num_train_epochs": self.epochs, "per_device_train_batch_size": self.batch, "bf16": self.bf16,
                "use_cpu": self.device == "cpu", "dataloader_num_workers": self.workers, "learning_rate": rate}  # fmt: skip

    def timm(self, rate: float) -> list[str]:
        amp = ["--amp", "--amp-dtype", "bfloat16"] if self.bf16 else []
        return ["--epochs", str(round(self.epochs)), "--batch-size", str(self.batch), "--workers", str(self.workers), "--opt",
                "adamw", "--weight-decay", "0.02", "--sched-on-updates", "--warmup-epochs", "1", "--channels-last", *amp,
                "--lr", str(rate)]  # fmt: skip

    def autotimm(self, rate: float) -> dict[str, Any]:
        return {"epochs": round(self.epochs), "batch": self.batch, "workers": self.workers,
                "precision": "bf16-mixed" if self.bf16 else "32", "lr": rate}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("time_to_accuracy", DESCRIPTION, pairs=3)
    parser.add_argument("--network", default=NETWORKS[0], choices=NETWORKS, help=f"weights; default {NETWORKS[0]}")
    parser.add_argument("--target", type=float, default=0.8, help="test accuracy to be reached; default 0.8")
    parser.add_argument("--timm", type=Path, help="checkout of huggingface/pytorch-image-models")
    parser.add_argument("--autotimm", type=Path, help="the Python of an environment that has AutoTimm installed")
    session = open_session(parser, argv)
    options = session.options
    if not 0 < options.target <= 1:
        raise UserError(f"--target {options.target}: expected an accuracy above 0, at most 1")
    if options.timm is not None and not (options.timm / "train.py").is_file():
        raise UserError(f"--timm {options.timm}: has no train.py, expected a checkout of pytorch-image-models")
    if options.autotimm is not None and not options.autotimm.is_file():
        raise UserError(
            f"--autotimm {options.autotimm}: there is no such file, expected a Python, ENVIRONMENT/bin/python"
        )
    with workplace() as shared:
        race = Race(session, shared)
        programs = race.programs()
        results = session.rounds(programs)
    curves = {name: [(result or {}).get("curve") for result in results[name]] for name in programs}
    tables = [
        ("Time to accuracy", headings(options.target), program_rows(results, race.flags, options.target)),
        ("Speed-up of hf_accel", SPEEDUP_HEADINGS, speedup_rows(curves, options.target)),
    ]
    if race.searched:
        tables.append(("Learning rates that were tried, one run each", SEARCH_HEADINGS, race.searched))
    session.write(tables, [*notes(race), *versions(results)])
    return 0


class Race:
    """The programs, each with the best of its learning rates.

    Args:
        shared: an empty folder, for the photographs and weights.
    """

    def __init__(self, session: Session, shared: str) -> None:
        self.session = session
        self.shared = shared
        self.overrides = merge(TINY, session.overrides) if session.quick else session.overrides
        training = load_recipe("finetune", overrides=self.overrides).training
        cores = session.machine["environment"]["cores"]
        self.work = Work(
            epochs=training["num_train_epochs"],
            batch=training["per_device_train_batch_size"],
            workers=min(cores, 16 if session.is_cuda else 2),
            bf16=session.machine["native_bf16"],
            device=session.machine["type"],
            rates=QUICK_RATES if session.quick else LEARNING_RATES,
        )
        self.searched: list[tuple[str, ...]] = []
        self.flags: dict[str, str] = {}
        self._written = False

    def programs(self) -> dict[str, Callable[[int], dict[str, Any] | None]]:
        """Name -> round -> its curve; the learning rates are searched here."""
        work, options = self.work, self.session.options
        chosen = {
            FINETUNE: ("ours", {"recipe": "finetune", "overrides": self.overrides}),
            LINEAR_PROBE: ("ours", {"recipe": "linear_probe", "overrides": self.overrides}),
            EXAMPLE: ("example", {"flags": {}}),
            EXAMPLE_BEST: self.best(EXAMPLE_BEST, "example", work.example),
        }
        if options.timm is not None:
            chosen[TIMM] = self.best(TIMM, "timm", work.timm)
        if options.autotimm is not None:
            chosen[AUTOTIMM] = self.best(AUTOTIMM, "autotimm", work.autotimm)
        self.flags = {name: flags_text(settings.get("flags", {})) for name, (_, settings) in chosen.items()}
        self.flags |= dict.fromkeys((FINETUNE, LINEAR_PROBE), "the recipe")
        return {
            name: lambda number, target=target, settings=settings: self.measure(target, settings, number)
            for name, (target, settings) in chosen.items()
        }

    def best(self, name: str, target: str, flags_at: Callable[[float], Any]) -> tuple[str, dict[str, Any]]:
        """The learning rate that reaches the target first, else the one with the highest accuracy, by one run each."""
        candidates = [{"flags": flags_at(rate)} for rate in self.work.rates]
        if len(candidates) == 1:
            return target, candidates[0]
        order = []
        for rate, settings in zip(self.work.rates, candidates, strict=True):
            result = self.measure(target, settings, -1)
            curve = (result or {}).get("curve")
            seconds = None if curve is None else seconds_until(curve, self.session.options.target)
            accuracy = 0.0 if curve is None else best(curve)[0]
            order.append((float("inf") if seconds is None else seconds, -accuracy))
            cells = (middle([seconds]), f"{accuracy:.4f}") if curve else (failure([result]) or "no time left", "-")
            self.searched.append((name, f"{rate:g}", *cells))
        return target, candidates[order.index(min(order))]

    def measure(self, target: str, settings: dict[str, Any], number: int) -> dict[str, Any] | None:
        options = self.session.options
        named = {"network": options.network, **settings, "seed": max(number, 0)}
        more: dict[str, Any] = {}  # where a rival is installed; a path does not name a measurement
        if target == "timm":
            more = {"checkout": str(options.timm), "device": self.work.device}
        elif target == "autotimm":  # not resolved: the Python of an environment is a link
            more = {"python": str(options.autotimm.absolute())}
        with workplace() as output:
            return self.session.measure(
                f"benchmarks.photographs:{target}",
                named,
                lambda: {"place": self.place(), "output": output, **more},
                number,
            )

    def place(self) -> str:
        """The folder of photographs and weights, which are written when first needed."""
        if not self._written:
            self._written = True
            options = self.session.options
            target, inputs = "write_small", {"folder": self.shared, "network": options.network}
            if not self.session.quick:
                target = "write_photographs"
                inputs["network"] = str(data_folder(options.network))
                inputs["photographs"] = str(data_folder("clothing"))
            written = self.session.call(f"benchmarks.photographs:{target}", inputs)
            if "error" in written:
                raise UserError(f"the photographs and weights could not be written: {written['error']}")
        return self.shared


def headings(target: float) -> tuple[str, ...]:
    return ("program", "flags", f"seconds to {target:g}: median (least to most)", "reached",
            "best accuracy, mean (least to most)", "seconds to it", "last accuracy, mean", "command, s")  # fmt: skip


def program_rows(
    results: dict[str, list[dict[str, Any] | None]], flags: dict[str, str], target: float
) -> list[tuple[str, ...]]:
    """One row per program: when it reaches the target, and how high it comes."""
    rows = []
    for name, of_rounds in results.items():
        curves = [result["curve"] for result in of_rounds if result and "curve" in result]
        if not curves:
            rows.append((name, flags[name], failure(of_rounds) or "not measured: no time left", *["-"] * 5))
            continue
        reached = [seconds for curve in curves if (seconds := seconds_until(curve, target)) is not None]
        spread = f" ({min(reached):.3g} to {max(reached):.3g})" if len(reached) > 1 else ""
        tops = [best(curve) for curve in curves]
        rows.append(
            (
                name,
                flags[name],
                middle(reached) + spread if reached else "never",
                f"{len(reached)} of {len(curves)}",
                mean_and_spread([accuracy for accuracy, _ in tops]),
                middle([seconds for _, seconds in tops]),
                f"{mean(curve[-1][1] for curve in curves):.4f}",
                middle([result["wall_seconds"] for result in of_rounds if result and "curve" in result]),
            )
        )
    return rows


def speedup_rows(curves: dict[str, list[Curve | None]], target: float) -> list[tuple[str, ...]]:
    """One row per pair of a program of this package and a rival; figures are paired within a round."""
    rows = []
    for ours in (FINETUNE, LINEAR_PROBE):
        for name in curves:
            if name in (FINETUNE, LINEAR_PROBE):
                continue
            both = [(own, other) for own, other in zip(curves[ours], curves[name], strict=True) if own and other]
            targets = [(seconds_until(other, target), seconds_until(own, target)) for own, other in both]
            tops = [(best(other)[1], seconds_until(own, best(other)[0])) for own, other in both]
            differences = [100 * (best(own)[0] - best(other)[0]) for own, other in both]
            rows.append(
                (ours, name, *sooner(targets), *sooner(tops), with_interval(differences, lambda value: f"{value:+.1f}"))
            )
    return rows


def sooner(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[str, str]:
    """Ratio and number of pairs as text; says who never gets there where one does not."""
    if not pairs:
        return "-", "0"
    theirs, ours = zip(*pairs, strict=True)
    cell, number = ratio_cells(theirs, ours)
    missing = [who for who, seconds in (("program", theirs), ("hf_accel", ours)) if None in seconds]
    words = [f"{who} never in {sum(s is None for s in (theirs if who == 'program' else ours))}" for who in missing]
    return "; ".join([*([cell] if cell != "-" else []), *words]) or "-", number


def notes(race: Race) -> list[str]:
    """What all programs share, and what each was given."""
    work, quick, network = race.work, race.session.quick, race.session.options.network
    data = "two colours, a small network" if quick else f"clothing (600 photographs, 10 classes), weights of {network}"
    return [
        f"{data}; the weights in float32, a new head, seeds 0, 1, 2...; {work.epochs:g} epochs, batch {work.batch}; the row of "
        "default flags has those of the example: 3 epochs, batch 8, learning rate 5e-5, fp32, no worker",
        "each program evaluates all test photographs after every epoch, as its validation split; seconds from the start of the "
        "process to the line with the accuracy, imports, reading, decoding and all evaluations included",
        "the best accuracy is the highest of all epochs on the test photographs, which flatters every program alike",
        f"best flags: the best of the learning rates {', '.join(f'{rate:g}' for rate in work.rates)} (first to the target), "
        f"bf16 {work.bf16}, {work.workers} workers; for timm also AdamW, channels_last, a schedule by step; for AutoTimm "
        "without its learning-rate finder and without compilation",
        "programs in turn, each run a separate process; ratios within a round; the learning rates of hf_accel are those of "
        "its recipe and were not searched here",
    ]


def versions(results: dict[str, list[dict[str, Any] | None]]) -> list[str]:
    """The versions of the rivals that are not among the libraries of this environment."""
    found = {name.partition(",")[0]: result["version"] for name, of in results.items() for result in of
             if result and result.get("version")}  # fmt: skip
    return [", ".join(f"{name} {version}" for name, version in found.items())] if found else []


if __name__ == "__main__":
    raise SystemExit(run(main))
