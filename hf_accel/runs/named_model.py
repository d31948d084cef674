"""The model that a name on the command line means."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.folder import RunFolder

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def model_place(name: str) -> str:
    """What `from_pretrained` takes for a run's folder, a model's folder or an id on the Hub; an exported file stays as it is.

    Raises:
        UserError: the name is that of another file, of an unfinished run or of a damaged model, or was meant as that of a folder
            and there is none.
    """
    from hf_accel.data.listing import is_local_name, neighbouring_folders  # here: --help needs no Pillow

    if not name.strip():
        raise UserError(f"{name!r} names no model, expected the folder of a run or of a model, or an id on the Hub")
    path = Path(name).expanduser()
    run = RunFolder(path)
    if run.model.is_dir():
        manifest.refuse_damaged(run.model)
        return str(run.model)
    if path.is_dir():
        run.refuse_unfinished()
        manifest.refuse_damaged(path)
        return str(path)
    if path.suffix == ".onnx" and path.is_file():
        return str(path)
    if path.exists():
        raise UserError(
            f"{name}: is a file, expected the folder of a run or of a model, an exported .onnx file, or an id on the Hub"
        )
    is_near = path.parent.is_dir() and get_close_matches(path.name, [inner.name for inner in path.parent.iterdir()])
    if is_local_name(name) and (
        is_near or not HUB_ID.fullmatch(name)
    ):  # a folder may be called as an owner on the Hub is
        raise UserError(f"{name}: no such folder. {neighbouring_folders(path)}")
    if not HUB_ID.fullmatch(name):
        hint = neighbouring_folders(path)
        raise UserError(f"{name}: no such folder, and an id on the Hub looks like owner/name. {hint}")
    return name
