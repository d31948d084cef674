"""`python -m benchmarks.trust`: wrong labels that are found, and images of other data that are recognised."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from benchmarks.accuracy import mean_and_spread
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, workplace
from benchmarks.workloads import data_folder
from hf_accel.cli import run

DESCRIPTION = """\
Two questions about a pretrained network on photographs of clothes, which it sees once each, in evaluation.

  python -m benchmarks.trust --run outputs/finetune-efficientnet_lite0-clothing/default

labels: a share of the train labels is changed to another class, evenly over the classes, and `hf-accel audit` looks for them.
unfamiliar: a classifier is fitted to the train photographs, and scores tell the test photographs from those of ants and bees.
Needs clothing/, hymenoptera/ and efficientnet_lite0/ in HF_ACCEL_DATA. --pairs is the number of seeds of the changed labels."""

SHARES = (0.05, 0.2)
FIRST = 50
PASSED = 0.95  # of the validation photographs pass the threshold
LABELS = ("changed", f"precision of the first {FIRST}", "found", "precision", "recall", "seconds", "seeds")
SCORES = ("score", "AUROC", "ants and bees below the threshold", "test photographs below it")
FOLDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("trust", DESCRIPTION, pairs=3)
    parser.add_argument(
        "--run", help="folder of a finished run on clothing/, whose network is asked the second question, too"
    )
    session = open_session(parser, argv)
    run_folder = session.options.run
    with workplace() as shared:
        places = partial(data_places, session, Path(shared))
        found = session.rounds({f"{share:.0%}": measure_labels(session, share, places) for share in SHARES})
        scores = {
            name: session.measure("benchmarks.trust:unfamiliar", {"run": folder, "quick": session.quick}, places)
            for name, folder in {"frozen": None, run_folder: run_folder}.items()
            if name is not None
        }
    tables: list[Any] = [("Wrong labels", LABELS, [label_row(name, results) for name, results in found.items()])]
    tables += [(f"Photographs of other data, {name}", SCORES, score_rows(result)) for name, result in scores.items()]
    session.write(tables, notes(session.quick))
    return 0


def measure_labels(
    session: Session, share: float, places: Callable[[], dict[str, Any]]
) -> Callable[[int], dict[str, Any] | None]:
    """Seed -> result of one share."""
    return lambda seed: session.measure(
        "benchmarks.trust:wrong_labels", {"share": share, "seed": seed, "quick": session.quick}, places, seed
    )


def data_places(session: Session, shared: Path) -> dict[str, Any]:
    """The folders of the data, of the other data, and of the network."""
    if not session.quick:
        names = {"data": "clothing", "other": "hymenoptera", "model": "efficientnet_lite0"}
        return {argument: str(data_folder(name)) for argument, name in names.items()}
    if not (shared / "data").is_dir():
        write_small(shared)
    return {name: str(shared / name) for name in ("data", "other", "model")}


def write_small(folder: Path) -> None:
    """Noisy colours as data, others as other data, and a network with random weights."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    rng = np.random.default_rng(0)
    colours = {"data": {"red": (200, 60, 40), "blue": (40, 60, 200)}, "other": {"green": (60, 200, 60)}}
    for name, classes in colours.items():
        for split in ("train", "validation", "test"):
            for label, colour in classes.items():
                place = folder / name / split / label
                place.mkdir(parents=True)
                for number in range(30):
                    pixels = np.clip(np.array(colour) + rng.integers(-40, 41, (20, 20, 3)), 0, 255)
                    PIL.Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    config = {
        "input_size": [3, 32, 32],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    network = TimmWrapperConfig(architecture="test_resnet", pretrained_cfg=config, num_labels=3)
    TimmWrapperForImageClassification(network).save_pretrained(folder / "model")


def wrong_labels(data: str, other: str, model: str, share: float, seed: int, quick: bool) -> dict[str, float]:
    """Change labels of the train photographs and look for them, as `hf-accel audit` does.

    Returns:
        precision_first (of the first `FIRST`), found (their number), precision and recall of those, seconds.
    """
    import time
    from dataclasses import replace

    from hf_accel.audit import audited_recipe
    from hf_accel.data.scored_rows import load_split
    from hf_accel.measure.label_issues import label_issues
    from hf_accel.training.out_of_fold import judged_by_features, parts_of

    recipe = audited_recipe(data, retrain=False, overrides={"model": {"name": model}})
    rows = load_split(recipe.data, "train").split
    rng = np.random.default_rng(seed)
    changed = np.zeros(len(rows), bool)
    changed[rng.choice(len(rows), round(share * len(rows)), replace=False)] = True
    moved = rng.integers(1, len(rows.label_names), len(rows))
    labels = np.where(changed, (rows.labels + moved) % len(rows.label_names), rows.labels)
    rows = replace(rows, labels=labels)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        probabilities = judged_by_features(recipe, rows, parts_of(labels, FOLDS, seed), Path(scratch))
    issues = label_issues(labels, probabilities)
    seconds = time.perf_counter() - start
    first = issues.order[: 5 if quick else FIRST]
    return {
        "precision_first": float(changed[first].mean()),
        "found": int(issues.found.sum()),
        "precision": float(changed[issues.found].mean()) if issues.found.any() else 0.0,
        "recall": float(issues.found[changed].mean()),
        "seconds": seconds,
    }


def unfamiliar(data: str, other: str, model: str, run: str | None, quick: bool) -> dict[str, Any]:
    """Of the frozen network with a fitted classifier, or of that of a run.

    Returns:
        a score -> [AUROC, share of the other photographs below the threshold, share of the test photographs below it].
    """
    from scipy.special import logsumexp
    from sklearn.metrics import roc_auc_score

    from hf_accel.measure.calibration import fit_temperature
    from hf_accel.models.confidence import softmax, spread

    features, logits, labels = features_and_logits(data, other, model if run is None else str(Path(run, "model")))
    temperature = fit_temperature(logits["validation"], labels["validation"])
    units = {name: found / np.linalg.norm(found, axis=1, keepdims=True) for name, found in features.items()}
    centres = np.stack([units["train"][labels["train"] == number].mean(0) for number in np.unique(labels["train"])])
    scores: dict[str, Callable[[str], np.ndarray]] = {
        "calibrated probability": lambda name: softmax(logits[name] / temperature).max(1),
        "energy: logarithm of the sum of the exponentials": lambda name: logsumexp(logits[name], axis=1),
        "spread: norm of the logits about their mean": lambda name: spread(logits[name]),
        "cosine of the features and the nearest class mean": lambda name: (units[name] @ centres.T).max(1),
    }
    found = {}
    for title, score in scores.items():
        threshold = np.quantile(score("validation"), 1 - PASSED)
        inside, outside = score("test"), score("other")
        is_inside = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        auroc = roc_auc_score(is_inside, np.r_[inside, outside])
        found[title] = [float(auroc), float((outside < threshold).mean()), float((inside < threshold).mean())]
    return found


def features_and_logits(data: str, other: str, model: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Of train, validation, test and other: features (N, ...), logits (N, C) and, of the data's own, labels (N,)."""
    import torch

    from hf_accel.config.recipe import load_recipe
    from hf_accel.data.scored_rows import load_split
    from hf_accel.inputs.stored import StoredImages
    from hf_accel.methods.fitted_head import fit_classifier, image_features
    from hf_accel.methods.linear_probe import two_images
    from hf_accel.models.head import head_parameters
    from hf_accel.models.head_split import split_before
    from hf_accel.tasks import TASKS
    from hf_accel.training.arguments import training_arguments

    overrides = {"data": {"name": data}, "model": {"name": model}}
    recipe = load_recipe("linear_probe", overrides={**overrides, "training": {"output_dir": tempfile.gettempdir()}})
    task, args = TASKS[recipe.model.task], training_arguments(recipe, has_validation=False).training
    rows = {name: load_split(recipe.data, name).split for name in ("train", "validation", "test")}
    loaded = task.load_model(recipe, rows["train"].label_names)
    inputs = task.scoring_inputs(recipe, loaded, args)
    rows["other"] = load_split(load_recipe("linear_probe", overrides={"data": {"name": other}}).data, "train").split
    parameters = {id(parameter) for parameter in head_parameters(loaded.model)}
    split = split_before(loaded.model.eval(), parameters, two_images(inputs.example(loaded.model)))
    found = {
        name: image_features(
            split,
            StoredImages(part, preprocessing=inputs.preprocessing),
            np.arange(len(part)),
            inputs.eval_transform(),
            args,
        ).float()
        for name, part in rows.items()
    }
    if loaded.has_new_head:
        fit_classifier(split, found["train"], torch.from_numpy(rows["train"].labels))
    with torch.no_grad():
        logits = {name: split.logits(part).numpy() for name, part in found.items()}
    labels = {name: part.labels for name, part in rows.items() if name != "other"}
    return {name: part.flatten(1).numpy() for name, part in found.items()}, logits, labels


def label_row(name: str, results: Sequence[dict[str, Any] | None]) -> tuple[str, ...]:
    why = failure(results)
    if why is not None or not any(results):
        return name, why or "not measured: no time left", *["-"] * (len(LABELS) - 3), "0"
    first, precision, recall = (
        mean_and_spread([value for value in figures(results, name) if value is not None])
        for name in ("precision_first", "precision", "recall")
    )
    return (
        name,
        first,
        middle(figures(results, "found")),
        precision,
        recall,
        middle(figures(results, "seconds")),
        str(sum(result is not None for result in results)),
    )


def score_rows(scores: dict[str, Any] | None) -> list[tuple[str, ...]]:
    if scores is None or "error" in scores:
        return [("not measured", "-" if scores is None else scores["error"], "-", "-")]
    return [(name, f"{auroc:.3f}", f"{other:.1%}", f"{test:.1%}") for name, (auroc, other, test) in scores.items()]


def notes(quick: bool) -> list[str]:
    data = (
        "small images of noise" if quick else "clothing (600 train, 138 validation, 179 test) and hymenoptera (train)"
    )
    return [
        f"{data}; EfficientNet-Lite0 with the weights of ImageNet-1k, frozen; logistic regression on its features",
        f"labels: {FOLDS} parts; the features are computed once; seconds: all of it, without the start of the process; mean "
        "(least to most) over the seeds; some of the given labels may be wrong already, and count as right",
        f"unfamiliar: {PASSED:.0%} of the validation photographs lie above the threshold; one run",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
