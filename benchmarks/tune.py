"""`python -m benchmarks.tune`: how close `hf-accel tune` comes to an exhaustive search, and whether its forecast holds.

The search starts from the variant `baseline` of a recipe. The exhaustive one tries every combination of the first technique of
each axis. Its best three, the result of `tune`, and the baseline then train in turn, by `hf-accel train` in fresh processes.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import run_recipe
from benchmarks.processes import REPOSITORY
from benchmarks.session import Session, benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.workloads import SMALL_XLNET, as_flags, data_folder
from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.formatting import format_duration

DESCRIPTION = """\
Confirmed images/s of the settings that `hf-accel tune` finds, over those of the best of an exhaustive search; with --whole the
time of a whole run over the time that was foretold.

  python -m benchmarks.tune
  python -m benchmarks.tune --network resnet20 --budget 5m
  python -m benchmarks.tune --network resnet20 xlnet --whole

--pairs is the number of rounds of the last comparison. Flags of `hf-accel train` change every run."""

RANDOM = {"model.pretrained": "false"}
# name -> recipe, data and model below HF_ACCEL_DATA (None: the flags name it), flags
NETWORKS: dict[str, tuple[str, str, str | None, dict[str, str]]] = {
    "resnet20": ("resnet20_cifar10", "cifar10", None, {}),
    "resnet50": ("resnet50_cifar10", "cifar10", None, {"model.name": "timm/resnet50", **RANDOM}),
    "efficientnet_b0": ("efficientnet_b0_cifar10", "cifar10", None, {"model.name": "timm/efficientnet_b0", **RANDOM}),
    "vit_tiny": ("vit_cifar10", "cifar10", None, {"model.name": "timm/vit_tiny_patch16_224", **RANDOM}),
    "xlnet": ("xlnet_amazon_polarity", "amazon_reviews", "xlnet_base_tokenizer", SMALL_XLNET),
}
LARGE_VIT = {"model.name": "timm/vit_base_patch16_224"}  # on a GPU
CPU_BATCH = {
    "per_device_train_batch_size": "16",
    "per_device_eval_batch_size": "32",
    "gradient_accumulation_steps": "1",
}
IMAGES_224 = ("resnet50", "efficientnet_b0", "vit_tiny")
WHOLE = {
    "num_train_epochs": "2",
    "data.max_train_rows": "5000",
    "data.max_test_rows": "1000",
}  # of a run that is foretold
TINY = {"data.image_size": "16", "data.max_train_rows": "200", "data.max_test_rows": "20", "num_train_epochs": "1",
        "per_device_train_batch_size": "8"}  # fmt: skip
AXES = ("precision", "memory_format", "compile", "transforms", "allocator", "kernels")
MOST_POINTS = 48
BEST = 3
VARIANT = "baseline"
RUNS = REPOSITORY / "outputs" / "benchmarks" / "tune"
HEADINGS = ("network", "points", "best of the exhaustive search", "its rows/s", "found by tune", "its rows/s",
            "tune / best (95 % interval)", "tune / baseline (95 % interval)", "rounds", "tune took, trials")  # fmt: skip
FORECAST = ("network", "settings", "foretold, s", "whole command, s", "command / foretold")


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("tune", DESCRIPTION, pairs=3)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), help="default: all")
    parser.add_argument("--budget", help="of each search, as of hf-accel tune; default 10m")
    parser.add_argument("--whole", action="store_true", help="train the whole run that a search foretells")
    session = open_session(parser, argv)
    names = session.options.network or list(NETWORKS)[: 1 if session.quick else None]
    rows: list[tuple[str, ...]] = []
    for name in names:
        settings = settings_of(session, name)
        rows.append(forecast_row(session, name, settings) if session.options.whole else row(session, name, settings))
    title, headings = ("Forecast", FORECAST) if session.options.whole else ("Exhaustive search", HEADINGS)
    session.write([(title, headings, rows)], notes(session))
    return 0


def notes(session: Session) -> list[str]:
    if session.options.whole:
        return [
            "the recipe with the settings that tune found, trained by hf-accel train: the whole command, imports included"
        ]
    return [
        f"every combination of the first technique of each of {', '.join(AXES)}, on the variant {VARIANT}, by a trial of tune; "
        f"its best {BEST}, the settings that tune found within its budget, and the baseline train in turn in fresh processes",
        f"tune: --budget {budget_of(session)}, all its axes; whether it found anything, it decided by runs of its own",
    ]


def budget_of(session: Session) -> str:
    return session.options.budget or ("20s" if session.quick else "10m")


def settings_of(session: Session, name: str) -> dict[str, Any]:
    """Arguments that name a measurement."""
    flags = dict(NETWORKS[name][3])
    if session.is_cuda:
        flags |= LARGE_VIT if name == "vit_tiny" else {}
    elif name in IMAGES_224:
        flags |= CPU_BATCH
    flags |= WHOLE if session.options.whole else {}
    flags |= {flag: str(value) for flag, value in as_flags(session.overrides).items()}
    return {"network": name, "flags": flags, "quick": session.quick}


def row(session: Session, name: str, settings: dict[str, Any]) -> tuple[str, ...]:
    """The row of a network; why there is none, where something failed."""
    tuned = session.measure("benchmarks.tune:tuned", {**settings, "budget": budget_of(session)})
    searched = session.measure("benchmarks.tune:exhaustive", settings)
    if not tuned or not searched or "error" in tuned or "error" in searched:
        return (
            name,
            failure([tuned]) or failure([searched]) or "not measured: no time left",
            *["-"] * (len(HEADINGS) - 2),
        )
    points = sorted((point for point in searched["points"] if point["cost"]), key=lambda point: point["cost"])
    patches = {VARIANT: {}, "tune": tuned["patch"]} | {_named(point): point["patch"] for point in points[:BEST]}
    results = session.rounds(
        {entry: lambda number, entry=entry: trained(session, settings, patches[entry], number) for entry in patches}
    )
    rates = {entry: figures(results[entry], "images_per_second") for entry in patches}
    best = max((_named(point) for point in points[:BEST]), key=lambda entry: sum(rate or 0.0 for rate in rates[entry]))
    to_best, pairs = ratio_cells(rates["tune"], rates[best])
    return (
        name,
        f"{len(points)} of {len(searched['points'])}",
        best,
        failure(results[best]) or middle(rates[best]),
        " + ".join(tuned["accepted"]) if tuned["patch"] else "the recipe as it stands",
        failure(results["tune"]) or middle(rates["tune"]),
        to_best,
        ratio_cells(rates["tune"], rates[VARIANT])[0],
        pairs,
        f"{format_duration(tuned['seconds'])}, {tuned['trials']}",
    )


def _named(point: dict[str, Any]) -> str:
    return " + ".join(point["techniques"]) or "nothing"


def forecast_row(session: Session, name: str, settings: dict[str, Any]) -> tuple[str, ...]:
    """The whole run that a search foretells, trained."""
    tuned = session.measure("benchmarks.tune:tuned", {**settings, "budget": budget_of(session)})
    if not tuned or "error" in tuned:
        return name, failure([tuned]) or "not measured: no time left", *["-"] * (len(FORECAST) - 2)
    results = [trained(session, settings, tuned["patch"], number, whole=True) for number in range(session.pairs)]
    seconds = figures(results, "wall_seconds")
    return (
        name,
        " + ".join(tuned["accepted"]) if tuned["patch"] else "the recipe as it stands",
        middle([tuned["foretold"]]),
        failure(results) or middle(seconds),
        ratio_cells(seconds, [tuned["foretold"]] * len(seconds))[0],
    )


def trained(
    session: Session, settings: dict[str, Any], patch: dict[str, Any], number: int, whole: bool = False
) -> dict[str, Any] | None:
    """`hf-accel train` with some settings: a short run, or all of it."""
    with workplace() as place:
        named = {**settings, "patch": patch, "whole": whole}
        return session.measure("benchmarks.tune:train", named, lambda: {"place": place}, number)


def words_of(network: str, flags: dict[str, str], quick: bool) -> tuple[str, dict[str, str]]:
    """The recipe of a network and its flags, with the folders of this machine."""
    recipe, data, model, _ = NETWORKS[network]
    if quick:
        return "digits", TINY
    named = {"data.name": str(data_folder(data)), **flags}
    return recipe, named | ({"model.name": str(data_folder(model))} if model else {})


def tuned(network: str, flags: dict[str, str], quick: bool, budget: str) -> dict[str, Any]:
    """`hf-accel tune` in this process.

    Returns:
        accepted, patch, trials, seconds, and foretold: those of a whole run with the patch; or error.
    """
    from hf_accel.tune import main as tune_main
    from hf_accel.tuning.result import Tuning

    recipe, named = words_of(network, flags, quick)
    with workplace() as place:
        words = ["--recipe", recipe, "--variant", VARIANT, "--budget", budget, "--output_dir", f"{place}/tune"]
        words += [word for flag, value in named.items() for word in (f"--{flag}", value)]
        start = time.perf_counter()
        code = run(tune_main, words)
        if code:
            return {"error": f"hf-accel tune ended with {code}"}
        seconds = time.perf_counter() - start
        found = Tuning.load(Path(place) / "tune")
    foretold = found.after if found.patch else found.before
    return {
        "accepted": found.accepted,
        "patch": found.patch,
        "trials": found.trials,
        "seconds": seconds,
        "foretold": None if foretold is None else foretold.seconds,
    }


def exhaustive(network: str, flags: dict[str, str], quick: bool) -> dict[str, Any]:
    """A trial of every combination of techniques.

    Returns:
        points: techniques, patch, cost (seconds of the whole run; None: it failed) and reason of each.
    """
    from hf_accel.runs.forked import can_fork
    from hf_accel.training.arguments import accelerator_type
    from hf_accel.tuning.bench import TrialBench
    from hf_accel.tuning.candidates import Candidates, patch_of
    from hf_accel.tuning.record import Record
    from hf_accel.tuning.space import techniques

    recipe, named = words_of(network, flags, quick)
    candidates = Candidates.read(recipe, VARIANT, named)
    folder = RUNS / ("quick" if quick else "full") / network
    bench = TrialBench(candidates, Record(folder / "trials.jsonl", json.dumps(named, sort_keys=True)), folder, 1e9,
                       forked=can_fork(accelerator_type()))  # fmt: skip
    bench.begin()
    found, _ = techniques(candidates.plain, bench.facts, bench.pace(), "time")
    axes = [next((one for one in found if one.axis == axis), None) for axis in AXES[: 1 if quick else None]]
    choices = [(None, one) for one in axes if one is not None]
    points = [tuple(one for one in chosen if one is not None) for chosen in itertools.product(*choices)]
    if len(points) > MOST_POINTS:
        raise UserError(f"{network}: {len(points)} combinations, expected at most {MOST_POINTS}")
    outcomes = [bench.measure(point, 1, 0) for point in points]
    return {
        "points": [
            {
                "techniques": [one.name for one in point],
                "patch": patch_of(point),
                "cost": outcome.cost,
                "reason": outcome.reason,
            }
            for point, outcome in zip(points, outcomes, strict=True)
        ]
    }


def train(
    network: str, flags: dict[str, str], quick: bool, patch: dict[str, Any], whole: bool, place: str
) -> dict[str, Any]:
    """A run with some settings, as `benchmarks.accuracy.run_recipe`: all of it, or some seconds of optimisation."""
    from hf_accel.tuning.candidates import Candidates

    recipe, named = words_of(network, flags, quick)
    short = {} if whole else {"max_steps": "8" if quick else "40", "data.max_test_rows": "100", "save_strategy": "no",
                              "eval_strategy": "no", "load_best_model_at_end": "false"}  # fmt: skip
    file = Path(place) / "recipe.yaml"
    Candidates.read(recipe, VARIANT, named | short).with_patch(patch).write(file)
    return run_recipe({"recipe": file, "output_dir": f"{place}/run"})


if __name__ == "__main__":
    raise SystemExit(run(main))
