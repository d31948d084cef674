"""`python -m benchmarks.compare`: `hf-accel compare` on a recipe, its table and its plot of the ratios kept as a result.

`hf-accel compare` keeps its own runs and resumes where it was interrupted, so a call repeats no finished run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy
from benchmarks.processes import REPOSITORY
from benchmarks.session import benchmark_parser, open_session
from benchmarks.workloads import SMALL_XLNET, as_flags, data_folder
from hf_accel.cli import run
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.text import figure_cells, footnotes, verdict_cells

DESCRIPTION = """\
Which technique pays on this machine, by `hf-accel compare`: all variants of a recipe, 3 to 12 rounds by the noise.

  python -m benchmarks.compare --recipe resnet20_cifar10 --num_train_epochs 1
  python -m benchmarks.compare --recipe mobilenetv2_imagefolder --pairs 5
  python -m benchmarks.compare --recipe xlnet_amazon_polarity --pairs 3
  python -m benchmarks.compare --recipe tricks --pairs 2        every trick of training, in tricks.yaml, on ResNet-20

--pairs is the number of rounds. Flags of `hf-accel train` change every run."""

TINY = ("--data.image_size", "16", "--data.max_train_rows", "40", "--data.max_test_rows", "20",
        "--per_device_train_batch_size", "8", "--num_train_epochs", "1")  # fmt: skip
# The ViT and the EfficientNet need a model without weights from the Hub: --model.name timm/NAME --model.pretrained false.
RECIPES = accuracy.RECIPES | {
    "vit_cifar10": ("cifar10", None),
    "efficientnet_b0_cifar10": ("cifar10", None),
    "xlnet_amazon_polarity": ("amazon_reviews", "xlnet_base_tokenizer"),
    "tricks": ("cifar10", None),
}
FILES = {"tricks": Path(__file__).with_name("tricks.yaml")}  # recipes that are not shipped
SMALL = {
    "tricks": {"data.max_train_rows": "5000", "num_train_epochs": "8"},
    "xlnet_amazon_polarity": {
        **SMALL_XLNET,
        "data.max_train_rows": "1000",
        "data.max_test_rows": "300",
        "num_train_epochs": "1",
    },
}
RUNS = REPOSITORY / "outputs" / "benchmarks" / "compare"


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("compare", DESCRIPTION)
    parser.add_argument("--recipe", default="resnet20_cifar10", choices=list(RECIPES))
    parser.add_argument("--variants", nargs="+", help="default: all, and the recipe as it stands")
    session = open_session(parser, argv)
    recipe, quick = session.options.recipe, session.quick
    settings = {
        "recipe": recipe,
        "variants": session.options.variants or (["baseline", "all"] if quick else None),
        "repeats": session.pairs if session.options.pairs or quick else None,
        "quick": quick,
        "overrides": session.overrides,
    }
    picture = session.file.with_name(f"{session.file.stem}_{recipe}.png")
    result = session.measure("benchmarks.compare:compare", settings, lambda: {"picture": str(picture)})
    tables, text = [[("variant",), ("not finished",)]], []
    if result is not None:
        tables = result.get("tables") or [[("variant",), (result["error"],)]]
        text = result.get("notes", [])
    notes = [*text, "every run a separate process, variants in turn; verdicts corrected for their number"]
    titles = (f"{recipe}: verdicts", f"{recipe}: figures")
    session.write([(title, table[0], table[1:]) for title, table in zip(titles, tables, strict=False)], notes)
    return 0


def compare(
    recipe: str,
    variants: list[str] | None,
    repeats: int | None,
    quick: bool,
    overrides: dict[str, Any],
    picture: str,
) -> dict[str, Any]:
    """Run the command in this process and take over its table.

    Args:
        picture: the PNG file that the plot of the ratios becomes.
    Returns:
        tables: headings and rows of each; notes below them; or error.
    """
    from hf_accel.compare import main as compare_main

    folder = RUNS / ("quick" if quick else "full") / recipe
    data, model = RECIPES[recipe]
    place = "digits" if quick else str(data_folder(data))
    flags = ["--recipe", str(FILES.get(recipe, recipe)), "--output_dir", str(folder), "--data.name", place]
    flags += ["--variants", *variants] if variants else []
    flags += ["--repeats", str(repeats)] if repeats else []
    flags += ["--model.name", str(data_folder(model))] if model and not quick else []
    asked = ({} if quick else SMALL.get(recipe, {})) | as_flags(overrides)
    flags += [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    code = run(compare_main, [*flags, *(TINY if quick else ())])
    if code:
        return {"error": f"hf-accel compare ended with {code}"}
    comparison = Comparison.load(folder)
    draw(comparison, Path(picture))
    tables = [[headings, *rows] for headings, rows in (verdict_cells(comparison), figure_cells(comparison))]
    # a result names the data, not where it lies on this machine
    return {"tables": tables, "notes": [line.replace(place, Path(place).name) for line in footnotes(comparison)]}


def draw(comparison: Comparison, picture: Path) -> None:
    """The ratios of a finished comparison as a PNG file."""
    from hf_accel.comparison.plots import comparison_plots

    plot = comparison_plots(comparison).get("speed")
    if plot is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        plot.figure.savefig(picture, dpi=144, facecolor="white")


if __name__ == "__main__":
    raise SystemExit(run(main))
