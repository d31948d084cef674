"""Which rows belong together: the values of `data.group_column`, such as patients, places or authors."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import Table, choose_column, read_column
from hf_accel.errors import UserError


def groups_of(table: Table, settings: DataSettings, role: str) -> np.ndarray | None:
    """Numbers that are equal for rows of one group, (N,) int64, in every table alike; None: no column is named.

    Raises:
        UserError: there is no such column, or a row has no value in it.
    """
    if settings.group_column is None:
        return None
    column = choose_column("group", settings.group_column, [], [], table, settings)
    cells = read_column(table, column).combine_chunks()
    if not (pa.types.is_integer(cells.type) or pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        raise UserError(
            f"data.group_column is {column}, which holds {cells.type} in data.name {settings.name}, expected text or whole "
            "numbers"
        )
    names = cells.cast(pa.string()).to_pylist()
    empty = next((row for row, name in enumerate(names) if name is None or not name.strip()), None)
    if empty is not None:
        raise UserError(
            f"row {empty} of {settings.name}, {role} split: {column} is empty, expected the group of each row. Fill it, or leave "
            "data.group_column out."
        )
    return np.array([_number(name) for name in names], dtype=np.int64)


def _number(name: str) -> int:
    """The same for a name in every split and process, so that groups are told apart without a common table."""
    return int.from_bytes(hashlib.sha256(name.strip().encode()).digest()[:8], "little", signed=True)
