"""`hf-accel profile`: where the time, memory and I/O of a run go, phase by phase, and what bounds it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel import terminal
from hf_accel.cli import command_parser, interrupt_says, parse_with_overrides, print_result, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.errors import RunError, UserError
from hf_accel.privacy import published_command
from hf_accel.runs.lock import sole_use

if TYPE_CHECKING:
    from hf_accel.profiling.runs import Plan
    from hf_accel.profiling.schema import Profile

DESCRIPTION = """\
Where the time, memory and I/O of a run go, what bounds it, and which recipe lines may help.

  hf-accel profile --recipe resnet20_cifar10
  hf-accel profile --recipe resnet50_cifar10 --variants baseline all      before and after, in one page
  hf-accel profile --recipe vit_cifar10 --trace                           also a trace for Perfetto

Each row is trained for a few steps in a process of its own, twice: with empty caches, and with those of the first run. It
leaves report.html, profile.md, profile.csv and profile.json. Settings are given as for train: --learning_rate 1e-3,
--data.name ./photos. Nothing else may run on the machine meanwhile."""

STEPS = 10
INTERRUPTED = "nothing was written. The same command starts from scratch."


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("profile", DESCRIPTION)
    parser.add_argument("--recipe", required=True, help="shipped recipe or YAML file")
    parser.add_argument(
        "--variants", nargs="+", action="extend", help="rows of the profile; default: the recipe as it stands"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"timed steps after the warm-up; default {STEPS}")
    parser.add_argument("--trace", action="store_true", help="write a trace of torch.profiler for each row")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/profile/RECIPE")
    parser.add_argument("--overwrite", action="store_true", help="replace the profile in the output folder")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: expected at least 1")

    from hf_accel.profiling.runs import IN_USE, Plan

    plan = Plan(args, flags)
    terminal.say_each(note for row in plan.rows for note in row.recipe.notes)
    plan.claim(args.overwrite)
    is_new = not plan.folder.exists()
    with sole_use(plan.folder, IN_USE), interrupt_says(INTERRUPTED):
        plan.remove_traces()
        profile = measured(plan, argv)
        if not profile.measured:
            if is_new:
                shutil.rmtree(plan.folder)
            kind = RunError if plan.has_crashed else UserError
            raise kind("\n".join(f"{row.name}: {row.failure}" for row in profile.rows))
        page = written(profile, plan)

    from hf_accel.profiling.export import text_summary

    text = f"{text_summary(profile)}\n\n{page}"
    print_result(args, {"folder": str(plan.folder), **profile.to_dict()}, text, str(page))
    return 0


def measured(plan: Plan, argv: list[str] | None) -> Profile:
    """Run every row, with a bar that shows which."""
    from hf_accel.profiling.schema import Profile

    rows = []
    with terminal.bar(len(plan.rows), "profile", "row", delay=0) as bar:
        for planned in plan.rows:
            bar.set_postfix_str(planned.name)
            rows.append(plan.measure(planned, bar.refresh))
            bar.update()
    command = published_command(["hf-accel", "profile", *(sys.argv[1:] if argv is None else argv)])
    return Profile(plan.recipe.name, rows, command)


def written(profile: Profile, plan: Plan) -> Path:
    """Write every file of a profile; returns the page."""
    from hf_accel.profiling.export import write_profile
    from hf_accel.profiling.page import write_profile_page

    write_profile(profile, plan.folder)
    return write_profile_page(plan.folder)


if __name__ == "__main__":
    run_and_exit(main)
