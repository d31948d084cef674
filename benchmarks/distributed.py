"""`python -m benchmarks.distributed`: which technique pays when two processes train together.

Each run is `hf-accel train` under `accelerate launch` with two processes, on a CPU or on two GPUs. The variants take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.accuracy import run_recipe
from benchmarks.result_files import DOMAINS
from benchmarks.scaling import LAUNCH
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.workloads import SMALL_XLNET, as_flags, data_folder
from hf_accel.cli import run
from hf_accel.errors import UserError

DESCRIPTION = """\
Training images/s (texts/s) of two processes together with one technique at a time, over the stock settings.

  python -m benchmarks.distributed --pairs 3
  python -m benchmarks.distributed --recipe resnet20_cifar10 --variants baseline bf16

Flags of `hf-accel train` change every run."""

BASELINE = "baseline"
# Recipe -> data and model below HF_ACCEL_DATA, flags, variants.
WORK: dict[str, tuple[str, str | None, dict[str, str], tuple[str, ...]]] = {
    "resnet20_cifar10": (
        "cifar10",
        None,
        {"data.max_train_rows": "10000", "max_steps": "30"},
        ("bf16", "channels_last", "cached", "device_transforms", "compile", "ga_same_batch", "all"),
    ),
    "mobilenetv2_imagefolder": (
        "hymenoptera",
        "mobilenetv2_100",
        {"max_steps": "14"},
        ("bf16", "channels_last", "cached", "device_transforms", "keep_freed_memory", "all"),
    ),
    "xlnet_amazon_polarity": (
        "amazon_reviews",
        "xlnet_base_tokenizer",
        {**SMALL_XLNET, "data.max_train_rows": "2000", "max_steps": "30"},
        ("bf16", "cached", "group_by_length", "fused_optimizer", "keep_freed_memory", "all"),
    ),
}
SHORT = {"data.max_test_rows": "100", "save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": "false"}
TINY = {"data.image_size": "16", "data.max_train_rows": "40", "per_device_train_batch_size": "4", "max_steps": "4"}
HEADINGS = ("recipe", "variant", "rows/s of both processes", "speed-up over baseline (95 % interval)", "pairs")


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("distributed", DESCRIPTION, pairs=3)
    parser.add_argument("--recipe", nargs="+", choices=list(WORK), help="default: all")
    parser.add_argument("--variants", nargs="+", help=f"{BASELINE} and others; default: those that apply to the recipe")
    session = open_session(parser, argv)
    recipes = session.options.recipe or list(WORK)[: 1 if session.quick else None]
    rows: list[tuple[str, ...]] = []
    for recipe in recipes:
        variants = session.options.variants or [BASELINE, *WORK[recipe][3][: 1 if session.quick else None]]
        if BASELINE not in variants:
            raise UserError(
                f"--variants {' '.join(variants)}: expected {BASELINE}, too, which the others are compared with"
            )
        results = session.rounds({variant: measurement(session, recipe, variant) for variant in variants})
        rows += [row(recipe, variant, results[variant], results[BASELINE]) for variant in variants]
    session.write([("Two processes", HEADINGS, rows)], notes())
    return 0


def notes() -> list[str]:
    return [
        *(f"{domain.recipe}: {domain.what}" for domain in DOMAINS),
        "accelerate launch --multi_gpu --num_processes 2; on a CPU the two share the cores; the batch of the recipe in each; "
        "training alone, without its warm-up; variants in turn, ratios within a round",
    ]


def measurement(session: Session, recipe: str, variant: str) -> Callable[[int], dict[str, Any] | None]:
    """Round -> result of one row."""
    settings = {"recipe": recipe, "variant": variant, "quick": session.quick, "overrides": session.overrides}

    def measure(number: int) -> dict[str, Any] | None:
        with workplace() as place:
            return session.measure("benchmarks.distributed:train", settings, lambda: {"place": place}, number)

    return measure


def train(recipe: str, variant: str, quick: bool, overrides: dict[str, Any], place: str) -> dict[str, Any]:
    """Run a variant in two processes.

    Returns:
        As `benchmarks.accuracy.run_recipe`; images_per_second is that of both processes together.
    """
    data, model, flags, _ = WORK[recipe]
    named = {"data.name": "digits", **SHORT, **TINY} if quick else {"data.name": data_folder(data), **SHORT, **flags}
    named |= {"model.name": data_folder(model)} if model and not quick else {}
    asked = {"recipe": recipe, "variant": variant, "output_dir": f"{place}/run", **named, **as_flags(overrides)}
    result = run_recipe(asked, LAUNCH)
    if result.get("world_size", 2) != 2:
        return {"error": f"the launcher started {result['world_size']} process"}
    return result


def row(
    recipe: str, variant: str, results: list[dict[str, Any] | None], baseline: list[dict[str, Any] | None]
) -> tuple[str, ...]:
    """The row of one variant; why there is no figure, where it failed."""
    rates = figures(results, "images_per_second")
    ratio, pairs = (
        ("1", str(len(rates))) if variant == BASELINE else ratio_cells(rates, figures(baseline, "images_per_second"))
    )
    return recipe, variant, failure(results) or middle(rates), ratio, pairs


if __name__ == "__main__":
    raise SystemExit(run(main))
