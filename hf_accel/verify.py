"""`hf-accel verify`: whether a run, a checkpoint or a model is as it was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hf_accel.cli import command_parser, print_result, run_and_exit
from hf_accel.formatting import format_count

DESCRIPTION = """\
Compare every file of a run, a checkpoint or a model with the size and the SHA-256 that it had when it was written.

  hf-accel verify outputs/digits/default
  hf-accel verify outputs/digits/default/checkpoint-126
  hf-accel verify outputs/digits/default/model

Exit code: 0 all is as it was written, 1 something is not (the file is named), 2 the folder is none of these."""


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("verify", DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a run, a checkpoint or a saved model")
    args = parser.parse_args(argv)
    from hf_accel.runs.verification import verify

    found = verify(args.folder)
    lines = [f"{part.path}: {part.what}, {describe(part.files, part.damage, part.note)}" for part in found]
    damaged = [part for part in found if part.damage is not None]
    document = {
        "folder": str(args.folder),
        "whole": not damaged,
        "parts": [
            {**dataclasses.asdict(part), "path": str(part.path), "damage": part.damage and str(part.damage)}
            for part in found
        ],
    }
    last_line = None if damaged else f"{args.folder}: whole"
    print_result(args, document, "\n".join(lines), last_line)
    return 1 if damaged else 0


def describe(files: int, damage: object, note: str | None) -> str:
    """The verdict on a part: `files` were compared."""
    if damage is not None:
        return f"damaged: {damage}"
    verdict = f"whole ({format_count(files)} {'file' if files == 1 else 'files'})" if files else "no damage seen"
    return f"{verdict}; {note}" if note else verdict


if __name__ == "__main__":
    run_and_exit(main)
