"""`python -m benchmarks.prediction`: images/s of `hf-accel predict` and of transformers' `pipeline` on files of photographs.

Both read the same folder with the same weights in float32. The batch size and the workers of `pipeline` are searched first,
one run each; the best are then run in turn with this package.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.decoding import SIZES, written
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
from benchmarks.workloads import data_folder
from hf_accel.cli import run
from hf_accel.errors import UserError

DESCRIPTION = """\
Images/s of `hf-accel predict`, in float32 and with --bf16 auto, and of pipeline("image-classification") with its best batch
size and number of workers, on photographs of 12 megapixels and of 500 pixels.

  python -m benchmarks.prediction"""

OURS, OURS_BF16, PIPELINE = "hf-accel predict", "hf-accel predict --bf16 auto", "pipeline, best flags"
HEADINGS = ("model", "photographs", "program", "images/s", "program / pipeline (95 % interval)", "same class as pipeline",
            "pairs")  # fmt: skip
COUNTS = {"12 megapixels": 24, "500 px": 192}
NETWORKS = ("efficientnet_lite0", "timm/vit_tiny_patch16_224")  # a folder below HF_ACCEL_DATA, or random weights


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("prediction", DESCRIPTION)
    parser.add_argument("--model", nargs="+", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--seconds", type=float, help="time given to each program in each round; default 20")
    session = open_session(parser, argv)
    models = session.options.model or (("timm/test_resnet",) if session.quick else NETWORKS)
    rows: list[tuple[str, ...]] = []
    searched: list[tuple[str, ...]] = []
    with workplace() as place:
        for model in models:
            for number, size in enumerate(SIZES):
                contest = Contest(session, model, size, Path(place), f"photographs-{number}")
                rows += contest.rows()
                searched += contest.searched
    session.write(
        [
            ("Rates", HEADINGS, rows),
            (
                "Flags of `pipeline` that were tried, one run each",
                ("model", "photographs", "batch_size", "num_workers", "images/s"),
                searched,
            ),
        ],
        [
            "from the files to the probabilities, everything included but the start of the program and a first batch; each run "
            "a separate process, programs in turn; medians",
            "float32 weights; batches of 32 for hf-accel predict, its default; the photographs stay in the page cache",
        ],
    )
    return 0


class Contest:
    """The programs on one network and one size of photographs."""

    def __init__(self, session: Session, model: str, size: str, place: Path, photographs: str) -> None:
        self.session, self.model, self.size = session, model, size
        self.place, self.photographs = place, place / photographs
        self.count = 3 if session.quick else COUNTS[size]
        self.searched: list[tuple[str, ...]] = []

    def rows(self) -> list[tuple[str, ...]]:
        batches, workers = ((1, 2), (0,)) if self.session.quick else ((1, 8, 32), (0, 2))
        flags = self.best([(batch, number) for batch in batches for number in workers])
        programs: dict[str, Callable[[int], dict[str, Any] | None]] = {
            OURS: lambda n: self.ours(False, n),
            OURS_BF16: lambda n: self.ours(True, n),
            PIPELINE: lambda n: self.pipeline(*flags, n),
        }
        results = self.session.rounds(programs)
        baseline = figures(results[PIPELINE], "images_per_second")
        rows = []
        for name, measured in results.items():
            rates = figures(measured, "images_per_second")
            shown = name if name != PIPELINE else f"{name}: batch_size {flags[0]}, num_workers {flags[1]}"
            ratio, pairs = ratio_cells(rates, baseline)
            same = same_classes(measured, results[PIPELINE])
            rows.append((self.model, self.size, failure(measured) or shown, middle(rates), ratio, same, pairs))
        return rows

    def best(self, candidates: list[tuple[int, int]]) -> tuple[int, int]:
        """The batch size and the number of workers of the fastest pipeline, by one run each."""
        rates = []
        for batch_size, num_workers in candidates:
            result = self.pipeline(batch_size, num_workers, -1)
            rates.append((result or {}).get("images_per_second", 0.0))
            cells = failure([result]) or middle([rates[-1]])
            self.searched.append((self.model, self.size, str(batch_size), str(num_workers), cells))
        return candidates[rates.index(max(rates))]

    def ours(self, bf16: bool, number: int) -> dict[str, Any] | None:
        return self._measure("benchmarks.prediction:ours", {"bf16": bf16}, number)

    def pipeline(self, batch_size: int, num_workers: int, number: int) -> dict[str, Any] | None:
        flags = {"batch_size": batch_size, "num_workers": num_workers}
        return self._measure("benchmarks.prediction:pipelines", flags, number)

    def _measure(self, target: str, flags: dict[str, Any], number: int) -> dict[str, Any] | None:
        seconds = self.session.options.seconds or (0.1 if self.session.quick else 20.0)
        settings = {"model": self.model, "size": self.size, "count": self.count, "seconds": seconds, **flags}
        return self.session.measure(target, settings, self._places, number)

    def _places(self) -> dict[str, Any]:
        network = self.place / self.model.replace("/", "-")
        if not network.is_dir():
            arguments = {"folder": str(network), "model": self.model}
            result = self.session.call("benchmarks.prediction:write_network", arguments)
            if "error" in result:
                raise UserError(f"{self.model}: the model could not be written: {result['error']}")
        return {"network": str(network), **written(self.session, str(self.photographs), self.size, self.count)}


def same_classes(measured: Sequence[dict[str, Any] | None], others: Sequence[dict[str, Any] | None]) -> str:
    """The share of the files that get the same likeliest class, over all rounds, as text."""
    pairs = [
        pair
        for one, other in zip(measured, others, strict=True)
        if one and other and "classes" in one and "classes" in other
        for pair in zip(one["classes"], other["classes"], strict=True)
    ]
    return f"{sum(one == other for one, other in pairs) / len(pairs):.1%}" if pairs else "-"


def write_network(folder: str, model: str) -> dict[str, Any]:
    """A model and its processor in float32: of a folder below HF_ACCEL_DATA, or of timm with random weights."""
    from transformers import set_seed

    from hf_accel.config.sections import ModelSettings
    from hf_accel.models.load import load_model, load_trained

    set_seed(0)
    if model.startswith("timm/"):
        settings = ModelSettings(name=model, pretrained=False)
        loaded = load_model(settings, [f"class {number}" for number in range(10)])
    else:
        loaded = load_trained(str(data_folder(model)))
    loaded.model.float().save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return {}


def ours(network: str, folder: str, model: str, size: str, count: int, seconds: float, bf16: bool) -> dict[str, Any]:
    """The rate of what `hf-accel predict` does to a folder, and the class of each file."""
    from hf_accel.machine.precision import native_bf16
    from hf_accel.predict import load_for_torch, task_of

    task = task_of(network)
    loaded, state = load_for_torch(task, network, argparse.Namespace(model=network))
    uses_bf16 = bf16 and native_bf16(state.device)[0]

    def classify(files: list[Path]) -> list[str]:
        answers = task.score_sources(loaded, files, bf16=uses_bf16)
        return [loaded.label_names[int(answer.logits.argmax())] for answer in answers]

    return _rate(classify, sorted(Path(folder).glob("*.jpg")), seconds)


def pipelines(
    network: str, folder: str, model: str, size: str, count: int, seconds: float, batch_size: int, num_workers: int
) -> dict[str, Any]:
    """The same of a pipeline."""
    import torch
    from transformers import pipeline

    from hf_accel.training.arguments import accelerator_type

    classifier = pipeline("image-classification", network, dtype=torch.float32, device=accelerator_type())

    def classify(files: list[Path]) -> list[str]:
        names = [str(file) for file in files]
        answers = classifier(names, batch_size=batch_size, num_workers=num_workers, top_k=1)
        return [answer[0]["label"] for answer in answers]

    return _rate(classify, sorted(Path(folder).glob("*.jpg")), seconds)


def _rate(classify: Callable[[list[Path]], list[str]], files: list[Path], seconds: float) -> dict[str, Any]:
    """Images/s over whole passes, after a first batch."""
    classify(files[:32])
    images, start = 0, time.perf_counter()
    while True:
        classes = classify(files)
        images += len(files)
        spent = time.perf_counter() - start
        if spent >= seconds:
            return {"images_per_second": images / spent, "classes": classes}


if __name__ == "__main__":
    raise SystemExit(run(main))
