"""`hf-accel train`: recipe -> data -> model -> trainer -> report -> hub, one call per arrow."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel.cli import command_parser, is_main_process, parse_with_overrides, quick_imports, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.log import start_console
from hf_accel.runs.process import warn_of_missing_processes
from hf_accel.runs.recorded_data import facts_of

if TYPE_CHECKING:
    from hf_accel.training.trainer import ImageTrainer

logger = logging.getLogger("hf_accel.train")  # under `python -m`, __name__ is __main__, which nobody listens to

DESCRIPTION = """\
Fine-tune an image classifier by a recipe.

  hf-accel train --recipe vit_cifar10
  hf-accel train --recipe digits --variant baseline --learning_rate 1e-3 --num_train_epochs 3
  hf-accel train --data.name ./photos                 your own images, by the recipe `finetune`
  accelerate launch -m hf_accel.train --recipe vit_cifar10

Every argument of TrainingArguments is a flag under its own name, the other settings of a recipe are dotted:
--model.name, --data.name, --data.cache none, --data.augment.flip true. `hf-accel recipe show NAME` prints a recipe.
The same command resumes a run that was interrupted; --resume_from_checkpoint true with a larger --num_train_epochs
trains a finished one longer, and --resume_from_checkpoint PATH continues that checkpoint in another --output_dir.

  hf-accel recipe schema --format markdown            every setting: class weights, mixup, bad images, image size...
  hf-accel recipe arguments                           what each argument of TrainingArguments does
  hf-accel recipe migrate                             flags of timm, Ultralytics, fastai and the Hugging Face example"""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("train", DESCRIPTION)
    parser.add_argument("--recipe", help="shipped recipe or YAML file; default: finetune with --data.name, else digits")
    parser.add_argument("--variant", help="one of the recipe's variants, for example baseline")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder; its curves for trackers stay")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    name = args.recipe or ("finetune" if "data.name" in flags else "digits")
    recipe = load_recipe(name, args.variant, overrides_from_flags(flags))
    if args.recipe is None and is_main_process():
        print(f"no --recipe given: using {name}", file=sys.stderr)
    warn_of_missing_processes()
    train(recipe, overwrite=args.overwrite)
    return 0


def train(recipe: Recipe, overwrite: bool = False) -> Path:
    """Run a recipe and leave its report, model and page in the recipe's output folder, which is returned.

    Raises:
        UserError: something in the recipe cannot run here; nothing was written.
    """
    run = RunFolder.claim(recipe, overwrite)

    with quick_imports():
        from hf_accel.hub import push as hub
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.training.arguments import training_arguments
        from hf_accel.training.build import build_trainer
        from hf_accel.training.finish import finish
        from hf_accel.training.resuming import continued_data_notes, require_same_model

    quiet_libraries()
    start_console(is_main_process())
    arguments = training_arguments(recipe, has_validation=recipe.data.validation > 0)
    splits = TASKS[recipe.model.task].open_splits(recipe.data, arguments.training.seed)
    data = facts_of(splits)
    run.refuse_changed_data(data)
    trainer = build_trainer(recipe, splits, arguments=arguments)
    if run.checkpoint is not None and run.begins_elsewhere:
        require_same_model(run.checkpoint, trainer.model)
        trainer.notes += continued_data_notes(run.checkpoint, splits)
    with run.open(recipe, data):  # from here on nothing in the recipe can be refused
        trainer.accelerator.wait_for_everyone()
        tell_what_was_chosen(trainer)
        hub.warn_early(recipe)
        train_from(run.checkpoint, trainer)
        finished = finish(run, recipe, trainer)
        if trainer.is_world_process_zero():
            print(finished.report.table(run.path))
            hub.push_if_asked(finished)
    return run.path


def tell_what_was_chosen(trainer: ImageTrainer) -> None:
    logger.info(trainer.splits.describe())
    for note in trainer.notes:
        logger.info(note)


def train_from(checkpoint: Path | None, trainer: ImageTrainer) -> None:
    """Train from a checkpoint where there is one, else from scratch."""
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
        trainer.measurement.load(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


if __name__ == "__main__":
    run_and_exit(main)
