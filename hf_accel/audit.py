"""`hf-accel audit`: find images whose labels are probably wrong, by models that did not learn from them."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel.cli import command_parser, parse_with_overrides, print_result, quick_imports, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError
from hf_accel.formatting import format_count, format_percent, format_score
from hf_accel.measure.label_issues import refuse_missing_cleanlab
from hf_accel.privacy import cleaned_text
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.output_place import writable_place
from hf_accel.tables import format_table, printable

if TYPE_CHECKING:
    from hf_accel.report.label_page import AuditedLabels

DESCRIPTION = """\
Find images whose labels are probably wrong.

  hf-accel audit ./photos
  hf-accel audit ./photos --model.name facebook/dinov2-base --folds 10
  hf-accel audit outputs/digits/default --split test        the data, and the pretrained network, of a run
  hf-accel audit ./photos --retrain                          trains the whole recipe once for each part

The images are divided into parts, and each part is judged by classifiers that did not learn from it: logistic regressions on
the features of a pretrained network, which sees each image once. It leaves labels.csv (all images, the most doubtful first)
and labels.html (the most doubtful ones as pictures). Needs cleanlab: pip install "hf_accel[trust]"."""

SHOWN = 10  # in the terminal
PICTURES = 60  # on the page
SEED = 0


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("audit", DESCRIPTION)
    parser.add_argument(
        "data", metavar="DATA", help="a folder of images, a data set on the Hub, or the folder of a run"
    )
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of parts; default 5")
    parser.add_argument(
        "--retrain", action="store_true", help="train the whole recipe, finetune by default, for each part"
    )
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="default: outputs/audit-NAME")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.folds < 2:
        raise UserError(f"--folds is {args.folds}, expected at least 2")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("hf-accel audit: labels are judged by one process. Start one.")
    refuse_missing_cleanlab()
    recipe = audited_recipe(args.data, args.retrain, overrides_from_flags(flags))
    output = output_folder(args, recipe)
    audited, written = audit(recipe, args, output)
    document = {
        "data": recipe.data.name,
        "rows": len(audited.labels),
        "found": audited.count,
        "agreement": audited.agreement,
        "table": str(written[0]),
        "page": str(written[1]),
    }
    print_result(args, document, summary(audited, written), str(written[1]))
    return 0


def audited_recipe(name: str, retrain: bool, overrides: dict[str, Any]) -> Recipe:
    """The data whose labels are judged, and the network that judges them: those of a run, or `linear_probe` and `finetune`.

    Raises:
        UserError: the recipe is not valid, or is of texts.
    """
    run = RunFolder.meant_by(name)
    if run is None:
        overrides = {**overrides, "data": {**overrides.get("data", {}), "name": name}}
    recipe = load_recipe(
        ("finetune" if retrain else "linear_probe") if run is None else run.recipe, overrides=overrides
    )
    if recipe.model.task != "image-classification":
        raise UserError(
            f"{name}: was trained for {recipe.model.task}, and only the labels of image-classification are judged."
        )
    # what changes the rows, or the classifier before it is fitted, is of training alone
    return recipe if retrain else replace(recipe, model=replace(recipe.model, lora=None, fit_head=False))


def output_folder(args: argparse.Namespace, recipe: Recipe) -> Path:
    """Raises:
    UserError: it cannot be made, or holds an earlier audit.
    """
    output: Path = args.output_dir or Path("outputs") / f"audit-{Path(recipe.data.name).name}"
    writable_place(output)
    if (output / "labels.csv").exists() and not args.overwrite:
        raise UserError(f"{output}: holds an audit, which is kept. Add --overwrite, or --output_dir FOLDER.")
    return output


def audit(recipe: Recipe, args: argparse.Namespace, output: Path) -> tuple[AuditedLabels, tuple[Path, Path]]:
    """Judge the labels and write the table and the page.

    Raises:
        UserError: the data or the network cannot be used.
    """
    with quick_imports():
        from hf_accel.measure.label_issues import label_issues
        from hf_accel.report.label_page import AuditedLabels, write_label_page
        from hf_accel.runs.log import quiet_libraries, start_console
        from hf_accel.tasks import TASKS
        from hf_accel.tasks.gallery import gallery_of
        from hf_accel.training.out_of_fold import judged_by_features, judged_by_training, parts_of

    quiet_libraries()
    start_console(is_main=True)
    rows = TASKS[recipe.model.task].open_split(recipe.data, args.split).split
    if len(rows.label_names) < 2 or len(rows) < 2 * args.folds:
        raise UserError(
            f"{rows.source}: has {len(rows)} images of {len(rows.label_names)} classes, expected two classes and "
            f"{2 * args.folds} images or more"
        )
    parts = parts_of(rows.labels, args.folds, SEED)
    with tempfile.TemporaryDirectory() as scratch:
        judge = judged_by_training if args.retrain else judged_by_features
        probabilities = judge(recipe, rows, parts, Path(scratch))
    what = "training the recipe" if args.retrain else "logistic regressions on the features of"
    judge_name = recipe.name if args.retrain else cleaned_text(recipe.model.name)
    how = f"Judged by {what} {judge_name}, in {args.folds} parts."
    audited = AuditedLabels(
        cleaned_text(recipe.data.name),
        how,
        rows.label_names,
        rows.labels,
        rows.row_numbers(),
        rows.file_names(),
        label_issues(rows.labels, probabilities),
    )
    issues = audited.issues
    doubtful = issues.order[: min(audited.count, PICTURES)]
    gallery = gallery_of(rows, doubtful, issues.suggested, issues.suggested_probability)
    output.mkdir(parents=True, exist_ok=True)
    return audited, write_label_page(output, audited, gallery)


def summary(audited: AuditedLabels, written: tuple[Path, Path]) -> str:
    issues, names = audited.issues, audited.label_names
    lines = [
        f"{audited.name}: {format_count(len(audited.labels))} images of {format_count(len(names))} classes; "
        f"{format_percent(audited.agreement)} get the label that they have. {audited.how}",
        f"{format_count(audited.count)} labels are probably wrong",
    ]
    rows = [
        (
            audited.place(row),
            names[audited.labels[row]],
            names[issues.suggested[row]],
            format_score(issues.quality[row]),
        )
        for row in issues.order[: min(audited.count, SHOWN)].tolist()
    ]
    if rows:
        lines += ["", format_table(("image", "label", "suggested", "p(label)"), rows, align="lllr", indent=2)]
    table, page = written
    lines += [
        "",
        f"{shlex.quote(str(table))}: all images, the most doubtful first",
        f"{shlex.quote(str(page))}: pictures",
    ]
    return "\n".join(printable(line) for text in lines for line in text.split("\n"))


if __name__ == "__main__":
    run_and_exit(main)
