"""`hf-accel predict`: classify files, folders or globs of images with a trained folder or Hub model."""

from __future__ import annotations

import json
import sys
from typing import Any

from hf_accel.cli import command_parser, is_main_process, quick_imports, run_and_exit
from hf_accel.config.sections import choices
from hf_accel.errors import UserError
from hf_accel.runs.folder import model_place
from hf_accel.runs.process import warn_of_missing_processes
from hf_accel.tables import format_table, write_csv

DESCRIPTION = """\
Classify images.

  hf-accel predict outputs/digits/default photo.jpg
  hf-accel predict google/vit-base-patch16-224 photos/ 'more/*.png' --top_k 3 --format csv

accelerate launch -m hf_accel.predict shares the files among the processes."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("predict", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, or globs in quotes")
    parser.add_argument("--top_k", type=int, default=5, help="classes to print for each image (default 5)")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument(
        "--on_bad_image", choices=("error", "skip"), default="error", help="what to do with a broken file"
    )
    parser.add_argument(
        "--test_time_augmentation",
        choices=choices("data.test_time_augmentation"),
        default="none",
        help="views of each image whose logits are averaged",
    )
    args = parser.parse_args(argv)
    for name in ("top_k", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}, expected at least 1")
    warn_of_missing_processes()
    skip_bad = args.on_bad_image == "skip"
    rows = predict(args.model, args.images, args.top_k, args.batch_size, skip_bad, args.test_time_augmentation)
    if is_main_process():
        render(rows, args.format)
    return 0


def predict(
    model: str,
    images: list[str],
    top_k: int = 5,
    batch_size: int = 32,
    skip_bad: bool = False,
    test_time_augmentation: str = "none",
) -> list[dict[str, Any]]:
    """Classify image files; under several processes each takes a share and all get the whole result.

    Returns:
        One `{"file", "labels": [{"label", "score"}, ...]}` for each image, likeliest class first, in the order of files.
    Raises:
        UserError: nothing matches, or a file is not an image (unless `skip_bad`: those are named on stderr).
    """
    with quick_imports():
        from accelerate import PartialState
        from accelerate.utils import gather_object

        from hf_accel.data.images import UnreadableImageError
        from hf_accel.methods.finite import refuse_broken_weights
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.training.arguments import accelerator_type

    quiet_libraries()
    task = TASKS["image-classification"]
    files = task.find_files(images)
    loaded = task.load_trained(model_place(model))
    refuse_broken_weights(loaded.model, model)
    state = PartialState(cpu=accelerator_type() == "cpu")
    loaded.model.to(state.device)
    names: dict[int, str] = loaded.model.config.id2label  # type: ignore[assignment]  # upstream's type is of input
    results: list[dict[str, Any]] = []
    refused: list[str] = []
    with state.split_between_processes(list(enumerate(files))) as share:
        share_files = [file for _, file in share]
        try:
            scored = task.score_files(
                loaded, share_files, batch_size, test_time_augmentation, _say_left_out if skip_bad else None
            )
            for number, probabilities in scored:
                position, path = share[number]
                best = probabilities.topk(min(top_k, len(probabilities)))
                pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
                labels = [{"label": names[i], "score": score} for score, i in pairs]
                results.append({"position": position, "file": str(path), "labels": labels})
        except UnreadableImageError as error:
            refused.append(str(error))
    refused = gather_object(refused)
    if refused:  # said by every rank, since any may have met it
        raise UserError(f"{refused[0]} Fix or remove it, or add --on_bad_image skip.")
    gathered = sorted(gather_object(results), key=lambda row: row["position"])
    return [{"file": row["file"], "labels": row["labels"]} for row in gathered]


def _say_left_out(error: UserError) -> None:
    print(f"left out: {error}", file=sys.stderr)


def render(rows: list[dict[str, Any]], form: str) -> None:
    """Print predictions: a table for people, JSON as returned, or CSV with one line per image and class."""
    if form == "json":
        print(json.dumps(rows, indent=2))
    elif form == "csv":
        cells = (
            (row["file"], rank, label["label"], f"{label['score']:.6f}")
            for row in rows
            for rank, label in enumerate(row["labels"], start=1)
        )
        write_csv(sys.stdout, ("file", "rank", "label", "score"), cells)
    elif rows:
        lines = [[row["file"], *(f"{x['label']} {x['score']:.3f}" for x in row["labels"])] for row in rows]
        print(format_table((), lines, align="l" * len(lines[0])))


if __name__ == "__main__":
    run_and_exit(main)
