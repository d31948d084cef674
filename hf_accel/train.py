"""`hf-accel train`: recipe -> data -> model -> trainer -> report -> hub, one call an arrow."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

from hf_accel.cli import command_parser, is_main_process, parse_with_overrides, quick_imports, run_and_exit
from hf_accel.errors import UserError
from hf_accel.recipe import Recipe, load_recipe, overrides_from_flags

logger = logging.getLogger("hf_accel.train")  # under `python -m`, __name__ is __main__, which nobody listens to

DESCRIPTION = """\
Fine-tune an image classifier by a recipe.

  hf-accel train --recipe vit_cifar10
  hf-accel train --recipe digits --variant baseline --learning_rate 1e-3 --num_train_epochs 3
  hf-accel train --data.name ./photos                 your own images, by the recipe `finetune`
  accelerate launch -m hf_accel.train --recipe vit_cifar10

Every argument of TrainingArguments is a flag under its own name, the other settings of a recipe are dotted:
--model.name, --data.name, --data.cache none, --data.augment.flip true. `hf-accel recipe show NAME` prints a recipe.
The same command resumes a run that was cut off."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("train", DESCRIPTION)
    parser.add_argument("--recipe", help="shipped recipe or YAML file; default: finetune with --data.name, else digits")
    parser.add_argument("--variant", help="one of the recipe's variants, for example baseline")
    parser.add_argument("--overwrite", action="store_true", help="delete what an earlier run left in the output folder")
    args, flags = parse_with_overrides(parser, argv)
    name = args.recipe or ("finetune" if "data.name" in flags else "digits")
    recipe = load_recipe(name, args.variant, overrides_from_flags(flags))
    if args.recipe is None and is_main_process():
        print(f"no --recipe given: using {name}", file=sys.stderr)
    train(recipe, overwrite=args.overwrite)
    return 0


def train(recipe: Recipe, overwrite: bool = False) -> Path:
    """Run a recipe and leave its report, model and page in the recipe's output folder, which is returned.

    Raises:
        UserError: something in the recipe cannot run here; nothing was written.
    """
    folder = recipe.output_dir
    checkpoint = claim_folder(folder, recipe, overwrite)

    with quick_imports():
        from hf_accel import hub
        from hf_accel.results import finish, quiet_libraries
        from hf_accel.trainer import build_trainer

    quiet_libraries()
    start_console(is_main_process())
    trainer = build_trainer(recipe)
    if trainer.is_world_process_zero():
        if overwrite:  # only now that nothing in the recipe can be refused any more
            remove_run(folder)
        start_log(folder)
        recipe.write(folder / "recipe.yaml")
    trainer.accelerator.wait_for_everyone()
    logger.info(trainer.splits.describe())
    for note in trainer.notes:
        logger.info(note)
    hub.warn_early(recipe)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
        trainer.measurement.load(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    report = finish(trainer, recipe)
    if trainer.is_world_process_zero():
        print(report.table(folder))
        hub.push_if_asked(folder, recipe)
    return folder


def claim_folder(folder: Path, recipe: Recipe, overwrite: bool) -> Path | None:
    """Check that a run may use its output folder; the checkpoint to resume from, if there is one.

    Raises:
        UserError: the folder holds a finished run, or an unfinished one of another recipe.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: is a file, expected a folder")
    if overwrite:
        return None
    if (folder / "report.json").is_file():
        raise UserError(
            f"{folder}: holds a finished run, which is kept. Add --overwrite to replace it, or choose another --output_dir."
        )
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return None
    ours, own = recipe.without_secrets(), folder / "recipe.yaml"
    before = load_recipe(own) if own.is_file() else None
    if before != ours:
        changed = ", ".join(differences(before, ours)) if before else "its recipe.yaml is gone"
        raise UserError(
            f"{folder}: holds an unfinished run with other settings ({changed}). Run it with its own settings to resume "
            "it, add --overwrite to start anew, or choose another --output_dir."
        )
    return checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: the Trainer writes trainer_state.json last."""
    found = [p.parent for p in folder.glob("checkpoint-*/trainer_state.json") if p.parent.name[11:].isdigit()]
    return max(found, key=lambda path: int(path.name[11:]), default=None)


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    old, new = before.to_dict(), now.to_dict()
    names = []
    for section in ("model", "data", "training"):
        keys = sorted(set(old[section]) | set(new[section]))
        names += [f"{section}.{key}" for key in keys if old[section].get(key) != new[section].get(key)]
    return names or ["name or variant"]


def remove_run(folder: Path) -> None:
    """Delete what a run leaves, and nothing else that may lie in the folder."""
    for path in [*folder.glob("checkpoint-*"), *(folder / name for name in ("model", "plots", "runs"))]:
        if path.is_dir():
            shutil.rmtree(path)
    files = ("recipe.yaml", "report.json", "report.html", "history.csv", "log.txt", "predictions.csv")
    for name in files:
        (folder / name).unlink(missing_ok=True)


def start_console(is_main: bool) -> None:
    """Send what this package says to stderr; of the other ranks, warnings only."""
    root = logging.getLogger("hf_accel")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    root.handlers.clear()
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)


def start_log(folder: Path) -> None:
    """Send it to log.txt too, with times."""
    folder.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("hf_accel").addHandler(file)


if __name__ == "__main__":
    run_and_exit(main)
