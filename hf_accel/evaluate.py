"""`hf-accel evaluate`: score a trained folder or Hub model on a data set, every row exactly once."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from hf_accel import terminal
from hf_accel.cli import command_parser, is_main_process, parse_with_overrides, quick_imports, run_and_exit
from hf_accel.config.domains import default_recipe
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.problems import section_problems
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.config.sections import DataSettings
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.formatting import format_count, format_score
from hf_accel.report.run_report import DetailedScores, Scores
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.named_model import model_place
from hf_accel.runs.process import warn_of_missing_processes
from hf_accel.tables import format_table, printable, write_csv
from hf_accel.tasks.texts import TEXTS, TaskTexts
from hf_accel.training.evaluated_rows import (
    EvaluatedRows,
    absent_classes,
    in_classes_of_model,
    rows_of_other_data,
    rows_of_run,
    same_place,
)

if TYPE_CHECKING:
    from hf_accel.data.labelled_rows import LabelledRows
    from hf_accel.tasks.predictions import RowPredictions

DESCRIPTION = """\
Score a trained folder or a Hub model on a data set.

  hf-accel evaluate outputs/digits/default
  hf-accel evaluate outputs/vit_cifar10/default/model --data.name uoft-cs/cifar10 --split test
  hf-accel evaluate timm/resnet50.a1_in1k --data.name ./photos --format json
  hf-accel evaluate outputs/digits/default/exported --data.name ./photos      without PyTorch; or exported/onnx/FILE.onnx

A run's own folder remembers its data: the same rows are scored as in the run. Of other data everything is scored, a
plain folder of class folders too. --data.* settings and TrainingArguments (--per_device_eval_batch_size 64,
--bf16 true) are taken as in train; so is accelerate launch -m hf_accel.evaluate."""
# The settings of data that say which rows are scored; the others say how a model of PyTorch is trained or scored on them.
DATA_OF_EXPORTED = ("name", "config", "revision", "image_column", "label_column", "labels", "split_column", "layout",
                    "max_pixels", "on_bad_image", "max_train_rows", "max_test_rows")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("evaluate", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the prediction for each row (.csv or .jsonl)"
    )
    parser.add_argument("--probabilities", action="store_true", help="in FILE, those of all classes, too")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    output = None if args.output is None else PredictionTarget.checked(args.output, args.probabilities)
    if output is None and args.probabilities:
        raise UserError("--probabilities: is about the rows of --output FILE. Name one, or leave it out.")
    overrides = overrides_from_flags(flags)
    from hf_accel.models.exported import exported_file  # here: --help needs no Pillow

    if exported_file(model_place(args.model)) is not None:
        task = "image-classification"
        scores = evaluate_exported(args.model, args.split, overrides, output)
    else:
        recipe = evaluation_recipe(args.model, overrides)
        task = recipe.model.task
        warn_of_missing_processes()
        own_data = not overrides.get("data", {}).get("name")
        scores = evaluate(recipe, args.split, RunFolder.meant_by(args.model), own_data, output)
    if is_main_process():
        for note in scores["notes"]:
            terminal.say(printable(note))
        render(scores, args.format, TEXTS[task])
        if output is not None:
            terminal.say(f"{output.path}: the predictions for {format_count(scores['rows'])} rows")
    return 0


@dataclass(frozen=True)
class PredictionTarget:
    """The file that gets the prediction for each row that is scored."""

    path: Path
    form: str  # csv or jsonl
    probabilities: bool  # of all classes

    @classmethod
    def checked(cls, path: Path, probabilities: bool) -> Self:
        """Raises:
        UserError: the name says neither csv nor jsonl, there is such a file already, or it cannot be written.
        """
        from hf_accel.tasks.predictions import form_of, refuse_unwritable

        form = form_of(path, None)
        refuse_unwritable(path)
        if path.exists():
            raise UserError(f"--output {path}: exists already and is kept. Choose another file, or remove it.")
        return cls(path, form, probabilities)

    def write(self, predictions: RowPredictions) -> None:
        write_whole(self.path, predictions.to_text(self.form))


def evaluation_recipe(model: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe of the model's run where there is one, else `finetune` or `finetune_text`; the overrides are applied last.

    Raises:
        UserError: no data is named and there is no run that knows it, or a setting that only training can follow.
    """
    from hf_accel.models.kind import task_of_model  # here: --help needs no transformers

    place, run = model_place(model), RunFolder.meant_by(model)
    data = overrides.get("data", {})
    require_known_data(model, run, data)
    overrides = {**overrides, "model": {**overrides.get("model", {}), "name": place, "lora": None}}
    if run is None:
        overrides["model"].setdefault("task", task_of_model(place))
        return load_recipe(default_recipe(overrides), overrides=overrides)
    if not data.get("name"):
        return load_recipe(run.recipe, overrides=overrides)
    overrides["data"] = {"max_train_rows": None, "max_test_rows": None, **data}  # all rows of other data
    recipe = load_recipe(run.recipe, overrides=overrides)
    # not an override: the run's own settings may need validation rows, and evaluation leaves those settings out
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validation=0, folds=None, fold=0))


def require_known_data(model: str, run: RunFolder | None, data: dict[str, Any]) -> None:
    """Raises:
    UserError: no data is named and there is no run that knows it, or rows are to be held out.
    """
    if run is None and not data.get("name"):
        raise UserError(f"{model}: is not a folder of a run, so its data is unknown. Add --data.name FOLDER_OR_ID.")
    if "validation" in data:
        raise UserError(
            "--data.validation: divides the data of a run that trains, and nothing is trained. Leave it out."
        )


def evaluate(
    recipe: Recipe,
    split_name: str = "test",
    run: RunFolder | None = None,
    own_data: bool = False,
    output: PredictionTarget | None = None,
) -> dict[str, Any]:
    """Score one split with the model of `recipe.model.name`.

    Args:
        run: that trained the model, where it is known.
        own_data: score the rows that this run had in the split. Otherwise all rows of the split of `recipe.data`.
        output: gets the prediction for each row.
    Returns:
        model, data, split, rows, data_changed (whether the rows differ from those that the run had; None: not known),
        test_time_augmentation, the fields of `Scores`, per_class, notes.
    Raises:
        UserError: there is no such split, the model does not know the data's labels, or the run may have been trained on
            rows that are now among those to be scored.
    """
    with quick_imports():
        from hf_accel.methods.finite import refuse_broken_weights
        from hf_accel.models.head import known_labels
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.training.arguments import for_scoring, training_arguments
        from hf_accel.training.build import build_evaluator

    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer makes its output folder, whatever it is asked to do
        recipe = dataclasses.replace(recipe, training={**for_scoring(recipe.training), "output_dir": scratch})
        arguments = training_arguments(recipe, has_validation=False)
        task = TASKS[recipe.model.task]
        if own_data and run is not None:
            rows = rows_of_run(task, run, load_recipe(run.recipe), recipe.data, split_name)
        else:
            rows = rows_of_other_data(task, recipe.data, split_name)
            rows.notes.extend(trained_on(rows, run, recipe.data))
        loaded = task.load_trained(recipe.model.name, recipe.model.revision)
        refuse_broken_weights(loaded.model, recipe.model.name)
        label_names = known_labels(loaded.model.config)
        split = in_classes_of_model(rows.split, label_names)
        trainer = build_evaluator(recipe, loaded, split, arguments)
        predictions = trainer.score(trainer.test_dataset, logits=output is not None and output.probabilities)
    if output is not None and is_main_process():
        output.write(trainer.answers.predictions_of(predictions, split))
    scores = trainer.answers.scores_of(predictions, label_names, "test")
    views = recipe.data.test_time_augmentation
    return described(
        scores, rows, split, model=recipe.model.name, data=recipe.data.name, split_name=split_name, views=views
    )


def evaluate_exported(
    model: str, split_name: str, overrides: dict[str, Any], output: PredictionTarget | None = None
) -> dict[str, Any]:
    """Score one split with an exported model: without PyTorch and transformers and, on an image folder, without `datasets`.

    Args:
        model: the exported folder, or a file in it.
        overrides: of the command line.
        output: gets the prediction for each row.
    Returns:
        As `evaluate`.
    Raises:
        UserError: as in `evaluate`, or a setting that has no effect on an exported model.
    """
    if find_spec("sklearn") is None:
        raise UserError("hf-accel evaluate: needs scikit-learn, which is not installed. pip install scikit-learn")
    with quick_imports():
        from hf_accel.data.image_split import ImageSplit
        from hf_accel.models.exported import exported_file, exported_folder
        from hf_accel.tasks.exported import ExportedImageClassification
        from hf_accel.training.exported_evaluation import score_exported

    task, place, asked = ExportedImageClassification(), model_place(model), overrides.get("data", {})
    file = exported_file(place)
    assert file is not None
    run = RunFolder.meant_by(exported_folder(file))
    require_known_data(model, run, asked)
    refuse_without_effect(overrides)
    if run is not None and find_spec("transformers") is None:  # which says what a recipe may hold
        run = None
        if not asked.get("name"):
            raise UserError(
                f"{model}: without transformers, the data of its run is unknown. Add --data.name FOLDER_OR_ID."
            )
    exported = task.load_trained(place)
    if run is not None and not asked.get("name"):
        data = load_recipe(run.recipe, overrides={"data": asked}).data
        rows = rows_of_run(task, run, load_recipe(run.recipe), data, split_name)
        if data.test_time_augmentation != "none":
            rows.notes.append(f"warning: one view of each image is scored, and in {run.path} several")
    else:
        data = TypeAdapter(DataSettings).validate_python(asked)
        rows = rows_of_other_data(task, data, split_name)
        rows.notes.extend(trained_on(rows, run, data))
    split = in_classes_of_model(rows.split, exported.label_names)
    assert isinstance(split, ImageSplit), "images alone are exported"
    scores, predictions = score_exported(exported, split, output is not None and output.probabilities)
    if output is not None:
        output.write(predictions)
    return described(scores, rows, split, model=str(file), data=data.name, split_name=split_name)


def trained_on(rows: EvaluatedRows, run: RunFolder | None, data: DataSettings) -> list[str]:
    """A warning, if the run was trained on rows of this data."""
    if run is None or not rows.is_train or not same_place(load_recipe(run.recipe).data.name, data.name):
        return []
    return [f"warning: {run.path} was trained on rows of this data, so these scores are not of new {rows.split.unit}s"]


def refuse_without_effect(overrides: dict[str, Any]) -> None:
    """Raises:
    UserError: a setting that is about a model of PyTorch, or a value that is not valid.
    """
    for section, values in overrides.items():
        for name in values:
            if section != "data" or name not in DATA_OF_EXPORTED:
                flag = name if section == "training" else f"{section}.{name}"
                raise UserError(
                    f"--{flag}: has no effect on an exported model. Leave it out; what can be set is --data.NAME with one of "
                    f"{', '.join(DATA_OF_EXPORTED)}."
                )
    problems = section_problems("hf-accel evaluate", "data", overrides.get("data", {}), is_patch=True)
    if problems:
        raise UserError("\n".join(problems))


def described(
    scores: DetailedScores,
    rows: EvaluatedRows,
    split: LabelledRows,
    *,
    model: str,
    data: str,
    split_name: str,
    views: str = "none",
) -> dict[str, Any]:
    """What `evaluate` returns."""
    figures = dataclasses.asdict(scores)
    for name in ("confusion", "views", "test_time_augmentation"):  # of a run; the last is said below
        figures.pop(name)
    return {
        "model": model,
        "data": data,
        "split": split_name,
        "rows": len(split),
        "data_changed": rows.changed,
        "test_time_augmentation": views,
        **figures,
        "notes": [*rows.notes, *absent_classes(split)],
    }


def render(scores: dict[str, Any], form: str, words: TaskTexts) -> None:
    """Print the scores: a table for people, JSON with everything, or CSV with one line."""
    if form == "json":
        print(json.dumps(scores, indent=2))
        return
    flat = {key: value for key, value in scores.items() if key not in ("per_class", "notes")}
    if form == "csv":
        write_csv(sys.stdout, list(flat), [list(flat.values())])
        return
    how = scores["test_time_augmentation"]
    how = "" if how == "none" else f", test-time augmentation: {how}"
    what = f"{scores['model']} on {scores['data']}, {scores['split']} split"
    print(printable(f"{what}, {format_count(scores['rows'])} {words.unit}s{how}"))
    main, *others = (measure.key for measure in words.scores.measures)
    names = [main, *(name for name in Scores.__dataclass_fields__ if name in others), "loss"]
    print(format_table((), [(name, format_score(scores[name])) for name in names], min_widths=(15, 7), indent=2))
    classes = [
        (row["label"], *(format_score(row[key]) for key, _ in words.scores.of_class), format_count(row["support"]))
        for row in scores["per_class"]
    ]
    headings = ("class", *(heading for _, heading in words.scores.of_class), f"{words.unit}s")
    print("\n" + format_table(headings, classes, indent=2))


if __name__ == "__main__":
    run_and_exit(main)
