"""`hf-accel train`: recipe -> data -> model -> trainer -> report -> hub, one call per arrow."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel import terminal
from hf_accel.cli import (
    command_parser,
    interrupt_says,
    is_main_process,
    parse_with_overrides,
    print_result,
    quick_imports,
    run_and_exit,
)
from hf_accel.compression.packages import refuse_missing_packages
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.config.domains import default_recipe
from hf_accel.config.flags import named_data, overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError
from hf_accel.formatting import format_count, format_epochs
from hf_accel.ranks import count_restarts
from hf_accel.report.next_commands import next_commands, place_below
from hf_accel.report.run_report import RunReport
from hf_accel.runs.checkpoints import has_manifest, missing_optimizer
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.log import note_in_log, start_console
from hf_accel.runs.process import warn_of_missing_processes
from hf_accel.runs.recorded_data import facts_of
from hf_accel.training.preemption import StopSignals

if TYPE_CHECKING:
    from hf_accel.training.trainer import ImageTrainer

logger = logging.getLogger("hf_accel.train")  # under `python -m`, __name__ is __main__, which nobody listens to

DESCRIPTION = """\
Fine-tune an image classifier by a recipe.

  hf-accel train ./photos                             your own images, by the recipe `finetune`
  hf-accel train --recipe vit_cifar10
  hf-accel train --recipe digits --variant baseline --learning_rate 1e-3 --num_train_epochs 3
  accelerate launch -m hf_accel.train --recipe vit_cifar10

Every argument of TrainingArguments is a flag under its own name, the other settings of a recipe are dotted:
--model.name, --data.name, --data.cache none, --data.augment.flip true. `hf-accel recipe show NAME` prints a recipe.
The same command resumes a run that was interrupted; --resume_from_checkpoint true with a larger --num_train_epochs
trains a finished one longer, and --resume_from_checkpoint PATH continues that checkpoint in another --output_dir.

  hf-accel recipe schema --format markdown            every setting: class weights, mixup, bad images, image size...
  hf-accel recipe arguments                           what each argument of TrainingArguments does
  hf-accel recipe migrate                             flags of timm, Ultralytics, fastai and the Hugging Face example"""


NOTHING_TO_TRAIN_ON = """\
hf-accel train: nothing to train on, expected images or a recipe:
  hf-accel train ./photos             your own images: a folder with one sub-folder per class
  hf-accel train uoft-cs/cifar10      a data set on the Hub
  hf-accel train --recipe digits      a recipe; `hf-accel recipe list` shows all of them
hf-accel train --help explains the rest."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("train", DESCRIPTION)
    parser.add_argument("data", nargs="?", metavar="DATA", help="images: a folder or an id on the Hub; as --data.name")
    parser.add_argument("--recipe", help="shipped recipe or YAML file; default: finetune, for any images")
    parser.add_argument("--variant", help="one of the recipe's variants, for example baseline")
    parser.add_argument(
        "--tune", choices=("auto",), help="use the settings that `hf-accel tune` found here, or find some"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run in the output folder, all but its curves"
    )
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.data is not None:
        flags["data.name"] = named_data("train", args.data, flags)
    if args.recipe is None and "data.name" not in flags:
        raise UserError(NOTHING_TO_TRAIN_ON + swallowed_data(flags))
    overrides = overrides_from_flags(flags)
    named = args.recipe or default_recipe(overrides)
    recipe = load_recipe(named, args.variant, overrides)
    if args.tune is not None:
        from hf_accel.tuning.auto import tuned_recipe

        recipe = tuned_recipe(named, args.variant, overrides)
    if is_main_process():
        terminal.say_each([*([] if args.recipe else [f"no --recipe given: using {named}"]), *recipe.notes])
    warn_of_missing_processes()
    begins = "the training had not begun, and nothing was changed. Repeat the command."
    with interrupt_says(begins), StopSignals().installed() as signals:
        folder = train(recipe, args.overwrite, signals)
    if is_main_process():
        report = RunReport.load(folder)
        text = f"{report.table(folder, terminal.columns(sys.stdout))}\n\n{what_next(folder, recipe)}"
        print_result(args, {"folder": str(folder), **report.to_dict()}, text, last_line=str(folder))
    return 0


def swallowed_data(flags: dict[str, str]) -> str:
    """A sentence on a folder that was read as the value of a flag, as in `--bf16 ./photos`."""
    found = [(flag, value) for flag, value in flags.items() if os.path.isdir(value) and not flag.endswith("_dir")]
    return "".join(f"\n{value} was read as the value of --{flag}: name the images first." for flag, value in found)


def what_next(folder: Path, recipe: Recipe) -> str:
    """The commands for a finished run that most people want first, ready to be copied."""
    from hf_accel.data.listing import first_image

    image = first_image(Path(recipe.data.name).expanduser())
    sample = None if image is None else place_below(image) or image
    found = next_commands(place_below(folder) or folder, sample, recipe.model.task)
    return "\n".join(["next:", *(f"  {following.command}" for following in found[:3])])


def train(recipe: Recipe, overwrite: bool = False, signals: StopSignals | None = None) -> Path:
    """Run a recipe and leave its report, model and page in the recipe's output folder, which is returned.

    Args:
        signals: those that ask the run to stop are obeyed at the end of a step.
    Raises:
        UserError: something in the recipe cannot run here; nothing was written.
    """
    if recipe.compress is not None:
        refuse_missing_packages(f"{recipe.name}: compress")
    run = RunFolder.claim(recipe, overwrite and count_restarts() == 0)  # a restart continues what the launcher began

    with quick_imports():
        from hf_accel.compression.export import recorded_preprocessing
        from hf_accel.hub import push as hub
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.training.arguments import training_arguments
        from hf_accel.training.build import build_trainer
        from hf_accel.training.finish import finish
        from hf_accel.training.machines import agree_on_checkpoint, folder_of_machine
        from hf_accel.training.resuming import continued_data_notes, keep_batch, require_same_model

    quiet_libraries()
    start_console(is_main_process())
    arguments = training_arguments(recipe, has_validation=recipe.data.selects)
    agree_on_checkpoint(run, arguments.training)
    if run.checkpoint is not None and not run.begins_elsewhere:
        keep_batch(run.checkpoint, arguments)
    splits = TASKS[recipe.model.task].open_splits(recipe.data, arguments.training.seed)
    logger.info("%s\n", splits.describe(min(80, terminal.columns(sys.stderr))))
    data = facts_of(splits)
    run.refuse_changed_data(data)
    trainer = build_trainer(recipe, splits, arguments=arguments)
    if recipe.compress is not None:
        recorded_preprocessing(trainer.loaded)  # what it refuses now it would refuse after training
    if run.checkpoint is not None and run.begins_elsewhere:
        require_same_model(run.checkpoint, trainer.model)
        trainer.notes += continued_data_notes(run.checkpoint, splits)
    # from here on nothing in the recipe can be refused
    with run.open(recipe, data), interrupt_says(lambda: how_to_continue(run, recipe, overwrite)), ExitStack() as stack:
        trainer.accelerator.wait_for_everyone()
        stack.enter_context(folder_of_machine(run, recipe, data, trainer.args, trainer.notes))
        tell_what_was_chosen(trainer, recipe, run)
        hub.warn_early(recipe)
        train_from(run.checkpoint, trainer, signals)
        finished = finish(run, recipe, trainer, partial(compress_if_asked, run, recipe))
        if trainer.is_world_process_zero():
            hub.push_if_asked(finished)
    return run.path


def compress_if_asked(run: RunFolder, recipe: Recipe) -> None:
    """Export the model that the run has left; a failure costs a warning, because the model and its scores are saved."""
    if recipe.compress is None:
        return
    from hf_accel.compression.compress import compress
    from hf_accel.compression.rows import Row, remarks, render

    trained = replace(recipe, model=replace(recipe.model, name=str(run.model), revision=None))
    try:
        result = compress(trained, recipe.compress, run.exported)
    except Exception as error:  # of the model's operations, the exporter, the disk: none of it may cost the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        again = export_command(run, recipe.compress)
        logger.warning("exported: not written (%s). Model and scores are saved; `%s` exports it later.", reason, again)
        return
    rows = [Row(**row) for row in result["rows"]]
    logger.info("\n".join(["", render(rows), "", *remarks(rows), *result["notes"], ""]))


def export_command(run: RunFolder, settings: CompressionSettings) -> str:
    """The command that exports the model of a run in the same formats."""
    formats = ["--formats", *settings.formats] if settings.formats else []
    return shlex.join(["hf-accel", "compress", str(run.path), *formats])


def how_to_continue(run: RunFolder, recipe: Recipe, overwrite: bool) -> str:
    """What an interrupted run says."""
    again = "The same command without --overwrite" if overwrite else "The same command"
    if run.is_finished:
        export = ""
        if recipe.compress is not None and not run.exported.is_dir():
            export = f"`{export_command(run, recipe.compress)}` exports it, and "
        page = f"`hf-accel page {shlex.quote(str(run.path))}` writes the rest."
        return f"the model and its scores are saved. {export}{page}"
    last = run.checkpoints.last()
    if last is None:
        return f"no checkpoint was saved yet. {again} starts from scratch."
    return f"{last} is saved. {again} resumes from it."


def tell_what_was_chosen(trainer: ImageTrainer, recipe: Recipe, run: RunFolder) -> None:
    """Say on the screen what is trained, and write the data and every setting that was chosen to the log."""
    from hf_accel.tasks import TASKS

    args, loaded = trainer.args, trainer.loaded
    start = "pretrained" if recipe.model.pretrained else "from random weights"
    size = TASKS[recipe.model.task].size_of_row(loaded)
    logger.info("model: %s, %s, %s parameters, %s", recipe.model.name, start, format_count(loaded.parameters), size)
    length = f"{args.max_steps:,} steps" if args.max_steps > 0 else format_epochs(args.num_train_epochs)
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    batch = trainer.get_total_train_batch_size(args)
    unit = trainer.splits.unit
    settings = f"{length}, batches of {batch:,} {unit}s, learning rate {args.learning_rate:g}, {precision} on {args.device.type}"
    logger.info("training: %s; all settings: %s", settings, run.log)
    for note in (trainer.splits.describe(), *trainer.notes):
        note_in_log(note, logging.INFO)
    for damage in run.checkpoints.damaged:
        logger.warning("%s: this checkpoint is not used", damage)


def train_from(checkpoint: Path | None, trainer: ImageTrainer, signals: StopSignals | None = None) -> None:
    """Train from a checkpoint where there is one, else from scratch."""
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
        if not has_manifest(checkpoint):
            logger.warning(
                "%s has no manifest: its files are there, but their content cannot be checked", checkpoint.name
            )
        if missing := missing_optimizer(checkpoint):
            names = ", ".join(missing)
            logger.warning("%s has no %s: the optimizer and the schedule start from scratch", checkpoint.name, names)
        trainer.measurement.load(checkpoint, trainer.args.world_size)
    trainer.stop_signals = signals
    with nullcontext() if signals is None else signals.waiting_for_a_step():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


if __name__ == "__main__":
    run_and_exit(main)
