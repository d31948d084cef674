"""`python -m benchmarks.compact`: the table of `hf-accel compress` for five networks, beside the targets.

By default the networks of the table, on a CPU. --complete trains the small networks with their sparsity variants on complete
CIFAR-10 (for a GPU), exports each, and times 2:4 sparsity on the linear layers of a ViT where there is CUDA.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy import mean_and_spread, run_or_resume
from benchmarks.processes import REPOSITORY
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, ratio_cells
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.compression import speed
from hf_accel.compression.rows import HEADINGS, Row, cells
from hf_accel.errors import UserError
from hf_accel.formatting import MISSING, format_quantity
from hf_accel.measure import turns

DESCRIPTION = """\
File size, accuracy, latency and images per second of exported networks: float32, int8, 16 bits; dense and sparse.

  python -m benchmarks.compact                                  five networks: a few minutes each on 2 cores
  python -m benchmarks.compact --network resnet20 --run FOLDER  the network of a run of your own
  python -m benchmarks.compact --complete --pairs 3             ResNet-20 and ResNet-44 with sparsity, for a GPU

--pairs is the number of seeds with --complete. Flags of `hf-accel train` change the runs."""


@dataclass(frozen=True)
class Network:
    """A network of the table: a recipe that trains it, or a model of timm with random weights."""

    recipe: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = "clothing"  # below HF_ACCEL_DATA
    weights: str | None = None  # below HF_ACCEL_DATA
    model: str | None = None  # of timm, with random weights: its accuracy means nothing
    variant: str | None = None
    holds_accuracy: bool = False  # a target says that int8 may lose one point
    least_speedup: float | None = None  # a target for int8, in batches


FEW_EPOCHS = {"training": {"num_train_epochs": 4}}
NETWORKS = {
    "resnet50": Network(model="timm/resnet50", least_speedup=1.8),
    "vit_tiny": Network(model="timm/vit_tiny_patch16_224"),
    "efficientnet_lite0": Network("linear_probe", weights="efficientnet_lite0", holds_accuracy=True),
    "mobilenetv2": Network("linear_probe", weights="mobilenetv2_100", holds_accuracy=True),
    "resnet20": Network("resnet20_cifar10", FEW_EPOCHS, data="cifar10", holds_accuracy=True),
    "resnet20_sparse": Network(
        "resnet20_cifar10", FEW_EPOCHS, data="cifar10", variant="polynomial_sparsity_60", holds_accuracy=True
    ),
}
FORMATS = ("int8", "int8_dynamic", "fp16", "bf16")
SMALLEST_FILE, MOST_LOST = 0.30, 0.01  # targets for int8: of the float32 file; of accuracy
COMPLETE = {
    recipe: ("dense", "constant_sparsity_60", *(f"polynomial_sparsity_{share}" for share in (50, 60, 70, 80, 90)))
    for recipe in ("resnet20_cifar10", "resnet44_cifar10")
}
TINY = {
    "data.name": "digits", "data.max_train_rows": 40, "data.max_test_rows": 20, "data.image_size": 16,
    "num_train_epochs": 1, "per_device_train_batch_size": 8, "model.name": "hf_accel/cifar_resnet20",
    "model.pretrained": "false",
}  # fmt: skip
TEST_IMAGES = 10_000  # of CIFAR-10: all
RUNS = REPOSITORY / "outputs" / "benchmarks" / "compact"
TARGETS = ("network", "target for int8", "found")
TRAINED = ("recipe", "variant", "test accuracy, mean (least to most)", "int8 file, mean (least to most)",
           "file after zlib, MiB", "int8 after zlib, MiB", "training, s", "seeds")  # fmt: skip
LINEAR_LAYERS = {"qkv": (768, 2304), "projection": (768, 768), "first of the MLP": (768, 3072), "second": (3072, 768)}
TOKENS = 64 * 197  # a batch of 64 images of ViT-B/16
SEMI_STRUCTURED = ("linear layer of ViT-B/16", "inputs x outputs", "dense, ms", "2:4, ms", "speed-up (95 %)", "rounds")


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("compact", DESCRIPTION, pairs=1)
    parser.add_argument("--complete", action="store_true", help="the recipes of the small networks, and 2:4 sparsity")
    parser.add_argument("--network", nargs="+", help="default: all; with --complete recipes")
    parser.add_argument("--run", type=Path, help="a finished run that is exported in place of one network")
    session = open_session(parser, argv)
    known = list(COMPLETE if session.options.complete else NETWORKS)
    names = session.options.network or (known[:1] if session.quick and session.options.complete else known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--network {' '.join(unknown)}: expected some of {', '.join(known)}")
    if session.options.run is not None and (len(names) != 1 or session.options.complete):
        raise UserError("--run FOLDER: is one network. Add --network with its name, without --complete.")
    tables = trained_tables(session, names) if session.options.complete else network_tables(session, names)
    session.write(tables, notes(session))
    return 0


def network_tables(session: Session, names: Sequence[str]) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    rows: list[tuple[str, ...]] = []
    targets: list[tuple[str, ...]] = []
    for name in names:
        settings = {"name": name, "overrides": session.overrides, "quick": session.quick}
        settings |= {} if session.options.run is None else {"run_folder": str(session.options.run)}
        found = session.measure("benchmarks.compact:exported_network", settings)
        if found is None or "error" in found:
            rows.append((name, failure([found]) or "not measured: no time left", *[MISSING] * (len(HEADINGS) - 1)))
            continue
        forms = [Row(**row) for row in found["rows"]]
        rows += [(name, *cells(form)) for form in forms]
        targets += [(name, *line) for line in target_lines(NETWORKS[name], forms)]
    return [("Forms", ("network", "form", *HEADINGS[1:]), rows), ("Targets", TARGETS, targets)]


def target_lines(network: Network, forms: Sequence[Row]) -> list[tuple[str, str]]:
    """What was asked of the int8 file, and what it is."""
    of = {(form.runtime, form.format): form for form in forms}
    int8, fp32 = of["onnxruntime", "int8"], of["onnxruntime", "fp32"]
    lines = []
    if int8.bytes and fp32.bytes:
        lines.append((f"at most {SMALLEST_FILE:.2f} of the float32 file", f"{int8.bytes / fp32.bytes:.3f}"))
    if network.least_speedup is not None and int8.speedup is not None:
        lines.append((f"at least {network.least_speedup:.1f}x in batches of 64", f"{int8.speedup['ratio']:.2f}x"))
    if network.holds_accuracy and int8.accuracy is not None and fp32.accuracy is not None:
        lost = 100 * (fp32.accuracy - int8.accuracy)
        lines.append((f"at most {100 * MOST_LOST:.0f} point of accuracy lost", f"{lost:+.2f} points"))
    return lines


def exported_network(
    name: str, overrides: dict[str, Any], quick: bool, run_folder: str | None = None
) -> dict[str, Any]:
    """One network, trained or made, and exported in every format; files that are not worth it are measured, too.

    Returns:
        rows and test_images as in `compress.json`; or error.
    """
    from hf_accel.compress import data_recipe

    network = NETWORKS[name]
    with few_turns(quick), tempfile.TemporaryDirectory() as scratch:
        if run_folder is not None:
            return exported(data_recipe(run_folder, {}), Path(scratch))
        if network.model is not None:
            place = Path(scratch) / "model"
            recipe = random_model(network, place, quick)
            return exported(recipe, Path(scratch))
        folder = RUNS / ("quick" if quick else "short") / name
        trained = train(network, folder, overrides, quick)
        return trained if "error" in trained else exported(data_recipe(str(folder), {}), Path(scratch))


def train(network: Network, folder: Path, overrides: dict[str, Any], quick: bool, seed: int = 0) -> dict[str, Any]:
    flags: dict[str, Any] = {"recipe": network.recipe, "seed": seed}
    flags |= {} if network.variant is None else {"variant": network.variant}
    if not quick:
        flags["data.name"] = data_folder(network.data)
        flags |= {"model.name": data_folder(network.weights)} if network.weights else {}
    flags |= as_flags(network.settings) | as_flags(overrides) | (TINY if quick else {})
    return run_or_resume(folder, flags)


def random_model(network: Network, place: Path, quick: bool) -> Any:
    """Save a network with random weights in a folder; returns a recipe for it."""
    import torch

    from hf_accel.config.recipe import load_recipe
    from hf_accel.tasks import TASKS

    assert network.model is not None
    data = (
        {"name": "digits", "max_train_rows": 40, "max_test_rows": 20}
        if quick
        else {"name": str(data_folder(network.data))}
    )
    model = {"name": "timm/test_resnet" if quick else network.model, "pretrained": False, "channels_last": False}
    recipe = load_recipe("finetune", overrides={"model": model, "data": data})
    torch.manual_seed(0)
    task = TASKS[recipe.model.task]
    loaded = task.load_model(recipe, task.open_splits(recipe.data, 0).label_names)
    loaded.model.save_pretrained(place)
    loaded.processor.save_pretrained(place)
    return load_recipe("finetune", overrides={"model": {"name": str(place)}, "data": data})


@contextmanager
def few_turns(quick: bool) -> Iterator[None]:
    """In a rehearsal nothing is timed for long."""
    before = turns.ROUNDS, speed.LATENCY_SECONDS, speed.SECONDS
    if quick:
        turns.ROUNDS, speed.LATENCY_SECONDS, speed.SECONDS = 2, 0.01, 0.01
    try:
        yield
    finally:
        turns.ROUNDS, speed.LATENCY_SECONDS, speed.SECONDS = before


def exported(recipe: Any, scratch: Path, formats: Sequence[Any] = FORMATS, images: int = 1000) -> dict[str, Any]:
    from hf_accel.compression.compress import compress
    from hf_accel.config.compression_settings import CompressionSettings

    result = compress(
        recipe, CompressionSettings(formats=list(formats), images=images, keep=True), scratch / "exported"
    )
    return {"rows": result["rows"], "test_images": result["test_images"], "zero_weights": result["zero_weights"]}


def trained_tables(session: Session, names: Sequence[str]) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """The recipes with their sparsity variants, every seed; then 2:4 sparsity."""
    entries = [
        (recipe, variant)
        for recipe in names
        for variant in (COMPLETE[recipe][:2] if session.quick else COMPLETE[recipe])
    ]

    def measured(recipe: str, variant: str) -> Callable[[int], dict[str, Any] | None]:
        settings = {"recipe": recipe, "variant": variant, "overrides": session.overrides, "quick": session.quick}
        return lambda seed: session.measure(
            "benchmarks.compact:trained_and_exported", settings | {"seed": seed}, round_number=seed
        )

    results = session.rounds({f"{recipe}, {variant}": measured(recipe, variant) for recipe, variant in entries})
    rows = [trained_row(recipe, variant, results[f"{recipe}, {variant}"]) for recipe, variant in entries]
    tables: list[tuple[str, Sequence[str], list[tuple[str, ...]]]] = [
        ("Pruned while they train, then int8", TRAINED, rows)
    ]
    if session.is_cuda:
        found = session.measure("benchmarks.compact:semi_structured", {"quick": session.quick})
        tables.append(("2:4 sparsity, half precision", SEMI_STRUCTURED, semi_structured_rows(found)))
    return tables


def trained_and_exported(
    recipe: str, variant: str, seed: int, overrides: dict[str, Any], quick: bool
) -> dict[str, Any]:
    """One run, from its start or from where it was interrupted, and its int8 file.

    Returns:
        As `accuracy.run_recipe`, and int8_accuracy, compressed_mib and int8_compressed_mib.
    """
    from hf_accel.compress import data_recipe

    network = Network(recipe, data="cifar10", variant=None if variant == "dense" else variant)
    folder = RUNS / ("quick" if quick else "complete") / recipe / variant / f"seed-{seed}"
    trained = train(network, folder, overrides, quick, seed)
    if "error" in trained:
        return trained
    with few_turns(quick), tempfile.TemporaryDirectory() as scratch:
        found = exported(data_recipe(str(folder), {}), Path(scratch), ["int8"], TEST_IMAGES)
    of = {(row["runtime"], row["format"]): row for row in found["rows"]}
    fp32, int8 = of["onnxruntime", "fp32"], of["onnxruntime", "int8"]
    return trained | {
        "int8_accuracy": int8["accuracy"],
        "compressed_mib": fp32["compressed_bytes"] / 2**20,
        "int8_compressed_mib": int8["compressed_bytes"] / 2**20,
    }


def trained_row(recipe: str, variant: str, results: Sequence[dict[str, Any] | None]) -> tuple[str, ...]:
    measured = [value for value in figures(results, "accuracy") if value is not None]
    if not measured:
        return recipe, variant, failure(results) or "not measured: no time left", *[MISSING] * 4, "0"
    int8 = [value for value in figures(results, "int8_accuracy") if value is not None]
    shown = [middle(figures(results, of)) for of in ("compressed_mib", "int8_compressed_mib", "train_seconds")]
    return recipe, variant, mean_and_spread(measured), mean_and_spread(int8), *shown, str(len(measured))


def semi_structured(quick: bool) -> dict[str, Any]:
    """Seconds of a linear layer, dense and with weights of which two in four are zero, in turns.

    Returns:
        The name of a layer -> dense and sparse: medians of the rounds.
    """
    import torch
    from torch.nn import functional

    tokens = 256 if quick else TOKENS
    found: dict[str, Any] = {}
    for name, (inputs, outputs) in LINEAR_LAYERS.items():
        generator = torch.Generator("cuda").manual_seed(0)
        weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.float16, generator=generator) / inputs**0.5
        pairs = weight.view(outputs, -1, 4).abs().topk(2, dim=-1).indices
        weight = weight * torch.zeros_like(weight).view(outputs, -1, 4).scatter_(-1, pairs, 1).view_as(weight)
        sparse = torch.sparse.to_sparse_semi_structured(weight)
        x = torch.randn(tokens, inputs, device="cuda", dtype=torch.float16, generator=generator)
        torch.testing.assert_close(functional.linear(x, sparse), functional.linear(x, weight), atol=1e-2, rtol=1e-2)

        def finished(of: Any, x: Any = x) -> None:
            functional.linear(x, of)
            torch.cuda.synchronize()

        passes = {"dense": lambda weight=weight: finished(weight), "sparse": lambda sparse=sparse: finished(sparse)}
        timed = turns.take_turns(passes, seconds=0.5, most=200)
        found[name] = {form: timed[form].medians for form in passes}
    return found


def semi_structured_rows(found: dict[str, Any] | None) -> list[tuple[str, ...]]:
    if found is None or "error" in found:
        return [(failure([found]) or "not measured: no time left", *[MISSING] * (len(SEMI_STRUCTURED) - 1))]
    rows = []
    for name, seconds in found.items():
        inputs, outputs = LINEAR_LAYERS[name]
        shown = (format_quantity(1000 * min(seconds[form])) for form in ("dense", "sparse"))
        rows.append((name, f"{inputs} x {outputs}", *shown, *ratio_cells(seconds["dense"], seconds["sparse"])))
    return rows


def notes(session: Session) -> list[str]:
    if session.options.complete:
        return [
            "the recipes with their variants, complete CIFAR-10; the test split is scored once, with the last weights; int8: "
            "post-training, all test images, computed on the CPU",
            "2:4: two of four neighbouring input weights are zero, torch.sparse.to_sparse_semi_structured, a batch of 64 images "
            "of 197 tokens, medians of rounds in turns; measured where there is CUDA",
        ]
    return [
        "accuracy and F1 on test images; p50 and p99 of one image, images/s in batches of 64, forms in turns with as many "
        "threads; the ratio is that of images/s in batches",
        "int8, int8_dynamic, fp16 and bf16 files are made by `hf-accel compress --keep`; resnet50 and vit_tiny have random "
        "weights: their speed counts, their accuracy and the agreement of int8 mean nothing",
        "efficientnet_lite0 and mobilenetv2: a linear probe on photographs of clothes; resnet20: 4 epochs of its recipe, if "
        "--run does not name a run, sparse with 60 % of the prunable weights zero",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
