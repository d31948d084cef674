"""`hf-accel compare`: run variants or recipes in turn, often enough to know, and write one table.

Arms are interleaved: every round runs each arm once, in an order drawn anew, so that a machine that warms up or a
neighbour that comes and goes meets all arms alike.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from hf_accel.cli import command_parser, parse_with_overrides, run_and_exit
from hf_accel.errors import UserError

DESCRIPTION = """\
Which technique pays on this machine: variants of a recipe, or several recipes, in one table.

  hf-accel compare --recipe resnet20_cifar10
  hf-accel compare --recipe vit_cifar10 --variants baseline fp16 ga pin all --repeats 5
  hf-accel compare --recipe resnet20_cifar10 resnet50_cifar10_scratch --num_train_epochs 1

Every run is a process of its own, and arms take turns. Without --repeats, three rounds measure the noise and then as
many follow as find a 10 % difference four times in five. The same command continues a comparison that was cut off.
Settings for all arms are given as for train: --learning_rate 1e-3, --data.name ./photos."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("compare", DESCRIPTION)
    parser.add_argument("--recipe", nargs="+", required=True, help="shipped recipes or YAML files")
    parser.add_argument("--variants", nargs="+", help="default: all of one recipe; several recipes as they stand")
    parser.add_argument("--baseline", help="the arm the others are divided by; default: baseline, else the first")
    parser.add_argument("--repeats", type=int, help="rounds; default: 3 to 12, by the noise that is seen")
    parser.add_argument("--paper", action="store_true", help="add the published figures beside those measured here")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/compare/RECIPE")
    parser.add_argument("--overwrite", action="store_true", help="measure everything again")
    parser.add_argument("--dry_run", action="store_true", help="print the plan and the expected time, write nothing")
    args, flags = parse_with_overrides(parser, argv)
    if args.repeats is not None and args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: expected at least 1")

    from hf_accel.comparison_plan import Plan

    plan = Plan(args, flags)
    if args.dry_run:
        print(plan.describe())
        return 0

    from hf_accel.comparison_build import build_comparison
    from hf_accel.comparison_export import write_comparison
    from hf_accel.comparison_page import write_comparison_page
    from hf_accel.comparison_text import text_table

    with sole_use(plan.folder):
        if args.overwrite:
            shutil.rmtree(plan.folder / "runs", ignore_errors=True)
        comparison = build_comparison(plan.arms, measure(plan), plan.baseline)
        write_comparison(comparison, plan.folder, with_paper=args.paper)
        page = write_comparison_page(plan.folder)
    print(f"{text_table(comparison)}\n\n{page}")
    return 0 if any(arm.num_runs for arm in comparison.arms) else 1


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep a second comparison out of the folder: two would overwrite each other's runs, and slow each other down.

    Raises:
        UserError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder}: another comparison is running there. Wait for it, or choose another --output_dir."
        ) from None
    try:
        yield
    finally:
        lock.release()


def measure(plan: Any) -> dict[str, list[Any]]:
    """Do every run that is not there yet, round by round, until the rounds suffice.

    Args:
        plan: a `comparison_plan.Plan`.
    Returns:
        Arm name -> its runs, an `ArmRun` each, failed ones included.
    """
    from hf_accel.arm_runs import do_run, finished_run
    from hf_accel.statistics import PILOT_ROUNDS

    signal.signal(signal.SIGTERM, _interrupt)  # so that the run in progress is ended, too
    runs: dict[str, list[Any]] = {arm.name: [] for arm in plan.arms}
    number, rounds = 0, plan.repeats or PILOT_ROUNDS
    is_terminal = sys.stderr.isatty()  # a log file wants a line a run, not one a second
    with tqdm(total=rounds * len(plan.round(0)), desc="compare", unit="run", file=sys.stderr) as bar:
        while number < rounds:
            for planned in plan.round(number):
                own = runs[planned.arm.name]
                bar.set_postfix_str(f"{planned.arm.name}, round {number + 1} of {rounds}")
                if not own or any(run.error is None for run in own):  # an arm that always failed is not tried again
                    own.append(
                        finished_run(planned, plan.data_fingerprint)
                        or do_run(planned, bar.refresh if is_terminal else bool)
                    )
                    if own[-1].error:
                        bar.write(f"{planned.arm.name} failed: {own[-1].error}", file=sys.stderr)
                bar.update()
            number += 1
            if plan.repeats is None and number == PILOT_ROUNDS:
                rounds = rounds_for_noise(plan, runs)
                bar.total = rounds * len(plan.round(0))
    return runs


def rounds_for_noise(plan: Any, runs: dict[str, list[Any]]) -> int:
    """How many rounds the noise of the first ones asks for."""
    from hf_accel.comparison_build import build_comparison
    from hf_accel.statistics import PILOT_ROUNDS, rounds_needed

    seen = build_comparison(plan.arms, runs, plan.baseline)
    if seen.noise is None:
        return PILOT_ROUNDS
    return rounds_needed(round(seen.noise, 3), sum(arm.speed is not None for arm in seen.arms))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_and_exit(main)
