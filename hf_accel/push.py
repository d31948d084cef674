"""`hf-accel push`: upload a finished run, for the first time or after a push that failed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from hf_accel import terminal
from hf_accel.cli import command_parser, interrupt_says, print_result, run_and_exit
from hf_accel.errors import UserError

DESCRIPTION = """\
Push a finished run to the Hub.

  hf-accel push outputs/digits/default
  hf-accel push outputs/digits/default --hub_model_id someone/digits --private

Uploaded are weights, configuration, processor, model card, notebook, report.json, recipe.yaml and plots: nothing else, no
pickles, and no path or token of this machine. Log in with `hf auth login` or set HF_TOKEN."""

UNDECIDED = (
    "the run is as it was. A push is one commit, so all of it is on the Hub or nothing; the same command pushes it."
)


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("push", DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a finished run")
    parser.add_argument("--hub_model_id", help="name or owner/name; default: the name of the run's default folder")
    # None, not False: without the flag the account's default decides.
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="branch; made when it does not exist")
    args = parser.parse_args(argv)
    from hf_accel.hub.push import push_run
    from hf_accel.report.finished_run import FinishedRun
    from hf_accel.runs.folder import IN_USE
    from hf_accel.runs.lock import sole_use

    logging.basicConfig(format="%(message)s")  # other libraries: warnings only
    logging.getLogger("hf_accel").setLevel(logging.WARNING if terminal.is_quiet() else logging.INFO)
    run = FinishedRun.read(args.folder)
    run.folder.refuse_damaged()
    if run.recipe.data.channels not in (None, 3):
        raise UserError(
            f"{args.folder}: its model takes images of {run.recipe.data.channels} channels (data.channels), and the notebook and "
            "the demo that are published with a model give it colour images. Upload the folder model/ with `hf upload`."
        )
    with sole_use(args.folder, IN_USE), interrupt_says(UNDECIDED):
        result = push_run(run, hub_model_id=args.hub_model_id, private=args.private, revision=args.revision)
    print_result(args, dataclasses.asdict(result), str(result), result.url)
    return 0 if result.error is None else 1


if __name__ == "__main__":
    run_and_exit(main)
