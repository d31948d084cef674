"""One call of a benchmark: its options, the machine, the measurements kept so far, and the table that is printed.

Next to `results/NAME_DEVICE_DATE.md`, to which tables are appended, a file of the same name has one line of JSON per
measurement. `--resume` takes finished ones from there, so that a benchmark may take longer than the time at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import processes
from hf_accel.cli import parse_with_overrides
from hf_accel.config.flags import overrides_from_flags
from hf_accel.errors import UserError
from hf_accel.formatting import format_quantity
from hf_accel.measure.paired import paired_ratio
from hf_accel.privacy import published_command
from hf_accel.tables import format_table

RESULTS = processes.REPOSITORY / "benchmarks" / "results"
REHEARSALS = processes.REPOSITORY / "outputs" / "benchmarks" / "rehearsals"  # a rehearsal is not a result
LIBRARIES = ("torch", "transformers", "timm", "accelerate", "datasets", "hf_accel")
PROVENANCE = ("python", *LIBRARIES, "driver", "cuda", "commit")


class Session:
    """A benchmark being run.

    Args:
        name: the name of the benchmark.
        options: the parsed flags of `benchmark_parser`.
        flags: the other flags, those of `hf-accel train`; they apply to the runs of this package.
        argv: the command line without the program.
    """

    def __init__(self, name: str, options: argparse.Namespace, flags: dict[str, str], argv: Sequence[str]) -> None:
        self.name = name
        self.options = options
        self.quick: bool = options.quick
        self.pairs: int = options.pairs or (2 if self.quick else options.default_pairs)
        self.overrides = overrides_from_flags(flags)
        self.command = published_command(["", *argv])
        self.deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        self.is_out_of_time = False
        self.num_new = 0
        self._longest: dict[str, float] = {}
        try:
            self.machine = self.call("benchmarks.machine:describe", {"quick": self.quick})
        except processes.OutOfTimeError:
            raise UserError(
                f"--minutes {options.minutes}: too short to describe the machine, expected 1 or more"
            ) from None
        if "error" in self.machine:
            raise UserError(f"the machine could not be described: {self.machine['error']}")
        self.is_cuda = self.machine["type"] == "cuda"
        self.file = self._file()
        self._kept = self._read_kept()

    def measure(
        self,
        target: str,
        settings: dict[str, Any],
        places: Callable[[], dict[str, Any]] | None = None,
        round_number: int = 0,
    ) -> dict[str, Any] | None:
        """Do one measurement in a separate process, unless it is kept from before.

        Args:
            target: `package.module:function`.
            settings: its arguments; they name the measurement.
            places: gives further arguments, which do not name it, such as temporary folders; called only if needed.
            round_number: which repetition this is.
        Returns:
            What the function returned, {"error": ...}, or None: there is no time left for it.
        """
        versions = [self.machine["environment"][name] for name in LIBRARIES]
        text = json.dumps([target, settings, round_number, versions], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key in self._kept:
            return self._kept[key]
        what = json.dumps([target, settings], sort_keys=True)
        if self._seconds_left() < self._longest.get(what, 0.0):
            self.is_out_of_time = True
        if self.is_out_of_time:
            return None
        print(f"{self.name}: {target.rpartition('.')[2]} {_short(settings)}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            result = self.call(target, {**settings, **(places() if places else {})})
        except processes.OutOfTimeError:
            self.is_out_of_time = True
            return None
        self._longest[what] = max(self._longest.get(what, 0.0), time.monotonic() - start)
        if "error" in result:
            print(f"{self.name}: failed: {result['error']}", file=sys.stderr)
        self._keep({"key": key, "target": target, "settings": settings, "round": round_number, "result": result})
        return result

    def rounds(
        self, measures: dict[str, Callable[[int], dict[str, Any] | None]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """Measure each of these `self.pairs` times, in turn; each round begins with another one.

        Args:
            measures: name -> round number -> what `measure` returned.
        """
        names = list(measures)
        results: dict[str, list[dict[str, Any] | None]] = {name: [None] * self.pairs for name in names}
        for number in range(self.pairs):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                results[name][number] = measures[name](number)
        return results

    def call(self, target: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a function in a separate process, within the time that is left; nothing is kept."""
        left = self._seconds_left()
        return processes.call_in_process(target, arguments, None if left == float("inf") else max(left, 0.1))

    def write(self, tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]], notes: Sequence[str]) -> None:
        """Print the tables in Markdown and, when something new was measured, append them to the results.

        Args:
            tables: (title, headings, rows) each.
            notes: how it was measured: what was excluded, batch, steps, n.
        """
        command = f"python -m benchmarks.{self.name} {self.command}".rstrip()
        lines = [f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: `{command}`"]
        lines += ["", *(f"- {note}" for note in (*self._provenance(), *notes))]
        if self.is_out_of_time:
            lines.append("- **not finished**: the time given was used up; the same command with --resume continues it")
        for title, headings, rows in tables:
            align = "l" * len(headings)  # a cell holds a figure, an interval or why there is none
            lines += ["", f"**{title}**", "", format_table(headings, rows, "markdown", align)]
        text = "\n".join(lines) + "\n"
        print(text)
        if self.num_new:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        print(f"{self.file}{'' if self.num_new else ': nothing new was measured'}", file=sys.stderr)

    def fraction_of_peak(self, flops: float, dtype: str) -> str:
        """FLOP/s as a share of the matrix peak of this machine."""
        return f"{100 * flops / self.machine['flops'][dtype]:.0f} %"

    def _provenance(self) -> list[str]:
        environment, flops = self.machine["environment"], self.machine["flops"]
        device = environment["cpu"] if not self.is_cuda else f"{environment['device']}, {environment['cpu']}"
        side = self.machine["matrix_side"]
        return [
            f"{device}, {environment['cores']} cores, {environment['memory_gib']} GiB; {self.machine['reason']}",
            ", ".join(f"{name} {environment[name]}" for name in PROVENANCE if environment[name]),
            f"matrix product {side} x {side}: "
            + ", ".join(f"{dtype} {value / 1e9:,.0f} GFLOP/s" for dtype, value in flops.items()),
            *(["rehearsal in small: these figures mean nothing"] if self.quick else []),
        ]

    def _file(self) -> Path:
        environment = self.machine["environment"]
        device = environment["device"] if self.is_cuda else f"{environment['cpu']} {environment['cores']} cores"
        start = f"{self.options.stage or self.name}_{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}_"
        folder = self.options.results or (REHEARSALS if self.quick else RESULTS)
        before = sorted(folder.glob(f"{start}*.jsonl")) if self.options.resume else []
        return before[-1].with_suffix(".md") if before else folder / f"{start}{datetime.now(UTC):%Y-%m-%d}.md"

    def _read_kept(self) -> dict[str, dict[str, Any]]:
        lines = self.file.with_suffix(".jsonl")
        if not (self.options.resume and lines.is_file()):
            return {}
        entries = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
        return {entry["key"]: entry["result"] for entry in entries if "error" not in entry["result"]}

    def _keep(self, entry: dict[str, Any]) -> None:
        self.num_new += 1
        self._kept[entry["key"]] = entry["result"]
        lines = self.file.with_suffix(".jsonl")
        lines.parent.mkdir(parents=True, exist_ok=True)
        entry |= {"time": datetime.now(UTC).isoformat(timespec="seconds")}
        entry |= {"commit": self.machine["environment"]["commit"]}
        with lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _seconds_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()


def benchmark_parser(name: str, description: str, pairs: int = 5) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="rehearse in small, in seconds; the figures mean nothing")
    parser.add_argument("--pairs", type=int, help=f"repetitions of each measurement, in turn; default {pairs}")
    parser.set_defaults(default_pairs=pairs)
    parser.add_argument("--resume", action="store_true", help="take finished measurements from the last results file")
    parser.add_argument("--minutes", type=float, help="stop in time; --resume continues")
    parser.add_argument("--stage", help="first part of the name of the results file; default: the benchmark's name")
    parser.add_argument("--results", type=Path, help="folder of the results; default: benchmarks/results")
    return parser


def open_session(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Session:
    """Parse the command line and describe the machine."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options, flags = parse_with_overrides(parser, argv)
    if options.pairs is not None and options.pairs < 1:
        raise UserError(f"--pairs {options.pairs}: expected at least 1")
    return Session(parser.prog.rpartition(".")[2], options, flags, argv)


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder for the inputs and outputs of one call."""
    return tempfile.TemporaryDirectory(prefix="hf_accel-benchmark-")


def figures(results: Sequence[dict[str, Any] | None], name: str) -> list[float | None]:
    """One figure of every round; None where it was not measured."""
    return [None if result is None else result.get(name) for result in results]


def middle(values: Sequence[float | None]) -> str:
    """The median, as text."""
    measured = sorted(value for value in values if value is not None)
    if not measured:
        return "-"
    half = len(measured) // 2
    return format_quantity(measured[half] if len(measured) % 2 else (measured[half - 1] + measured[half]) / 2)


def ratio_cells(values: Sequence[float | None], baseline: Sequence[float | None]) -> tuple[str, str]:
    """The ratio with its 95 % interval, and the number of pairs, as text."""
    pairs = [(v, b) for v, b in zip(values, baseline, strict=True) if v is not None and b is not None]
    if not pairs:
        return "-", "0"
    ratio = paired_ratio(*zip(*pairs, strict=True))
    interval = "" if ratio.low is None else f" ({ratio.low:.3g} to {ratio.high:.3g})"
    return f"{ratio.ratio:.3g}{interval}", str(ratio.num_pairs)


def failure(results: Sequence[dict[str, Any] | None]) -> str | None:
    """Why a measurement failed, if it always did."""
    errors = [result["error"] for result in results if result is not None and "error" in result]
    return errors[0] if errors and len(errors) == sum(result is not None for result in results) else None


def _short(settings: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items() if value not in (None, {}, []))
