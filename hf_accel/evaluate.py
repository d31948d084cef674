"""`hf-accel evaluate`: score a trained folder or Hub model on a data set, every row exactly once."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from typing import Any

from hf_accel.cli import command_parser, is_main_process, parse_with_overrides, quick_imports, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_count, format_score
from hf_accel.runs.folder import RunFolder, model_place
from hf_accel.tables import format_table, printable, write_csv

DESCRIPTION = """\
Score a trained folder or a Hub model on a data set.

  hf-accel evaluate outputs/digits/default
  hf-accel evaluate outputs/vit_cifar10/default/model --data.name uoft-cs/cifar10 --split test
  hf-accel evaluate timm/resnet50.a1_in1k --data.name ./photos --format json

A run's own folder remembers its data. --data.* settings and TrainingArguments (--per_device_eval_batch_size 64,
--bf16 true) are taken as in train; so is accelerate launch -m hf_accel.evaluate."""
SCORES = ("accuracy", "top5_accuracy", "f1_macro", "f1_micro", "f1_weighted", "loss")


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("evaluate", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    args, flags = parse_with_overrides(parser, argv)
    recipe = evaluation_recipe(args.model, overrides_from_flags(flags))
    scores = evaluate(recipe, args.split)
    if is_main_process():
        render(scores, args.format)
    return 0


def evaluation_recipe(model: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe of the model's run where there is one, else `finetune`; the overrides go on top."""
    run = RunFolder.meant_by(model)
    if run is None and not overrides.get("data", {}).get("name"):
        raise UserError(f"{model}: is not a folder of a run, so its data is unknown. Add --data.name FOLDER_OR_ID.")
    overrides = {**overrides, "model": {**overrides.get("model", {}), "name": model_place(model)}}
    if run is None:
        return load_recipe("finetune", overrides=overrides)
    data = overrides.get("data", {})
    if not data.get("name"):
        return load_recipe(run.recipe, overrides=overrides)
    overrides["data"] = {"max_train_rows": None, "max_test_rows": None, **data}  # all rows of other data
    recipe = load_recipe(run.recipe, overrides=overrides)
    if "validation" in data:
        return recipe
    # not an override: the run's own settings may need validation rows, and evaluation leaves those settings out
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validation=0))


def evaluate(recipe: Recipe, split_name: str = "test") -> dict[str, Any]:
    """Score one split with the model of `recipe.model.name`.

    Returns:
        model, data, split, rows, test_time_augmentation, accuracy, top5_accuracy, f1_macro, f1_micro, f1_weighted, loss,
        per_class.
    Raises:
        UserError: there is no such split, or the model does not know the data's labels.
    """
    with quick_imports():
        from hf_accel.methods.finite import refuse_broken_weights
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.training.arguments import for_scoring, training_arguments
        from hf_accel.training.build import build_evaluator
        from hf_accel.training.finish import detailed_scores

    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer makes its output folder, whatever it is asked to do
        recipe = dataclasses.replace(recipe, training={**for_scoring(recipe.training), "output_dir": scratch})
        arguments = training_arguments(recipe, has_validation=False)
        task = TASKS[recipe.model.task]
        splits = task.open_splits(recipe.data, arguments.training.seed)
        split = getattr(splits, split_name)
        if split is None:
            raise UserError(
                f"--split validation: {recipe.data.name} has none, and data.validation is 0. Use --split test or train."
            )
        loaded = task.load_trained(recipe.model.name, recipe.model.revision)
        refuse_broken_weights(loaded.model, recipe.model.name)
        label_names = [loaded.model.config.id2label[i] for i in range(loaded.model.config.num_labels)]
        split = dataclasses.replace(split, labels=model_labels(split, label_names), label_names=label_names)
        trainer = build_evaluator(recipe, loaded, split, arguments)
        predictions = trainer.predict(trainer.test_dataset, metric_key_prefix="test")
    scores = dataclasses.asdict(detailed_scores(predictions, label_names, "test"))
    for name in ("confusion", "views", "test_time_augmentation"):  # of a run; the last is said below
        scores.pop(name)
    return {
        "model": recipe.model.name,
        "data": recipe.data.name,
        "split": split_name,
        "rows": len(split),
        "test_time_augmentation": recipe.data.test_time_augmentation,
        **scores,
    }


def model_labels(split: Any, label_names: list[str]) -> Any:
    """(N,) label numbers of the data -> (N,) of the model, matched by name."""
    import numpy as np

    numbers = {name: number for number, name in enumerate(label_names)}
    unknown = [name for name in split.label_names if name not in numbers]
    if unknown:
        raise UserError(
            f"{split.source}: the model does not know the class {unknown[0]!r}. {did_you_mean(unknown[0], numbers)} "
            "Expected the class names that the model was trained on."
        )
    return np.array([numbers[name] for name in split.label_names], dtype=np.int64)[split.labels]


def render(scores: dict[str, Any], form: str) -> None:
    """Print the scores: a table for people, JSON with everything, or CSV with one line."""
    if form == "json":
        print(json.dumps(scores, indent=2))
        return
    flat = {key: value for key, value in scores.items() if key != "per_class"}
    if form == "csv":
        write_csv(sys.stdout, list(flat), [list(flat.values())])
        return
    how = scores["test_time_augmentation"]
    how = "" if how == "none" else f", test-time augmentation: {how}"
    what = f"{scores['model']} on {scores['data']}, {scores['split']} split"
    print(printable(f"{what}, {format_count(scores['rows'])} images{how}"))
    print(format_table((), [(name, format_score(scores[name])) for name in SCORES], min_widths=(15, 7), indent=2))
    classes = [
        (row["label"], *(format_score(row[key]) for key in ("precision", "recall", "f1")), format_count(row["support"]))
        for row in scores["per_class"]
    ]
    print("\n" + format_table(("class", "precision", "recall", "F1", "images"), classes, indent=2))


if __name__ == "__main__":
    run_and_exit(main)
