"""`hf-accel recipe`: list, show, validate and copy recipes."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import yaml

from hf_accel.cli import command_parser, run_and_exit
from hf_accel.config.recipe import find_recipe, header, load_recipe, shipped_recipes, variant_names
from hf_accel.errors import UserError
from hf_accel.tables import format_table


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("recipe", "List, show, check and copy recipes.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | show | validate | copy")
    verbs.add_parser("list", help="every shipped recipe with its purpose")
    show = verbs.add_parser("show", help="the file of a recipe; with --variant, what results")
    show.add_argument("name")
    show.add_argument("--variant")
    validate = verbs.add_parser("validate", help="check a recipe and all its variants")
    validate.add_argument("name")
    copy = verbs.add_parser("copy", help="copy a recipe to a file of your own")
    copy.add_argument("name")
    copy.add_argument("path", type=Path)
    args = parser.parse_args(argv)
    return {"list": _list, "show": _show, "validate": _validate, "copy": _copy}[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    rows = [(name, next(iter(header(path)), "")) for name, path in shipped_recipes().items()]
    print(format_table((), rows, align="ll"))
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.variant is None:
        print(find_recipe(args.name).read_text("utf-8").rstrip())
    else:
        recipe = load_recipe(args.name, args.variant)
        print(yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True).rstrip())
    return 0


def _validate(args: argparse.Namespace) -> int:
    variants = variant_names(args.name)
    for variant in (None, *variants):
        load_recipe(args.name, variant)
    print(f"{args.name}: valid, {len(variants)} variants{': ' if variants else ''}{' '.join(variants)}")
    return 0


def _copy(args: argparse.Namespace) -> int:
    source = find_recipe(args.name)
    if args.path.exists():
        raise UserError(f"{args.path}: exists already; nothing was written. Name another file.")
    if not args.path.parent.is_dir():
        raise UserError(f"{args.path}: the folder {args.path.parent} does not exist. Make it first.")
    shutil.copyfile(source, args.path)
    print(f"{args.path}: copied from {source.stem}. Train it with: hf-accel train --recipe {args.path}")
    return 0


if __name__ == "__main__":
    run_and_exit(main)
