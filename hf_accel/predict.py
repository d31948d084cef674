"""`hf-accel predict`: classify images or texts with a trained folder or Hub model."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel.cli import command_parser, quick_imports, run_and_exit
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import choices
from hf_accel.errors import UserError
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.named_model import model_place
from hf_accel.runs.process import warn_of_missing_processes
from hf_accel.tasks.texts import refuse_to_explain_task

if TYPE_CHECKING:
    from accelerate import PartialState

    from hf_accel.data.images import UnreadableImageError
    from hf_accel.data.text_files import UnusableTextError
    from hf_accel.models.exported import Exported
    from hf_accel.models.loaded import Loaded
    from hf_accel.tasks.image_scoring import ScoredImage
    from hf_accel.tasks.prediction_file import PredictionFile
    from hf_accel.tasks.predictions import PredictionShape
    from hf_accel.tasks.text_scoring import ScoredText

    Answer = ScoredImage | ScoredText
    Problem = UnreadableImageError | UnusableTextError

DESCRIPTION = """\
Classify images, or texts where the model is a classifier of texts.

  hf-accel predict outputs/digits/default photo.jpg
  hf-accel predict outputs/digits/default/exported photo.jpg               without PyTorch; or exported/onnx/FILE.onnx
  hf-accel predict outputs/digits/default photos/ --output photos.csv      the same command continues it
  hf-accel predict google/vit-base-patch16-224 'more/*.png' https://example.org/a.jpg --top_k 3 --format csv
  hf-accel predict outputs/digits/default photos/ --explain why/           pictures of what speaks for each class
  find photos -newer last -name '*.jpg' | hf-accel predict outputs/digits/default -
  hf-accel predict outputs/reviews/default "It works." more.txt reviews.csv       texts, and files of them

Exit code: 0 all are classified, 1 some could not be read (they are named, the others are classified), 2 none could, or
the command is wrong. accelerate launch -m hf_accel.predict shares them among the processes."""
FORMS = ("table", "json", "jsonl", "csv")
TOP_K = 5  # csv: 1
ROW_SETTINGS = {"test_time_augmentation": "none", "text_column": None}  # what a row depends on, with the defaults
TASK_SETTINGS = {
    "test_time_augmentation": "--test_time_augmentation",
    "max_pixels": "--data.max_pixels",
    "text_column": "--data.text_column",
}
STDIN = "-"
ROUND_BATCHES = 4  # after so many batches several processes give their answers to the first one


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    for flag, value in (("top_k", args.top_k), ("batch_size", args.batch_size), ("data.max_pixels", args.max_pixels)):
        if value is not None and value < 1:
            raise UserError(f"--{flag} is {value}, expected at least 1")
    warn_of_missing_processes()
    return classify(args)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("predict", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="IMAGE_OR_TEXT",
        help="images: files, folders, globs in quotes, URLs; texts, and files of them; -: a list on standard input",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write rows to FILE (.csv or .jsonl), or continue it"
    )
    parser.add_argument("--format", choices=FORMS, help="default: table; with --output what the ending says")
    parser.add_argument("--top_k", type=int, help="classes to give for each row (default 5; 1 in csv)")
    parser.add_argument("--probabilities", action="store_true", help="csv, json: the probabilities of all classes, too")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FOLDER",
        help="write pictures there of what speaks for each class",
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument(
        "--data.max_pixels",
        dest="max_pixels",
        type=int,
        metavar="N",
        help="width x height from which an image is not read",
    )
    parser.add_argument(
        "--data.text_column",
        dest="text_column",
        action="append",
        metavar="NAME",
        help="column of the texts of a table; repeat it to join several",
    )
    parser.add_argument(
        *("--on_bad_image", "--on_bad_text"),
        dest="on_bad",
        choices=("report", "error", "skip"),
        default="report",
        help="unreadable: exit with 1 after the rest; end at once; exit with 0",
    )
    parser.add_argument(
        "--test_time_augmentation",
        choices=choices("data.test_time_augmentation"),
        help="views of each image whose logits are averaged",
    )
    parser.add_argument(
        "--bf16",
        choices=("auto", "true", "false"),
        default="false",
        help="compute in bf16 (auto: where the device has it)",
    )
    return parser


def classify(args: argparse.Namespace) -> int:
    """Classify what the command line names and write the rows as they come; returns the exit code.

    Raises:
        UserError: the model, a file or the output is not there or cannot be used, or nothing could be read.
    """
    with quick_imports():
        from hf_accel.models.exported import exported_file
        from hf_accel.tasks.prediction_run import PredictionRun
        from hf_accel.tasks.predictions import form_of

    place = model_place(args.model)
    # with --output, --json is about what is printed, and asks for no form of the file
    asked = None if args.json and args.output is not None else args.format
    form = (asked or "table") if args.output is None else form_of(args.output, asked)
    task = task_of(place)
    is_exported = exported_file(place) is not None
    if args.explain is not None:
        refuse_to_explain(args.model, task, is_exported)
    if args.top_k is not None and not task.prediction_shape.ranks_classes:
        raise UserError(f"--top_k: {args.model} gives an image all labels above their thresholds. Leave it out.")
    reading, scoring = settings_of_task(task, args)
    sources, count = named_sources(task, args.sources, reading)
    loaded, state = (task.load_trained(place), None) if is_exported else load_for_torch(task, place, args)
    top_k = args.top_k or (1 if form == "csv" else TOP_K)
    shape = task.prediction_shape.of(loaded, top_k, args.probabilities, task.has_text)
    bf16 = {"bf16": True} if computes_in_bf16(args, state) else {}
    of_rows = {name: value for name, value in {**ROW_SETTINGS, **reading, **scoring}.items() if name in ROW_SETTINGS}
    of_rows = {name: value for name, value in of_rows.items() if name in known_settings(task)}
    output = None if args.output is None else open_output(args, form, loaded, shape, **of_rows, **bf16)
    if state is not None:
        state.wait_for_everyone()  # the first process may write to the output once all have read it
    done_before, sources_left = 0, sources
    if output is not None and len(output):
        done_before = 0 if count is None else sum(output.holds(task.place_of(source)) for source in sources)
        sources_left = (source for source in sources if not output.holds(task.place_of(source)))

    def score(sources: Iterable[Any]) -> Iterator[Answer]:
        return task.score_sources(loaded, sources, args.batch_size, **scoring, **bf16)

    explain = None if args.explain is None else drawing(args, loaded)
    run = PredictionRun(args, task, form, shape, loaded, explain, output, count, done_before)
    return run.finish(shared(state, sources_left, score, args.batch_size))


def refuse_to_explain(name: str, task: Any, is_exported: bool) -> None:
    """Raises:
    UserError: --explain is asked of an exported model or of another task, or its library is not installed.
    """
    if is_exported:
        raise UserError(
            f"--explain: needs the gradients of a model of PyTorch, and {name} is an exported model. Name the folder of the run "
            "or the model that it was exported from."
        )
    refuse_to_explain_task(task.name, name)
    from hf_accel.models.heat_maps import refuse_missing_captum

    refuse_missing_captum("--explain")


def drawing(args: argparse.Namespace, loaded: Any) -> Callable[[Any, int], None]:
    """What draws the explanation of an answer, with the number of its class, into the folder of --explain."""
    from hf_accel.tasks.explanations import Explainer, picture_name, save_picture

    explainer = Explainer(loaded)
    limit = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}

    def draw(answer: ScoredImage, label: int) -> None:
        name = picture_name(answer.position, answer.source, loaded.label_names[label])
        save_picture(explainer.picture(answer.source, label, **limit), args.explain / name)

    return draw


def task_of(place: str) -> Any:
    """What finds images or texts and scores them: an exported model needs no PyTorch."""
    with quick_imports():
        from hf_accel.models.exported import exported_file

        if exported_file(place) is not None:
            from hf_accel.tasks.exported import ExportedImageClassification

            return ExportedImageClassification()
        from hf_accel.models.kind import require_model, task_of_model
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS

    quiet_libraries()
    require_model(place)  # before its images or texts: which of them it takes is not known without it
    return TASKS[task_of_model(place)]


def known_settings(task: Any) -> tuple[str, ...]:
    return (*task.reading_settings, *task.scoring_settings)


def settings_of_task(task: Any, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the task finds what it classifies, as asked for or as in the run of the model; and how it scores.

    Raises:
        UserError: a setting of another task.
    """
    asked = {name: value for name in TASK_SETTINGS if (value := getattr(args, name)) is not None}
    for name in asked:
        if name not in known_settings(task):
            raise UserError(
                f"{TASK_SETTINGS[name]}: has no effect, because {args.model} classifies {task.unit}s. Leave it out."
            )
    run = RunFolder.meant_by(args.model) if task.reading_settings else None
    reading = {name: asked.get(name) for name in task.reading_settings}
    if run is not None:
        data = load_recipe(run.recipe).data
        reading = {name: getattr(data, name) if value is None else value for name, value in reading.items()}
    return reading, {name: asked[name] for name in task.scoring_settings if name in asked}


def load_for_torch(task: Any, place: str, args: argparse.Namespace) -> tuple[Loaded, PartialState]:
    """The model on its device, as it predicts fastest, and the processes that share the work.

    Raises:
        UserError: there is no such model, or its weights are not finite.
    """
    from accelerate import PartialState

    from hf_accel.machine.allocator import apply_keep_freed_memory
    from hf_accel.methods.finite import refuse_broken_weights
    from hf_accel.models.layout import use_layout_for_prediction
    from hf_accel.training.arguments import accelerator_type

    loaded: Loaded = task.load_trained(place)
    refuse_broken_weights(loaded.model, args.model)
    state = PartialState(cpu=accelerator_type() == "cpu")
    apply_keep_freed_memory(state.device.type == "cpu")
    use_layout_for_prediction(loaded.model)
    loaded.model.to(state.device)
    return loaded, state


def computes_in_bf16(args: argparse.Namespace, state: PartialState | None) -> bool:
    """Raises:
    UserError: it is asked of an exported model.
    """
    if state is None and args.bf16 == "true":
        raise UserError(
            f"--bf16 true: {args.model} is an exported model, which computes in the precision of its file. Leave it out."
        )
    if state is None or args.bf16 != "auto":
        return args.bf16 == "true"
    from hf_accel.machine.precision import native_bf16

    return native_bf16(state.device)[0]


def open_output(
    args: argparse.Namespace, form: str, loaded: Loaded | Exported, shape: PredictionShape, **others: Any
) -> PredictionFile:
    from hf_accel.tasks.prediction_file import PredictionFile, settings_of

    settings = settings_of(loaded.content(), args.model, shape, form=form, **others)
    return PredictionFile.open(args.output, form, shape, settings)


def named_sources(task: Any, names: list[str], reading: dict[str, Any]) -> tuple[Iterable[Any], int | None]:
    """What the command line names, and how much it is; None: a list on standard input, which is read as it comes."""
    if STDIN not in names:
        sources = task.find_sources(names, **reading)
        return sources, len(sources)
    if len(names) > 1:
        raise UserError(
            f"{STDIN}: stands for a list of {task.unit}s on standard input, and cannot be combined with other names"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"{STDIN}: several processes cannot share standard input. Name the {task.unit}s, or start one process."
        )
    return task.listed_sources(sys.stdin), None


def shared(
    state: PartialState | None,
    sources: Iterable[Any],
    score: Callable[[Iterable[Any]], Iterator[Answer]],
    batch_size: int,
) -> Generator[Answer, None, None]:
    """The answers in the order of the sources; of several processes each scores a share, and all get every answer."""
    if state is None or state.num_processes == 1:
        yield from score(sources)
        return
    from accelerate.utils import gather_object

    numbered = enumerate(sources)
    size = batch_size * ROUND_BATCHES * state.num_processes
    while items := list(itertools.islice(numbered, size)):
        share = items[state.process_index :: state.num_processes]
        answers = [
            dataclasses.replace(answer, position=share[answer.position][0])
            for answer in score(source for _, source in share)
        ]
        yield from sorted(gather_object(answers), key=lambda answer: answer.position)


if __name__ == "__main__":
    run_and_exit(main)
