"""`hf-accel compare`: run variants or recipes in turn, often enough to know, and write one table.

Runs are interleaved: every round runs each row of the table once, in a new random order, so that a machine that warms up,
or another program that comes and goes, affects all rows alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel import terminal
from hf_accel.cli import command_parser, interrupt_says, parse_with_overrides, print_result, run_and_exit
from hf_accel.comparison.rounds import measure
from hf_accel.config.flags import overrides_from_flags
from hf_accel.errors import UserError
from hf_accel.runs.lock import sole_use

if TYPE_CHECKING:
    from hf_accel.comparison.plan import Plan

DESCRIPTION = """\
Which technique pays on this machine: variants of a recipe, or several recipes, in one table.

  hf-accel compare --recipe resnet20_cifar10
  hf-accel compare --recipe vit_cifar10 --variants baseline fp16 ga pin all --repeats 5
  hf-accel compare --recipe 'zoo_*_cifar10' --repeats 1        one row per recipe: accuracy, size, speed, latency
  hf-accel compare --recipe resnet20_cifar10 --leave_out       the recipe without each of its techniques

Every run is a separate process, and the rows of the table take turns. Without --repeats, three rounds measure the noise;
then come as many as are needed to find a 10 % difference four times in five. To resume a comparison that was interrupted,
repeat the command. Settings for all runs are given as for train: --learning_rate 1e-3, --data.name ./photos."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("compare", DESCRIPTION)
    parser.add_argument(
        "--recipe", nargs="+", action="extend", required=True, help="shipped recipes or YAML files; globs in quotes"
    )
    parser.add_argument(
        "--variants", nargs="+", action="extend", help="default: all of one recipe; several recipes as they stand"
    )
    parser.add_argument("--baseline", help="the row that the others are divided by; default: baseline, else the first")
    parser.add_argument("--repeats", type=int, help="number of rounds; default: 3 to 12, depending on the noise")
    parser.add_argument(
        "--leave_out",
        nargs="*",
        metavar="TECHNIQUE",
        help="one recipe, and the same without each technique (all that it switches on, or those named)",
    )
    parser.add_argument("--paper", action="store_true", help="add the published figures next to those measured here")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/compare/RECIPE")
    parser.add_argument("--overwrite", action="store_true", help="measure everything again")
    parser.add_argument("--dry_run", action="store_true", help="print the plan and the expected time, write nothing")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.repeats is not None and args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: expected at least 1")

    from hf_accel.comparison.forecast import describe, forecast
    from hf_accel.comparison.plan import Plan
    from hf_accel.comparison.runs import claim_folder, remove_runs

    refuse_launcher()
    plan = Plan(args, flags)
    terminal.say_each(note for entry in plan.entries for note in entry.recipe.notes)
    claim_folder(plan.folder)
    plan.require_startable(args.overwrite)
    if args.dry_run:
        summary = forecast(plan)
        print_result(args, summary, describe(summary))
        return 0

    from hf_accel.comparison.export import text_table, write_comparison
    from hf_accel.comparison.page import write_comparison_page
    from hf_accel.comparison.table import build_comparison

    with sole_use(plan.folder), interrupt_says(lambda: how_to_continue(plan, args.overwrite)):
        if args.overwrite:
            remove_runs(plan.folder)
        comparison = build_comparison(plan.entries, measure(plan), plan.baseline)
        write_comparison(comparison, plan.folder, with_paper=args.paper)
        page = write_comparison_page(plan.folder)
    text = f"{text_table(comparison)}\n\n{page}"
    print_result(args, {"folder": str(plan.folder), **comparison.to_dict()}, text, str(page))
    return 0 if any(row.num_runs for row in comparison.rows) else 1


def refuse_launcher() -> None:
    """Refuse to be one of several processes: each would start all runs.

    Raises:
        UserError: a launcher has started several.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise UserError(
            f"compare starts each run in a process of its own, and a launcher has started {processes} of compare. Start it "
            "without one. Variants that train in several processes are runs of their own: `accelerate launch -m "
            "hf_accel.train --recipe NAME --variant VARIANT`."
        )


def how_to_continue(plan: Plan, overwrite: bool) -> str:
    """What an interrupted comparison says."""
    done, runs = plan.progress()
    again = "The same command without --overwrite" if overwrite else "The same command"
    return f"{done} of {runs} runs are finished and kept in {plan.folder}. {again} continues from there."


if __name__ == "__main__":
    run_and_exit(main)
