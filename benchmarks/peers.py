"""`python -m benchmarks.peers`: this package against the Hugging Face example and, with --timm, timm's `train.py`.

Every program trains the same images from the same random weights with the same batch, optimizer, clipping, crop and flip.
The flags of a peer are searched first, one run each; the best are then run in turn with this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.session import (
    Session,
    benchmark_parser,
    failure,
    figures,
    middle,
    open_session,
    ratio_cells,
    workplace,
)
from benchmarks.workloads import Size, Workload, add_model_flags, chosen_models, chosen_size
from hf_accel.cli import run
from hf_accel.errors import UserError

DESCRIPTION = """\
Images/s of this package, of the Hugging Face example's method (default and best flags), and of timm's train.py.

  python -m benchmarks.peers --model timm/resnet50
  python -m benchmarks.peers --timm ../pytorch-image-models      a checkout of huggingface/pytorch-image-models

Flags of `hf-accel train` apply to this package alone: --torch_compile true, --model.channels_last false."""

OURS, EXAMPLE, EXAMPLE_BEST, TIMM = "hf_accel", "HF example, default flags", "HF example, best flags", "timm train.py"
HEADINGS = ("model", "program", "flags", "images/s", "hf_accel / program (95 % interval)", "pairs")
WORKERS = {"cpu": (0, 2), "cuda": (0, 4, 16)}  # a GPU machine has cores to spare


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("peers", DESCRIPTION)
    add_model_flags(parser)
    parser.add_argument("--timm", type=Path, help="checkout of huggingface/pytorch-image-models")
    session = open_session(parser, argv)
    if session.options.timm is not None and not (session.options.timm / "train.py").is_file():
        raise UserError(f"--timm {session.options.timm}: has no train.py, expected a checkout of pytorch-image-models")
    size = chosen_size(session)
    rows: list[tuple[str, ...]] = []
    searched: list[tuple[str, ...]] = []
    for model in chosen_models(session):
        with workplace() as place:
            comparison = Comparison(session, model, size, place)
            rows += comparison.rows()
            searched += comparison.searched
    session.write(
        [
            ("Rates", HEADINGS, rows),
            (
                "Flags that were tried, one run each",
                ("model", "program", "flags", "images/s"),
                list(dict.fromkeys(searched)),
            ),
        ],
        [
            f"CIFAR-10 at the model's size, random weights, batch {size.batch}, AdamW, random-resized crop and flip",
            f"{size.steps} steps after a warm-up of {size.warmup} (compilation is in the warm-up); with W workers at least "
            f"4 W steps after 2 W, because a loader starts with batches in stock",
            "from batch to batch: loading, transforms, step and loop; each run a separate process, programs in turn; medians",
            "timm train.py: by its own clock, less the warm-up",
        ],
    )
    return 0


class Comparison:
    """The programs of one model.

    Args:
        place: an empty folder.
    """

    def __init__(self, session: Session, model: str, size: Size, place: str) -> None:
        self.session = session
        self.model = model
        self.size = size
        self.place = place
        self.checkout: Path | None = session.options.timm
        self.searched: list[tuple[str, ...]] = []

    def rows(self) -> list[tuple[str, ...]]:
        """Search the flags, measure the pairs, and write one row per program."""
        workers = WORKERS["cuda" if self.session.is_cuda else "cpu"][: 2 if self.session.quick else None]
        largest = self.size.for_workers(max(workers))
        images = (largest.warmup + 1 + largest.steps) * self.size.batch
        self.workload = Workload(self.session, self.place, self.model, images, self.checkout is not None)
        flags: dict[str, Any] = {EXAMPLE: {}}
        flags[EXAMPLE_BEST] = self.best(
            EXAMPLE,
            [{"bf16": bf16, "dataloader_num_workers": n} for bf16 in (False, True) for n in workers],
            self.example,
        )
        if self.checkout is not None:
            flags[TIMM] = self.best_timm(workers[1:])
        programs: dict[str, Callable[[int], dict[str, Any] | None]] = {OURS: self.ours}
        programs |= {name: lambda n, name=name: self.example(flags[name], n) for name in (EXAMPLE, EXAMPLE_BEST)}
        if self.checkout is not None:
            programs[TIMM] = lambda n: self.timm(flags[TIMM], n)
        results = self.session.rounds(programs)
        rates = {name: figures(results[name], "images_per_second") for name in programs}
        ours = next((r["settings"] for r in results[OURS] if r and "settings" in r), "-")
        shown = {OURS: ours, **{name: flags_text(value) for name, value in flags.items()}}
        return [
            (
                self.model,
                name,
                failure(results[name]) or shown[name],
                middle(rates[name]),
                *(("1", "") if name == OURS else ratio_cells(rates[OURS], rates[name])),
            )
            for name in programs
        ]

    def best(self, program: str, candidates: list[Any], measure: Callable[[Any, int], dict[str, Any] | None]) -> Any:
        """The fastest of these flags, by one run each."""
        rates = []
        for flags in candidates:
            result = measure(flags, -1)
            rate = None if result is None else result.get("images_per_second")
            rates.append(rate or 0.0)
            self.searched.append(
                (self.model, program.partition(",")[0], flags_text(flags), failure([result]) or middle([rate]))
            )
        return candidates[rates.index(max(rates))]

    def best_timm(self, workers: Sequence[int]) -> list[str]:
        """Precision and layout first, then the number of workers."""
        first = ["--workers", str(workers[0]), "--opt-kwargs", "fused=True"]
        amp, layout = ["--amp", "--amp-dtype", "bfloat16"], ["--channels-last"]
        chosen = self.best(TIMM, [first + a + b for a in ([], amp) for b in ([], layout)], self.timm)
        others = [["--workers", str(n), *chosen[2:]] for n in workers[1:]]
        return self.best(TIMM, [chosen, *others], self.timm)

    def ours(self, number: int) -> dict[str, Any] | None:
        settings = {"model": self.model, **asdict(self.size), "seed": number, "overrides": self.session.overrides}
        return self.session.measure("benchmarks.ours:ours", settings, self.workload.places, number)

    def example(self, flags: dict[str, Any], number: int) -> dict[str, Any] | None:
        size = self.size.for_workers(flags.get("dataloader_num_workers", 0))
        settings = {"model": self.model, **asdict(size), "flags": flags, "seed": max(number, 0)}
        return self.session.measure("benchmarks.hf_example:train", settings, self.workload.places, number)

    def timm(self, flags: list[str], number: int) -> dict[str, Any] | None:
        size = self.size.for_workers(int(flags[1]))
        settings = {
            "model": self.model,
            **asdict(size),
            "device": self.session.machine["type"],
            "flags": flags,
            "seed": max(number, 0),
        }
        return self.session.measure(
            "benchmarks.timm_script:train", settings, lambda: self.workload.timm_places(self.checkout), number
        )


def flags_text(flags: dict[str, Any] | list[str]) -> str:
    if isinstance(flags, list):
        return " ".join(flags)
    return " ".join(f"--{name} {str(value).lower()}" for name, value in flags.items()) or "none"


if __name__ == "__main__":
    raise SystemExit(run(main))
