"""`python -m benchmarks.untidy`: data as people have it, one table: a CSV, groups, wrong labels, several labels per image.

Every row is whole commands on photographs of clothes, as a user types them: the recipe linear_probe with EfficientNet-Lite0,
and finetune for the mean of the weights of several epochs.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from benchmarks.accuracy import mean_and_spread, run_recipe
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, workplace
from benchmarks.trust import data_places
from benchmarks.workloads import as_flags
from hf_accel.cli import run
from hf_accel.report.run_report import RunReport
from hf_accel.runs.process import failure_reason

DESCRIPTION = """\
Test accuracy and calibration with labels from a CSV, letterboxed images, groups, changed labels before and after those that
`hf-accel audit` finds are left out, pairs of photographs with both labels, and the mean of the weights of the last epochs.

  python -m benchmarks.untidy

Needs clothing/, hymenoptera/ and efficientnet_lite0/ in HF_ACCEL_DATA, and hf_accel[trust]. --pairs is the number of seeds.
Flags of `hf-accel train` change every run."""

SPLITS = ("train", "validation", "test")
GROUP_SIZE = 3  # photographs with neighbouring numbers
AVERAGED = 3  # epochs
PROBE = {"recipe": "linear_probe"}
# each label has a classifier of its own, which is not fitted in advance
SEVERAL = {"model.task": "multi-label-image-classification", "model.fit_head": "false", "learning_rate": 5e-3,
           "num_train_epochs": 10, "data.resize": "letterbox"}  # fmt: skip
FIGURES = ("accuracy", "before", "ece_before", "ece_after", "sure", "sure_accuracy", "mean_average_precision", "f1_macro",
           "precision", "recall")  # fmt: skip
HEADINGS = ("data", "test accuracy", "without the last step", "ECE, calibrated ECE", "sure answers, right of them", "mAP",
            "macro F1", "changed labels found: precision", "recall", "commands, s", "seeds")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("untidy", DESCRIPTION, pairs=3)
    parser.add_argument("--row", nargs="+", choices=list(ROWS), help="default: all")
    session = open_session(parser, argv)
    with workplace() as shared:
        places = partial(data_places, session, Path(shared))
        names = session.options.row or list(ROWS)
        results = session.rounds({name: measurement(session, name, places) for name in names})
    session.write([("Data as people have it", HEADINGS, [row(name, results[name]) for name in names])], notes())
    return 0


def measurement(
    session: Session, name: str, places: Callable[[], dict[str, Any]]
) -> Callable[[int], dict[str, Any] | None]:
    """Seed -> result of one row."""
    settings = {"row": name, "quick": session.quick, "overrides": session.overrides}
    return lambda seed: session.measure("benchmarks.untidy:measure", {**settings, "seed": seed}, places, seed)


def measure(
    row: str, seed: int, quick: bool, overrides: dict[str, Any], data: str, model: str, other: str
) -> dict[str, Any]:
    """The commands of one row.

    Returns:
        Some of `FIGURES`, and seconds of all commands; or error.
    """
    rng = np.random.default_rng(seed)
    with workplace() as place:
        flags = {"model.name": model, "seed": seed, **as_flags(overrides)}
        start = time.perf_counter()
        try:
            found = ROWS[row](Path(place), Path(data), flags, rng)
        except CommandError as error:
            return {"error": str(error)}
        return {**found, "seconds": time.perf_counter() - start}


class CommandError(Exception):
    """A command of this package failed."""


def trained(place: Path, name: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Figures of `hf-accel train`; the run is in the folder `name`."""
    folder = place / name
    done = run_recipe({**flags, "output_dir": folder})
    if "error" in done:
        raise CommandError(done["error"])
    report = RunReport.load(folder)
    calibration = report.calibration
    found = {"accuracy": report.test.accuracy, "f1_macro": report.test.f1_macro}
    found["mean_average_precision"] = report.test.mean_average_precision
    if calibration is not None:
        found |= {"ece_before": calibration.ece_before, "ece_after": calibration.ece_after}
        found |= {"sure": calibration.test_sure, "sure_accuracy": calibration.test_sure_accuracy}
    return found


def command(*words: Any) -> str:
    """What `hf-accel WORDS` prints."""
    done = subprocess.run([sys.executable, "-m", "hf_accel", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise CommandError(failure_reason(done.returncode, done.stdout + done.stderr))
    return done.stdout


def photographs(data: Path) -> list[tuple[str, str, str]]:
    """Split, class and path of each photograph, relative to the folder."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    return [(*path.relative_to(data).parts[:2], str(path.relative_to(data))) for path in files]


def write_table(file: Path, rows: Sequence[dict[str, str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def as_it_is(place: Path, data: Path, flags: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Folders of classes, with their own splits."""
    return trained(place, "run", {**PROBE, "data.name": data, **flags})


def from_a_table(place: Path, data: Path, flags: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A CSV with groups, of which a part validates; letterboxed."""
    rows = []
    for number, (split, label, path) in enumerate(photographs(data)):
        group = f"{split} {number // GROUP_SIZE}"
        rows.append({"path": path, "kind": label, "split": "test" if split == "test" else "train", "group": group})
    asked = {"data.name": data, "data.labels": write_table(place / "labels.csv", rows), "data.label_column": "kind",
             "data.group_column": "group", "data.validation": 0.19, "data.resize": "letterbox"}  # fmt: skip
    return trained(place, "run", {**PROBE, **asked, **flags})


def with_wrong_labels(
    share: float, place: Path, data: Path, flags: dict[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """A share of the train labels is changed; then what `hf-accel audit` finds is left out."""
    rows = [{"path": path, "label": label, "split": split} for split, label, path in photographs(data)]
    names = sorted({row["label"] for row in rows})
    train = [row for row in rows if row["split"] == "train"]
    changed = set()
    for number in rng.choice(len(train), round(share * len(train)), replace=False):
        row = train[number]
        row["label"] = names[(names.index(row["label"]) + int(rng.integers(1, len(names)))) % len(names)]
        changed.add(row["path"])
    asked = {**PROBE, "data.name": data, "data.labels": write_table(place / "labels.csv", rows), **flags}
    before = trained(place, "before", asked)
    audited = ("--data.labels", asked["data.labels"], "--model.name", flags["model.name"])
    command("audit", data, *audited, "--output_dir", place / "audit")
    with (place / "audit" / "labels.csv").open(newline="", encoding="utf-8") as stream:
        found = {line["file"] for line in csv.DictReader(stream) if line["found"]}
    found = {path for path in (row["path"] for row in train) if any(name.endswith(path) for name in found)}
    kept = [row for row in rows if row["path"] not in found]
    after = trained(place, "after", {**asked, "data.labels": write_table(place / "kept.csv", kept)})
    right = len(found & changed)
    scores = {"precision": right / max(1, len(found)), "recall": right / max(1, len(changed))}
    return {**after, "before": before["accuracy"], **scores}


def several_labels(place: Path, data: Path, flags: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Two photographs of a split side by side, with both labels."""
    rows = []
    files = photographs(data)
    for split in SPLITS:
        own = [(label, path) for part, label, path in files if part == split]
        for number, (label, path) in enumerate(own):
            other_label, other_path = own[int(rng.integers(len(own)))]
            name = f"{split}-{number:04}.jpg"
            side_by_side([data / path, data / other_path]).save(place / name, quality=90)
            rows.append({"file_name": name, "labels": "|".join(sorted({label, other_label})), "split": split})
    table = write_table(place / "labels.csv", rows)
    return trained(place, "run", {**PROBE, "data.name": place, "data.labels": table, **SEVERAL, **flags})


def side_by_side(paths: Sequence[Path], height: int = 224) -> PIL.Image.Image:
    pictures = []
    for path in paths:
        with PIL.Image.open(path) as picture:
            width = max(1, round(picture.width * height / picture.height))
            pictures.append(picture.convert("RGB").resize((width, height)))
    whole = PIL.Image.new("RGB", (sum(picture.width for picture in pictures), height))
    whole.paste(pictures[0], (0, 0))
    whole.paste(pictures[1], (pictures[0].width, 0))
    return whole


def mean_of_epochs(place: Path, data: Path, flags: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The mean of the weights of the last epochs, against the best epoch by validation accuracy."""
    from safetensors.torch import load_file, save_file

    asked = {"recipe": "finetune", "data.name": data, "save_total_limit": AVERAGED + 1, **flags}
    best = trained(place, "run", asked)
    checkpoints = sorted((place / "run").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    weights = [load_file(checkpoint / "model.safetensors") for checkpoint in checkpoints[-AVERAGED:]]
    mean = {
        name: sum(part[name].double() for part in weights).div(len(weights)).to(first.dtype)
        for name, first in weights[0].items()
    }
    model = place / "mean"
    shutil.copytree(place / "run" / "model", model, ignore=shutil.ignore_patterns("hf_accel_manifest.json"))
    save_file(mean, model / "model.safetensors", metadata={"format": "pt"})
    scores = json.loads(command("evaluate", model, "--data.name", data, "--format", "json"))
    return {"accuracy": scores["accuracy"], "f1_macro": scores["f1_macro"], "before": best["accuracy"]}


ROWS: dict[str, Callable[..., dict[str, Any]]] = {
    "folders": as_it_is,
    "CSV, letterboxed, held out by group": from_a_table,
    "5 % of the labels changed, those found left out": partial(with_wrong_labels, 0.05),
    "20 % of the labels changed, those found left out": partial(with_wrong_labels, 0.2),
    "two photographs side by side, both labels": several_labels,
    f"finetune, mean of the last {AVERAGED} epochs": mean_of_epochs,
}


def row(name: str, results: Sequence[dict[str, Any] | None]) -> tuple[str, ...]:
    """The row of one kind of data; why there is no figure, where it failed."""
    why = failure(results)
    if why is not None or not any(results):
        return name, why or "not measured: no time left", *["-"] * (len(HEADINGS) - 3), "0"
    of = {figure: [value for value in figures(results, figure) if value is not None] for figure in FIGURES}
    cells = {figure: mean_and_spread(values) if values else "-" for figure, values in of.items()}

    def both(one: str, other: str) -> str:
        return f"{cells[one]}, {cells[other]}" if of[one] and of[other] else "-"

    return (
        name,
        cells["accuracy"],
        cells["before"],
        both("ece_before", "ece_after"),
        both("sure", "sure_accuracy"),
        cells["mean_average_precision"],
        cells["f1_macro"],
        cells["precision"],
        cells["recall"],
        middle(figures(results, "seconds")),
        str(sum(result is not None and "error" not in result for result in results)),
    )


def notes() -> list[str]:
    return [
        "clothing: 10 classes, 600 train, 138 validation and 179 test photographs; EfficientNet-Lite0 with the weights of "
        "ImageNet-1k, recipe linear_probe; mean (least to most) over the seeds; the test labels are never changed",
        "without the last step: with all changed labels, and the best epoch by validation accuracy",
        f"CSV: train and validation rows together, groups of {GROUP_SIZE} photographs with neighbouring numbers; 19 % of the "
        "rows validate",
        "two photographs: accuracy is that of the whole set of labels; thresholds from the validation rows",
        "some of the given labels may be wrong already, and count as right",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
