"""`python -m benchmarks.compare`: `hf-accel compare` on a recipe, within the time at hand, its table kept as a result.

`hf-accel compare` keeps its own runs and goes on where it was cut off, so a call repeats no finished run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.session import benchmark_parser, open_session
from benchmarks.workloads import data_folder
from hf_accel.cli import run

DESCRIPTION = """\
Which technique pays on this machine, by `hf-accel compare`.

  python -m benchmarks.compare --recipe resnet20_cifar10 --pairs 3

--pairs is the number of repeats."""

VARIANTS = ("baseline", "bf16", "fp16", "channels_last", "cached", "device_transforms", "compile", "pin", "all")
TINY = ("--data.image_size", "16", "--data.max_train_rows", "40", "--data.max_test_rows", "20",
        "--per_device_train_batch_size", "8")  # fmt: skip
RUNS = REPOSITORY / "outputs" / "benchmarks" / "compare"


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("compare", DESCRIPTION, pairs=3)
    parser.add_argument("--recipe", default="resnet20_cifar10", help="a recipe that trains on CIFAR-10")
    parser.add_argument("--variants", nargs="+", help=f"default: {' '.join(VARIANTS)}")
    session = open_session(parser, argv)
    variants = session.options.variants or (["baseline", "all"] if session.quick else list(VARIANTS))
    settings = {
        "recipe": session.options.recipe,
        "variants": variants,
        "repeats": session.pairs,
        "quick": session.quick,
    }
    result = session.measure("benchmarks.compare:compare", settings)
    headings, rows = ("arm",), [("not finished",)]
    if result is not None:
        headings, *rows = result.get("table") or [("arm",), (result["error"],)]
    notes = ["one epoch a run; every run a process of its own, arms in turn; verdicts corrected for their number"]
    session.write([(f"{session.options.recipe}: techniques", headings, rows)], notes)
    return 0


def compare(recipe: str, variants: list[str], repeats: int, quick: bool) -> dict[str, Any]:
    """Run the command in this process and read the table it writes.

    Returns:
        table: headings and rows; or error.
    """
    from hf_accel.compare import main as compare_main

    folder = RUNS / ("quick" if quick else "full") / recipe
    data = "digits" if quick else str(data_folder("cifar10"))
    flags = ["--recipe", recipe, "--variants", *variants, "--repeats", str(repeats), "--output_dir", str(folder)]
    flags += ["--data.name", data, "--num_train_epochs", "1", *(TINY if quick else ())]
    code = run(compare_main, flags)
    if code:
        return {"error": f"hf-accel compare ended with {code}"}
    return {"table": markdown_rows((folder / "compare.md").read_text("utf-8"))}


def markdown_rows(text: str) -> list[list[str]]:
    """Headings and rows of the first table in a Markdown text."""
    lines = [line.strip() for line in text.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [table[0], *table[2:]]


if __name__ == "__main__":
    raise SystemExit(run(main))
