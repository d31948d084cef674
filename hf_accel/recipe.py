"""`hf-accel recipe`: list, show, validate and copy recipes, and say what may be in one."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import shutil
from pathlib import Path

from hf_accel.cli import command_parser, print_result, run_and_exit
from hf_accel.config.measured import Measured, measured_recipes
from hf_accel.config.migration.answers import TOOLS
from hf_accel.config.migration.guide import migration_guide
from hf_accel.config.recipe import RecipeFile, find_recipe, header, load_recipe, shipped_recipes
from hf_accel.config.reference import recipe_reference
from hf_accel.config.schema import recipe_schema
from hf_accel.config.yaml_text import dump_yaml
from hf_accel.errors import UserError
from hf_accel.formatting import MISSING, format_accuracy, format_duration, format_million
from hf_accel.tables import format_table

LIST_HEADINGS = ("name", "model", "data", "parameters", "test accuracy", "training time", "device")
NOT_MEASURED = "not yet measured"


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("recipe", "List, show, check and copy recipes, and print what may be in one.")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="list | show | validate | copy | schema | migrate | arguments"
    )
    verbs.add_parser("list", help="every shipped recipe: model, data, and what was measured")
    show = verbs.add_parser("show", help="the file of a recipe; with --variant or --json, what results")
    show.add_argument("name")
    show.add_argument("--variant")
    validate = verbs.add_parser("validate", help="check a recipe and all its variants")
    validate.add_argument("name")
    copy = verbs.add_parser("copy", help="copy a recipe to a file of your own")
    copy.add_argument("name")
    copy.add_argument("path", type=Path)
    schema = verbs.add_parser("schema", help="what may be in a recipe: a JSON Schema for editors, or docs/recipe.md")
    schema.add_argument("--format", choices=("json", "markdown"), default="json")
    verbs.add_parser("migrate", help="the flags of timm, Ultralytics... and the settings here: docs/migrate.md")
    verbs.add_parser("arguments", help="what each argument of TrainingArguments does here: docs/arguments.md")
    args = parser.parse_args(argv)
    commands = {
        "list": _list,
        "show": _show,
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


def _show(args: argparse.Namespace) -> int:
    path = find_recipe(args.name)
    document = load_recipe(args.name, args.variant).to_dict() if args.json or args.variant is not None else {}
    text = path.read_text("utf-8") if args.variant is None else dump_yaml(document)
    print_result(args, document, text.rstrip())
    return 0


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
