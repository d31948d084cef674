"""Where an output folder can be made, before anything is tried."""

from __future__ import annotations

import os
from pathlib import Path

from hf_accel.errors import UserError
from hf_accel.files import LONGEST_NAME_BYTES

LONGEST_PATH_BYTES = 4096


LONGEST_BELOW_BYTES = 200  # of what lies in a run's folder, as checkpoint-1000000/model-00001-of-00002.safetensors


def writable_place(folder: Path) -> Path:
    """The folder that exists in which an output folder is or can be made.

    Raises:
        UserError: it cannot be made there; nothing was tried.
    """
    where, whole = f"--output_dir {folder}", folder.absolute()
    if "\0" in str(folder):
        raise UserError(f"{where}: holds a null character, which no path may. Choose another --output_dir.")
    if any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in whole.parts) or (
        len(os.fsencode(whole)) > LONGEST_PATH_BYTES - LONGEST_BELOW_BYTES
    ):
        raise UserError(
            f"{where}: is too long, expected at most {LONGEST_NAME_BYTES} bytes in each name and "
            f"{LONGEST_PATH_BYTES - LONGEST_BELOW_BYTES} in all. Choose another --output_dir."
        )
    for path in (whole, *whole.parents):
        if os.path.islink(path) and not os.path.exists(path):
            raise UserError(
                f"{where}: {path} is a link to {os.readlink(path)}, which does not exist. Make that folder, or choose "
                "another --output_dir."
            )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"{where}: is a file, expected a folder")
    place = next(path for path in (whole, *whole.parents) if os.path.exists(path))
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{where}: {place} is not a folder that can be written. Choose another --output_dir.")
    return place
