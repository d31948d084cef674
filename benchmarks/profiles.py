"""`python -m benchmarks.profiles`: `hf-accel profile` of four networks, stock settings against all techniques."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.session import Session, benchmark_parser, open_session
from benchmarks.workloads import as_flags, data_folder
from hf_accel.cli import run
from hf_accel.profiling.export import all_tables
from hf_accel.profiling.schema import Profile
from hf_accel.profiling.text import footnotes, verdicts

DESCRIPTION = """\
Where the time of a run goes, by `hf-accel profile`: ResNet50, a ViT, EfficientNet-Lite0 on photographs and XLNet, baseline
against all.

  python -m benchmarks.profiles
  python -m benchmarks.profiles --workload resnet50 xlnet --steps 20

The networks have random weights but for EfficientNet-Lite0: weights make a step neither faster nor slower. Flags of
`hf-accel train` change every run."""

VARIANTS = ("baseline", "all")
RANDOM = {"model.pretrained": "false"}
CPU_BATCH = {
    "per_device_train_batch_size": "16",
    "per_device_eval_batch_size": "32",
    "gradient_accumulation_steps": "1",
}
# name -> recipe, data and model below HF_ACCEL_DATA (None: the flags name it), flags
WORKLOADS: dict[str, tuple[str, str, str | None, dict[str, str]]] = {
    "resnet50": ("resnet50_cifar10", "cifar10", None, {"model.name": "timm/resnet50", **RANDOM}),
    "vit": ("vit_cifar10", "cifar10", None, {"model.name": "timm/vit_tiny_patch16_224", **RANDOM}),
    "efficientnet_lite0": ("finetune", "clothing", "efficientnet_lite0", {}),
    "xlnet": (
        "xlnet_amazon_polarity",
        "amazon_reviews",
        "xlnet_base_tokenizer",
        {**RANDOM, "data.max_train_rows": "2000"},
    ),
}
LARGE_VIT = {"model.name": "timm/vit_base_patch16_224"}  # on a GPU
TINY = {
    "data.image_size": "16",
    "data.max_train_rows": "40",
    "data.max_test_rows": "20",
    "per_device_train_batch_size": "8",
}
RUNS = REPOSITORY / "outputs" / "benchmarks" / "profiles"


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("profiles", DESCRIPTION)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--steps", type=int, default=10, help="timed steps after the warm-up")
    session = open_session(parser, argv)
    for name in session.options.workload:
        result = session.measure("benchmarks.profiles:profiled", settings_of(session, name))
        if result is None or "error" in result:
            tables, notes = [(name, ("result",), [(result["error"] if result else "not finished",)])], []
        else:
            tables = [(title, headings, rows) for title, headings, rows in result["tables"]]
            notes = [*result["verdicts"], *result["notes"]]
        session.write(tables, notes)
    return 0


def settings_of(session: Session, name: str) -> dict[str, Any]:
    """The arguments of `profiled` for a workload on this machine."""
    flags = dict(WORKLOADS[name][3])
    if session.is_cuda:
        flags |= LARGE_VIT if name == "vit" else {}
    else:
        flags |= CPU_BATCH
    flags |= {flag: str(value) for flag, value in as_flags(session.overrides).items()}
    return {"workload": name, "steps": session.options.steps, "flags": flags, "quick": session.quick}


def profiled(workload: str, steps: int, flags: dict[str, str], quick: bool) -> dict[str, Any]:
    """Run the command in this process and take over its tables.

    Returns:
        tables: (title, headings, rows) of each; verdicts: a sentence per row; notes; or error.
    """
    from hf_accel.profile import main as profile_main

    recipe, data, model, _ = WORKLOADS[workload]
    folder = RUNS / ("quick" if quick else "full") / workload
    if quick:
        recipe, flags = "digits", TINY
    else:
        flags = {"data.name": str(data_folder(data)), **flags}
        flags |= {"model.name": str(data_folder(model))} if model else {}
    words = [
        "--recipe",
        recipe,
        "--variants",
        *VARIANTS,
        "--steps",
        str(steps),
        "--output_dir",
        str(folder),
        "--overwrite",
    ]
    code = run(profile_main, [*words, *(word for flag, value in flags.items() for word in (f"--{flag}", value))])
    if code:
        return {"error": f"hf-accel profile ended with {code}"}
    profile = Profile.load(folder)
    return {
        "tables": [[f"{workload}: {title}", *table] for title, table in all_tables(profile)],
        "verdicts": [f"{name}: {' '.join([bound.sentence, *bound.remarks])}" for name, bound, _ in verdicts(profile)],
        "notes": footnotes(profile),
    }


if __name__ == "__main__":
    raise SystemExit(run(main))
