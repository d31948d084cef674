"""`hf-accel recipe`: list, show, validate and copy recipes, and say what may be in one."""

from __future__ import annotations

import argparse
import dataclasses
import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from hf_accel.cli import command_parser, parse_with_overrides, print_result, quick_imports, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.measured import Measured, measured_recipes
from hf_accel.config.migration.answers import TOOLS
from hf_accel.config.migration.guide import migration_guide
from hf_accel.config.recipe import Recipe, RecipeFile, find_recipe, header, load_recipe, shipped_recipes
from hf_accel.config.reference import recipe_reference
from hf_accel.config.schema import recipe_schema
from hf_accel.config.yaml_text import dump_yaml, flow_yaml
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.formatting import MISSING, format_accuracy, format_duration, format_million
from hf_accel.tables import format_table

LIST_HEADINGS = ("name", "model", "data", "parameters", "test accuracy", "training time", "device")
NOT_MEASURED = "not yet measured"
SHEET, SHEET_ROWS, SHEET_EPOCHS = "augmented.png", 8, 7
SHOW = """\
Print the file of a recipe. With --variant, with settings such as --data.name ./photos or --seed 1, or with --json, print
what results. With --augmented FOLDER, write a picture of what data.augment does."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("recipe", "List, show, check and copy recipes, and print what may be in one.")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="list | show | validate | copy | schema | migrate | arguments"
    )
    verbs.add_parser("list", help="every shipped recipe: model, data, and what was measured")
    show = verbs.add_parser(
        "show",
        help="the file of a recipe; with --variant, settings or --json, what results; with --augmented, a picture",
        description=SHOW,
    )
    show.add_argument("name")
    show.add_argument("--variant")
    show.add_argument(
        "--augmented",
        type=Path,
        metavar="FOLDER",
        help=f"write FOLDER/{SHEET}: {SHEET_ROWS} training images, and what the first {SHEET_EPOCHS} epochs make of each",
    )
    validate = verbs.add_parser("validate", help="check a recipe and all its variants")
    validate.add_argument("name")
    copy = verbs.add_parser("copy", help="copy a recipe to a file of your own")
    copy.add_argument("name")
    copy.add_argument("path", type=Path)
    schema = verbs.add_parser("schema", help="what may be in a recipe: a JSON Schema for editors, or docs/recipe.md")
    schema.add_argument("--format", choices=("json", "markdown"), default="json")
    verbs.add_parser("migrate", help="the flags of timm, Ultralytics... and the settings here: docs/migrate.md")
    verbs.add_parser("arguments", help="what each argument of TrainingArguments does here: docs/arguments.md")
    words = sys.argv[1:] if argv is None else list(argv)
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb == "show":  # the one verb that takes settings
        words.remove(verb)
        args, flags = parse_with_overrides(show, words)
        return _show(args, overrides_from_flags(flags))
    args = parser.parse_args(words)
    commands = {
        "list": _list,
        "validate": _validate,
        "copy": _copy,
        "schema": _schema,
        "migrate": _migrate,
        "arguments": _arguments,
    }
    return commands[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    measured = measured_recipes()
    document, rows = [], []
    for name, path in shipped_recipes().items():
        raw, known = RecipeFile.read(name).raw, measured.get(name, Measured())
        facts = {"name": name, "model": raw["model"]["name"], "data": raw["data"]["name"]}
        document.append({**facts, "purpose": next(iter(header(path)), ""), "measured": dataclasses.asdict(known)})
        accuracy = NOT_MEASURED if known.test_accuracy is None else format_accuracy(known.test_accuracy)
        figures = [format_million(known.parameters), accuracy, format_duration(known.seconds), known.device or MISSING]
        rows.append([*facts.values(), *figures])
    print_result(args, document, format_table(LIST_HEADINGS, rows, align="lllrrrl"))
    return 0


def _show(args: argparse.Namespace, overrides: dict[str, Any]) -> int:
    path = find_recipe(args.name)
    is_patched = args.variant is not None or bool(overrides)
    if args.augmented is not None:
        return _show_augmented(args, load_recipe(args.name, args.variant, overrides))
    document = load_recipe(args.name, args.variant, overrides).to_dict() if args.json or is_patched else {}
    text = dump_yaml(document) if is_patched else path.read_text("utf-8")
    print_result(args, document, text.rstrip())
    return 0


def _show_augmented(args: argparse.Namespace, recipe: Recipe) -> int:
    path = _sheet_path(args.augmented)
    with quick_imports():
        from transformers import TrainingArguments

        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS
        from hf_accel.transforms.contact_sheet import contact_sheet

    quiet_libraries()
    task, seed = TASKS[recipe.model.task], int(recipe.training.get("seed", TrainingArguments.seed))
    splits = task.open_splits(recipe.data, seed)
    rows, notes = task.augmented_images(recipe, splits, seed, SHEET_ROWS, SHEET_EPOCHS)
    settings = recipe.data.augment.switched_on()
    if not settings:
        notes.append(f"{recipe.name} has no augmentation: every sample is the image itself")
    if recipe.data.progressive_resizing is not None:
        notes.append(
            "the samples have the model's full size; data.progressive_resizing makes those of the first epochs smaller"
        )
    title = f"{recipe.name}, {recipe.variant}: training images of {recipe.data.name}, seed {seed}"
    plain = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    lines = [flow_yaml({name: value})[1:-1] for name, value in settings.items() if name not in plain]
    lines = [flow_yaml(plain)[1:-1], *lines] if plain else lines
    picture = io.BytesIO()
    contact_sheet(rows, title, "\n".join([*lines, *notes])).save(picture, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, picture.getvalue())
    except OSError as error:
        raise UserError(
            f"--augmented {path.parent}: cannot be written: {error.strerror}. Name another folder."
        ) from None
    document = {"path": str(path), "labels": [row.label for row in rows], "augment": settings, "notes": notes}
    text = f"{path}: {len(rows)} training images, and what the first {SHEET_EPOCHS} epochs make of each"
    print_result(args, document, "\n".join([*notes, text]), str(path))
    return 0


def _sheet_path(folder: Path) -> Path:
    """The file in this folder; a folder with other files is refused."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--augmented {folder}: is not a folder. Name a new one.")
    foreign = sorted(path.name for path in folder.iterdir() if path.name != SHEET) if folder.exists() else []
    if foreign:
        raise UserError(
            f"--augmented {folder}: holds other files ({foreign[0]}{', ...' if foreign[1:] else ''}), expected a new or empty "
            f"folder, or one with {SHEET} alone. Nothing was written."
        )
    return folder / SHEET


def _validate(args: argparse.Namespace) -> int:
    file = RecipeFile.read(args.name)
    variants = file.variants
    for variant in (None, *variants):
        file.recipe(variant)
    text = f"{args.name}: valid, {len(variants)} variants{': ' if variants else ''}{' '.join(variants)}"
    print_result(args, {"name": args.name, "valid": True, "variants": list(variants)}, text)
    return 0


def _copy(args: argparse.Namespace) -> int:
    source = find_recipe(args.name)
    if args.path.exists():
        raise UserError(f"{args.path}: exists already; nothing was written. Name another file.")
    if not args.path.parent.is_dir():
        raise UserError(f"{args.path}: the folder {args.path.parent} does not exist. Make it first.")
    shutil.copyfile(source, args.path)
    command = f"hf-accel train --recipe {shlex.quote(str(args.path))}"
    document = {"path": str(args.path), "source": source.stem, "command": command}
    print_result(args, document, f"{args.path}: copied from {source.stem}. Train it with: {command}", str(args.path))
    return 0


def _schema(args: argparse.Namespace) -> int:
    args.json = args.format == "json"
    print_result(args, recipe_schema(), "" if args.json else recipe_reference().rstrip())
    return 0


def _migrate(args: argparse.Namespace) -> int:
    document = {
        tool: [{"there": row.names, "here": row.answer(row.example), "note": row.note} for row in rows]
        for tool, rows in TOOLS.items()
    }
    print_result(args, document, migration_guide().rstrip())
    return 0


def _arguments(args: argparse.Namespace) -> int:
    from hf_accel.training.arguments_reference import arguments_reference, what_happens

    print_result(args, what_happens(), arguments_reference().rstrip())
    return 0


if __name__ == "__main__":
    run_and_exit(main)
