"""The JSON document of a finished command, read back by whatever makes a page or a table of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_accel.errors import UserError


def load_document(path: str | Path, name: str, schema: int, of_what: str, again: str) -> dict[str, Any]:
    """Read a document of this version.

    Args:
        path: the document, or its folder.
        name: of the document in its folder.
        schema: the version that is understood.
        of_what: what leaves the document, for the message.
        again: what makes it again, for the message.
    Raises:
        UserError: there is no such file, it is damaged, or another version wrote it.
    """
    path = Path(path)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: there is no such file, expected the {name} of a finished {of_what}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}), expected JSON. {again}.") from error
    found = values.get("schema") if isinstance(values, dict) else None
    if found != schema:
        raise UserError(f"{path}: schema is {found!r}, expected {schema}. {again}.")
    return values
