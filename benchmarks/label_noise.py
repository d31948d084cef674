"""`python -m benchmarks.label_noise`: training on wrong labels, by the ordinary loss and by one that tolerates them.

Imagenette with its official noisy labels: half of the train labels are wrong, the validation labels are right. The published
scores are those of fastai/imagenette's leaderboard for 128 px.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import mean_and_spread, run_recipe
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, workplace
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import merge
from hf_accel.errors import UserError

DESCRIPTION = """\
Test accuracy on Imagenette with half of its train labels wrong: a small ResNet from scratch at 128 px, with the ordinary loss
and with the generalized cross-entropy, next to the published scores.

  python -m benchmarks.label_noise --imagenette ./imagenette2-160

The folder has train/, val/ and noisy_imagenette.csv; default: imagenette/ in HF_ACCEL_DATA. Without it nothing is measured.
--pairs is the number of seeds. Flags of `hf-accel train` change every run."""

TABLE = "noisy_imagenette.csv"  # https://github.com/fastai/imagenette
COLUMN = "noisy_labels_50"
PUBLISHED = {5: 0.6660, 20: 0.7936}  # epochs -> accuracy of one run of the leaderboard's baseline
NETWORK = {  # a ResNet-18 of half the width
    "model": {"name": "timm/resnet18", "pretrained": False, "args": {"channels": [32, 64, 128, 256]}},
    "data": {"image_size": 128, "augment": {"crop": "random_resized", "scale": [0.35, 1.0]}},
    "training": {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 256, "label_smoothing_factor": 0.0},
}
LOSSES = {
    "cross-entropy": {},
    "generalized cross-entropy, 0.7": {"training": {"generalized_cross_entropy": 0.7}},
}
TINY = {"data": {"image_size": 32}, "training": {"per_device_train_batch_size": 8}}
HEADINGS = ("epochs", "program", "test accuracy, mean (least to most)", "training, s", "command, s", "seeds")


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("label_noise", DESCRIPTION, pairs=1)
    parser.add_argument("--imagenette", type=Path, help="folder of Imagenette; default: imagenette/ in HF_ACCEL_DATA")
    parser.add_argument("--epochs", nargs="+", type=int, choices=list(PUBLISHED), help="default: 5 and 20")
    session = open_session(parser, argv)
    source = imagenette(session.options.imagenette)
    if session.quick:
        source = None
    elif source is None:
        print(f"label_noise: skipped: there is no imagenette/ with {TABLE} in HF_ACCEL_DATA", file=sys.stderr)
        return 0
    epochs = session.options.epochs or list(PUBLISHED)[: 1 if session.quick else None]
    with workplace() as shared:
        noisy = NoisyFolder(session, source, shared)
        results = session.rounds(
            {
                f"{number} {loss}": lambda seed, number=number, loss=loss: session.measure(
                    "benchmarks.label_noise:train",
                    {"epochs": number, "loss": loss, "overrides": merge(TINY if session.quick else {}, session.overrides),
                     "seed": seed},
                    noisy.places,
                    seed,
                )
                for number in epochs
                for loss in LOSSES
            }
        )  # fmt: skip
    rows = []
    for number in epochs:
        rows.append(
            (str(number), "published: baseline of fastai/imagenette", f"{PUBLISHED[number]:.4f}", "-", "-", "1")
        )
        rows += [row(number, loss, results[f"{number} {loss}"]) for loss in LOSSES]
    session.write([("Imagenette, half of the train labels wrong", HEADINGS, rows)], notes(session.quick))
    return 0


def imagenette(given: Path | None) -> Path | None:
    """The folder that was given, or the default one; None where the default one is not there.

    Raises:
        UserError: the given folder is not Imagenette with its table of labels.
    """
    if given is None:
        try:
            folder = data_folder("imagenette")
        except UserError:
            return None
        return folder if (folder / TABLE).is_file() else None
    if not (given / TABLE).is_file():
        raise UserError(f"--imagenette {given}: has no {TABLE}, expected a folder with train/, val/ and {TABLE}")
    return given


class NoisyFolder:
    """Imagenette sorted by its noisy labels, written when it is first needed."""

    def __init__(self, session: Session, source: Path | None, shared: str) -> None:
        self.session = session
        self.source = source
        self.folder = Path(shared) / "noisy"

    def places(self) -> dict[str, str]:
        """Arguments of `train`: the data, and an output folder."""
        if not self.folder.exists():
            source = self.source
            if source is None:
                source = self.folder.with_name("small")
                write_small(source)
            write_noisy(source, self.folder)
        return {"data": str(self.folder), "output": str(self.folder.with_name("run"))}


def write_noisy(source: Path, folder: Path) -> None:
    """Write train/ and test/, a folder for each class in both: train images by their noisy label, test images by the true one.

    Images are linked where the file system can, else copied.

    Raises:
        UserError: an image of the table is not there.
    """
    with (source / TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image = source / row["path"]
        is_test = row["is_valid"] == "True"
        label = row["noisy_labels_0"] if is_test else row[COLUMN]
        # images of two classes may have the same file name
        target = folder / ("test" if is_test else "train") / label / f"{image.parent.name}_{image.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            link_or_copy(image, target)
        except FileNotFoundError:
            raise UserError(f"{source / TABLE}: names {row['path']}, which is not in {source}") from None


def link_or_copy(image: Path, target: Path) -> None:
    try:
        os.link(image, target)
    except OSError:  # another file system, or one without links
        shutil.copy(image, target)


def write_small(folder: Path) -> None:
    """An Imagenette of two classes of grey for a rehearsal."""
    import numpy as np
    import PIL.Image

    rows = []
    for split, number in (("train", 16), ("val", 4)):
        for label, other, shade in (("n01", "n02", 60), ("n02", "n01", 190)):
            (folder / split / label).mkdir(parents=True)
            for index in range(number):
                noise = np.random.default_rng([index, shade]).integers(-30, 30, (32, 32, 3))
                name = f"{split}/{label}/{label}_{split}_{index}.png"
                PIL.Image.fromarray((shade + noise).astype(np.uint8)).save(folder / name)
                rows.append({"path": name, "noisy_labels_0": label, COLUMN: other if index % 2 else label,
                             "is_valid": str(split == "val")})  # fmt: skip
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def train(data: str, output: str, epochs: int, loss: str, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """The network with one loss, by the recipe of the convolutional networks from scratch."""
    settings = merge(merge(NETWORK, LOSSES[loss]), {"training": {"num_train_epochs": epochs}})
    flags = {"recipe": "zoo_resnet18_cifar10", "data.name": data, "output_dir": output, "overwrite": "", "seed": seed}
    return run_recipe(flags | as_flags(merge(settings, overrides)))


def row(epochs: int, loss: str, results: list[dict[str, Any] | None]) -> tuple[str, ...]:
    measured = [value for value in figures(results, "accuracy") if value is not None]
    shown = mean_and_spread(measured) if measured else failure(results) or "not measured: no time left"
    seconds = (middle(figures(results, name)) for name in ("train_seconds", "wall_seconds"))
    return str(epochs), f"hf_accel, {loss}", shown, *seconds, str(len(measured))


def notes(quick: bool) -> list[str]:
    data = "grey squares in place of Imagenette" if quick else f"Imagenette, train labels by {COLUMN} of {TABLE}"
    return [
        f"{data}; test: the validation images with their true labels, scored once, with the last weights; 128 px",
        f"hf_accel: {', '.join(f'{name} {value}' for name, value in as_flags(NETWORK).items())}; otherwise the recipe "
        "zoo_resnet18_cifar10: SGD, cosine, weight decay 5e-4",
        "published: the leaderboard of fastai/imagenette for 50 % label noise at 128 px, one run of each, with another network "
        "and schedule",
        "training: optimisation alone, without evaluation, saving and the first 3 steps; command: all of it; medians",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
