"""Reports and comparisons with invented but plausible figures, for the tests of tables and pages."""

from dataclasses import replace

import numpy as np

from hf_accel.comparison.schema import Entry, RunOutcome
from hf_accel.config.recipe import load_recipe
from hf_accel.report.run_report import (
    DataSummary,
    DetailedScores,
    ModelSummary,
    PruningSummary,
    RunReport,
    Scores,
    TrainSummary,
)
from hf_accel.tasks.gallery import GalleryItem
from hf_accel.training.metrics import classification_metrics, confusion, per_class

ENVIRONMENT = {"device": "cpu", "cpu": "Test CPU", "cores": 2, "python": "3.11", "torch": "2.15", "transformers": "5.23",
               "timm": "1.0", "hf_accel": "0.1.0", "commit": "0" * 40, "command": "hf-accel train"}  # fmt: skip


def run_report(num_classes: int = 10, rows: int = 400, **train) -> RunReport:
    """A finished run over `num_classes` classes, nine in ten rows right."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % num_classes
    predicted = np.where(rng.random(rows) < 0.9, labels, rng.integers(0, num_classes, rows))
    top_ids = (predicted[:, None] + np.arange(min(5, num_classes))) % num_classes
    names = [f"class number {i}" for i in range(num_classes)]
    history = [
        {"step": 10 * step, "epoch": step / 5, "seconds": float(step), "loss": 2 / step, "learning_rate": 1e-3 / step,
         "grad_norm": 1.0, "validation_loss": 2.2 / step if step % 5 == 0 else None,
         "validation_accuracy": 1 - 0.5 / step if step % 5 == 0 else None}
        for step in range(1, 26)
    ]  # fmt: skip
    scores = classification_metrics(top_ids, labels, num_classes)
    figures = {"steps": 250, "epochs": 5.0, "world_size": 1, "resumes": 0, "effective_batch_size": 64, "seconds": 25.0,
               "images_per_second": 640.0, "step_seconds_median": 0.1, "data_wait_fraction": 0.02,
               "transform_fraction": 0.08, "peak_rss_gib": 1.5, "peak_anonymous_gib": 0.9, "read_bytes": 2**20,
               "final_loss": 0.08, "accuracy": 0.95}  # fmt: skip
    return RunReport(
        recipe="invented",
        variant="default",
        settings={"learning_rate": 1e-3, "bf16": True},
        notes=["precision: fp32 (Test CPU has neither AVX512-bf16 nor AMX-bf16)"],
        environment=ENVIRONMENT,
        data=DataSummary(
            name="pictures", fingerprint="f" * 64, train_rows=1280, validation_rows=128, test_rows=rows, labels=names
        ),
        model=ModelSummary(name="timm/resnet18", parameters=11_181_642, pretrained=False),
        train=TrainSummary(**{**figures, **train}),
        history=history,
        validation=Scores(loss=0.3, **scores),
        test=DetailedScores(
            loss=0.3,
            **scores,
            per_class=per_class(predicted, labels, names),
            confusion=confusion(predicted, labels, num_classes),
        ),
    )


def pruned_report(layers: int) -> RunReport:
    """A finished run in which the share of zeros rises from layer to layer, from 25 to 75 %."""
    report = run_report(2, 60)
    report.sparsity = [
        {"name": f"timm_model.blocks.{layer}.mlp.fc1", "shape": [20, 20], "weights": 400,
         "zeros": round(100 + 200 * layer / (layers - 1))}
        for layer in range(layers)
    ]  # fmt: skip
    zeros = sum(row["zeros"] for row in report.sparsity)
    report.pruning = PruningSummary(
        asked=0.5,
        weights=400 * layers,
        zeros=zeros,
        file_bytes=2**20,
        compressed_bytes=2**19,
        history=[[1, 0.1], [2, 0.5]],
    )
    return report


def pictures(count: int, side: int, with_mistakes: bool) -> list[GalleryItem]:
    rng = np.random.default_rng(1)
    said = {"predicted": "class number 2", "confidence": 0.987} if with_mistakes else {}
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return [GalleryItem(image, "class number 1", where=f"row {row}", **said) for row, image in enumerate(images)]


def outcome(round_number: int, started: float | None = None, test_accuracy: float = 0.9, **train) -> RunOutcome:
    report = run_report(3, 60, **train)
    report.test = replace(report.test, accuracy=test_accuracy)
    start = 1000.0 + 100 * round_number if started is None else started
    return RunOutcome(round_number, 42 + round_number, start, 20.0, report)


def model_outcome(round_number: int, recall: float, hardest: int = 0, labels: int = 3, **train) -> RunOutcome:
    """A run that gets this share of 10 images of each class right, one less of the hardest; the rest count as the next class."""
    finished = outcome(round_number, **train)
    counts = [[0] * labels for _ in range(labels)]
    for true in range(labels):
        right = round(10 * recall) - (true == hardest)
        counts[true][true], counts[true][(true + 1) % labels] = right, 10 - right
    report = finished.measured
    report.data = replace(report.data, labels=report.data.labels[:labels], test_rows=10 * labels)
    report.test = replace(
        report.test, confusion=counts, accuracy=sum(counts[i][i] for i in range(labels)) / (10 * labels)
    )
    return finished


def entries(*names: str, recipe: str = "resnet50_cifar10_scratch") -> list[Entry]:
    return [Entry(name, load_recipe(recipe, None if name == "default" else name)) for name in names]
