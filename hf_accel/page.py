"""`hf-accel page`: write what shows a finished run again, after it failed or to bring it up to date."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hf_accel.cli import command_parser, interrupt_says, print_result, run_and_exit
from hf_accel.errors import UserError

if TYPE_CHECKING:
    from hf_accel.data.splits import Splits
    from hf_accel.report.finished_run import FinishedRun

logger = logging.getLogger("hf_accel.page")  # under `python -m`, __name__ is __main__, which nobody listens to

DESCRIPTION = """\
Write the page, the plots, the model card and the notebook of a finished run again, from its report and its recipe.

  hf-accel page outputs/digits/default
  hf-accel page outputs/digits/default --explain     with heat maps over the mistakes; needs hf_accel[trust]

Its figures and its model stay as they are. Images and texts are read from the data of the run; where it is not
available, or has changed, the page has none."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("page", DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a finished run")
    parser.add_argument(
        "--explain", action="store_true", help="show which places speak for the wrong class of each mistake"
    )
    args = parser.parse_args(argv)
    from hf_accel.models.heat_maps import refuse_missing_captum
    from hf_accel.report.finished_run import FinishedRun
    from hf_accel.runs.folder import IN_USE
    from hf_accel.runs.lock import sole_use
    from hf_accel.runs.log import quiet_libraries, start_console
    from hf_accel.tasks.texts import refuse_to_explain_task

    if args.explain:
        refuse_missing_captum("--explain")
    run = FinishedRun.read(args.folder)
    if args.explain:
        refuse_to_explain_task(run.recipe.model.task, str(args.folder))
    quiet_libraries()
    start_console(is_main=True)
    unfinished = "its report and its model are as they were. The same command writes the rest again."
    with interrupt_says(unfinished), sole_use(args.folder, IN_USE), run.folder.additions():
        failed = write_again(run, args.explain)
    written = run.folder.page if run.folder.page.is_file() else run.folder.path
    print_result(args, {"page": str(written), "failed": failed}, str(written))
    return 1 if failed else 0


def write_again(run: FinishedRun, explain: bool = False) -> list[str]:
    """Write everything that is made from a finished run; returns the names of the parts that failed.

    Args:
        explain: draw heat maps over the mistakes.
    """
    from hf_accel.tasks import TASKS
    from hf_accel.training.finish import write_extras

    predictions, splits, task = None, splits_of(run), TASKS[run.recipe.model.task]
    try:
        predictions = task.predictions.load(run.folder.predictions, run.report.data.labels)
        predictions = predictions if splits is None else predictions.of(splits.test)
    except (OSError, ValueError) as error:
        logger.warning("no gallery of mistakes: %s", error)
    if splits is None:
        return write_extras(run, predictions, splits=None, model=None, processor=None)
    loaded = task.load_trained(run.folder.model)
    return write_extras(run, predictions, splits, loaded.model, loaded.processor, explain)


def splits_of(run: FinishedRun) -> Splits | None:
    """The rows of the run; None, with a warning, where they are not available or have changed."""
    from hf_accel.tasks import TASKS

    task = TASKS[run.recipe.model.task]
    try:
        splits = task.open_splits(run.recipe.data, seed=int(run.recipe.training.get("seed", 42)))
    except UserError as error:
        logger.warning("no rows of the data: %s", error)
        return None
    if splits.fingerprint != run.report.data.fingerprint:
        logger.warning("no rows of the data: %s has changed since the run", run.recipe.data.name)
        return None
    return splits


if __name__ == "__main__":
    run_and_exit(main)
