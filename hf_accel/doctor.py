"""`hf-accel doctor`: what this machine gives, whether a recipe can run here, and what is wrong with its data."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel import terminal
from hf_accel.cli import command_parser, parse_with_overrides, print_result, quick_imports, run_and_exit
from hf_accel.config.domains import default_recipe
from hf_accel.config.flags import named_data, overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError
from hf_accel.tables import format_table

if TYPE_CHECKING:
    from hf_accel.data.splits import Splits
    from hf_accel.data.verdict import Verdict
    from hf_accel.machine.checkup import Checkup
    from hf_accel.machine.packages import Package
    from hf_accel.training.rehearsal import Rehearsal
    from hf_accel.upstream import Fault

DESCRIPTION = """\
Say what this machine gives, whether a recipe can run here, and what is wrong with its data. Nothing is trained.

  hf-accel doctor                                       devices, precisions, speed, memory, disk, versions
  hf-accel doctor ./photos                              and the data: classes, unreadable images, pictures that occur twice
  hf-accel doctor --recipe vit_cifar10                  and whether this recipe can run here
  hf-accel doctor ./photos --recipe finetune --model.channels_last false           settings as in train

Measured are a matrix product, a copy in memory, a file of 64 MiB that is written, read and deleted, and the decoding of
images: measure on an idle machine. Every image of the data is read, up to --images.
Exit code: 0 it can run, 1 it cannot, and why, 2 the command line or the data named there is wrong."""
SEED = 42  # of transformers; the seed decides which rows are held out


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("doctor", DESCRIPTION)
    parser.add_argument("data", nargs="?", metavar="DATA", help="images: a folder or an id on the Hub; as --data.name")
    parser.add_argument("--recipe", help="shipped recipe or YAML file")
    parser.add_argument("--variant", help="one of the recipe's variants")
    parser.add_argument(
        "--images", type=int, metavar="N", help="images of the data that are read at most; 0: none (default: 20000)"
    )
    parser.add_argument("--faults", action="store_true", help="print the known faults of the libraries, as Markdown")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.faults:
        return print_faults(args)
    if args.data is not None:
        flags["data.name"] = named_data("doctor", args.data, flags)
    overrides = overrides_from_flags(flags)
    if args.recipe is None and (args.variant or flags) and "data.name" not in flags:
        raise UserError("hf-accel doctor: settings are those of a recipe or of data. Add --recipe NAME or a folder.")
    if args.images is not None and args.images < 0:
        raise UserError(f"--images {args.images}: expected the number of images to read, 0 or more")
    named = args.recipe or (default_recipe(overrides) if flags else None)
    recipe = None if named is None else load_recipe(named, args.variant, overrides)
    terminal.say_each(() if recipe is None else recipe.notes)
    with quick_imports():
        from hf_accel.runs.log import quiet_libraries

    quiet_libraries()
    return examine(args, recipe)


def print_faults(args: argparse.Namespace) -> int:
    from hf_accel.upstream import FAULTS, faults_page

    print_result(args, [fault_facts(fault) for fault in FAULTS], faults_page())
    return 0


def examine(args: argparse.Namespace, recipe: Recipe | None) -> int:
    """Look at the machine, at the data and at the recipe, as far as they are named, and print what was found."""
    from hf_accel.machine.checkup import check_machine
    from hf_accel.machine.packages import packages
    from hf_accel.training.arguments import accelerator_type

    rehearsal, splits = opened(args, recipe)
    verdict = None if splits is None else verdict_on(splits, args.images)
    outputs = rehearsal.place if rehearsal and rehearsal.place else Path.cwd()
    checkup = check_machine(accelerator_type(), outputs, images_of(splits))
    needed = packages()
    problems = [*package_problems(needed), *(rehearsal.problems if rehearsal else [])]
    faults = known_faults(recipe if rehearsal else None)
    document = {
        "machine": checkup.to_dict(),
        "packages": [{**dataclasses.asdict(package), "is_met": package.is_met} for package in needed],
        "faults": [fault_facts(fault) for fault in faults],
        "recipe": None if recipe is None or rehearsal is None else recipe.without_secrets().to_dict(),
        "chosen": rehearsal.chosen if rehearsal else [],
        "data": None if verdict is None else verdict.facts,
        "problems": problems,
        "can_run": not problems,
    }
    last_line = conclusion(recipe if rehearsal else None, problems)
    text = screen(checkup, needed, faults, rehearsal, verdict)
    print_result(args, document, f"{text}\n\n{last_line}", last_line)
    return 1 if problems else 0


def opened(args: argparse.Namespace, recipe: Recipe | None) -> tuple[Rehearsal | None, Splits | None]:
    """The rehearsal of a recipe that is named, and the data.

    Raises:
        UserError: the data that is named alone cannot be opened.
    """
    if recipe is None:
        return None, None
    if args.recipe is not None:
        from hf_accel.training.rehearsal import rehearse

        found = rehearse(recipe)
        return found, found.splits
    from hf_accel.tasks import TASKS

    return None, TASKS[recipe.model.task].open_splits(recipe.data, int(recipe.training.get("seed", SEED)))


def verdict_on(splits: Splits, most_images: int | None) -> Verdict:
    from hf_accel.data.survey import MOST_IMAGES
    from hf_accel.data.verdict import judge

    most = MOST_IMAGES if most_images is None else most_images
    return judge(splits, most, terminal.columns(sys.stdout))


def images_of(splits: Splits | None) -> list[bytes | Path]:
    """Some encoded images of the data, if it has images."""
    if splits is None or splits.unit != "image":
        return []
    from hf_accel.data.survey import some_images

    return some_images(splits.train)


def package_problems(needed: list[Package]) -> list[str]:
    """Packages that are always needed and are missing or of another version."""
    return [
        f"{package.name} {package.installed or 'is not installed'}, expected {package.name}{package.expected}: "
        f'pip install "{package.name}{package.expected}"'
        for package in needed
        if package.extra is None and not package.is_met
    ]


def known_faults(recipe: Recipe | None) -> list[Fault]:
    """Those of the installed versions that this recipe, or any, can meet."""
    from hf_accel.machine.packages import installed_version
    from hf_accel.upstream import FAULTS, faults_of

    return faults_of(recipe, {fault.library: installed_version(fault.library) for fault in FAULTS})


def fault_facts(fault: Fault) -> dict[str, Any]:
    """A fault in JSON types."""
    names = ("library", "seen_in", "here", "link", "fixed_in", "tests", "watch")
    return {"what": fault.sentence, **{name: getattr(fault, name) for name in names}}


def screen(
    checkup: Checkup, needed: list[Package], faults: list[Fault], rehearsal: Rehearsal | None, verdict: Verdict | None
) -> str:
    """Everything that was found, as one text."""
    from hf_accel.machine.checkup import machine_rows

    chosen = rehearsal.chosen if rehearsal else []
    rows = [*machine_rows(checkup), *package_rows(checkup.environment, needed)]
    rows += [("recipe" if not place else "", note) for place, note in enumerate(chosen)]
    rows += fault_rows(faults, has_recipe=rehearsal is not None)
    width = terminal.columns(sys.stdout)
    parts = [format_table((), wrapped(rows, width), align="ll", indent=2)]
    if verdict is not None:
        parts.append(verdict.text(width))
    return "\n\n".join(parts)


def wrapped(rows: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """The rows, with what is too wide for the screen in rows below, which have no subject."""
    room = max(20, width - 4 - max(len(subject) for subject, _ in rows))
    lines = [(subject, textwrap.wrap(text, room, break_long_words=False) or [""]) for subject, text in rows]
    return [(subject if not number else "", part) for subject, parts in lines for number, part in enumerate(parts)]


def package_rows(environment: dict[str, Any], needed: list[Package]) -> list[tuple[str, str]]:
    """The versions of the large libraries, and which extras are complete."""
    from hf_accel.machine.description import LIBRARIES

    rows = [("libraries", ", ".join(f"{name} {environment[name] or 'missing'}" for name in LIBRARIES))]
    extras: dict[str, bool] = {}  # whether each is complete
    for package in needed:
        if package.extra:
            extras[package.extra] = extras.get(package.extra, True) and package.is_met
    present = [name for name, is_complete in extras.items() if is_complete]
    absent = [f'{name} (pip install "hf_accel[{name}]")' for name, is_complete in extras.items() if not is_complete]
    if present:
        rows.append(("extras", f"installed: {', '.join(present)}"))
    if absent:
        rows.append(("" if present else "extras", f"not installed: {', '.join(absent)}"))
    return rows


def fault_rows(faults: list[Fault], has_recipe: bool) -> list[tuple[str, str]]:
    """The faults that concern the recipe, each with what is done about it, and the number of the others."""
    own = [fault for fault in faults if has_recipe and fault.concerns is not None]
    lines = [f"{fault.library}: {fault.sentence} -> {fault.here.replace('`', '')}" for fault in own]
    others = "that any run can meet" if has_recipe else "of these versions of the libraries"
    more = "more " if own else ""
    lines.append(f"{len(faults) - len(own)} {more}{others}, all worked around: hf-accel doctor --faults")
    return [("known faults" if not place else "", line) for place, line in enumerate(lines)]


def conclusion(recipe: Recipe | None, problems: list[str]) -> str:
    """The last line, or more where there are problems: whether it can run."""
    if recipe is not None:
        verdict = f"{recipe.name}, {recipe.variant}: {'cannot' if problems else 'can'} run here"
    elif problems:
        verdict = "this machine lacks what hf_accel needs"
    else:
        verdict = "no problem found; --recipe NAME checks whether a recipe can run here"
    return "\n".join([verdict, *(terminal.wrap(f"- {problem}", sys.stdout, indent="  ") for problem in problems)])


if __name__ == "__main__":
    run_and_exit(main)
