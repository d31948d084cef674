"""The image column of a table: which files its rows may name, and which of its images are the same.

A row may hold a path in place of bytes. Whoever wrote a table must not decide which of the reader's files are read and
shown in reports, so such a path counts only below the folder of the data.
"""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_accel.data.listing import HASHED_BYTES, content_number, files_fingerprint
from hf_accel.errors import UserError

_CHUNK = 1024  # rows


def with_own_files(
    table: datasets.Dataset, column: str, folders: tuple[Path, ...], where: str
) -> tuple[datasets.Dataset, str]:
    """Check and resolve the files that rows name.

    Args:
        table: the rows; its `column` is `Image(decode=False)`.
        folders: the folders that may hold such files; a relative path is relative to the first.
        where: the split, for messages.
    Returns:
        The table with absolute paths where rows have no bytes, and a fingerprint of those files ("" for none).
    Raises:
        UserError: a row names a file elsewhere.
    """
    cells = table.with_format("arrow")[:][column]
    has_path = pc.and_(pc.is_null(pc.struct_field(cells, "bytes")), pc.is_valid(pc.struct_field(cells, "path")))
    rows = np.flatnonzero(has_path.fill_null(False).to_numpy())
    if not len(rows):
        return table, ""
    roots = [os.path.realpath(folder) for folder in folders]
    paths = pc.struct_field(cells, "path").to_pylist()
    named = []
    for row in rows.tolist():
        path = os.path.realpath(os.path.join(roots[0], paths[row])) if roots else ""
        if not any(path.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
            place = f"below {folders[0]}" if folders else "in the table itself"
            raise UserError(
                f"row {row} of {where}: has no bytes and names the file {paths[row]}, expected a file {place}. Files "
                "elsewhere are not read: write the images into the table, or move them there."
            )
        named.append(paths[row])
        paths[row] = path
    fingerprint, _ = files_fingerprint(named, [paths[row] for row in rows.tolist()])
    pieces, start = [], 0
    for chunk in cells.chunks:  # the bytes of other rows are not copied
        own = pa.array(paths[start : start + len(chunk)], pa.string())
        pieces.append(pa.StructArray.from_arrays([chunk.field("bytes"), own], ["bytes", "path"], mask=chunk.is_null()))
        start += len(chunk)
    storage = pa.chunked_array(pieces)
    features = datasets.Features({column: datasets.Image(decode=False)})
    return datasets.Dataset(pa.table({column: storage}, schema=features.arrow_schema)), fingerprint


def content_numbers(table: datasets.Dataset, column: str) -> np.ndarray | None:
    """(N,) uint64, equal for images of equal bytes, 0 where a row has none; None: the table is too large to be read."""
    if table.data.nbytes > HASHED_BYTES:
        return None
    arrow = table.with_format("arrow")
    numbers: list[int] = []
    for start in range(0, len(table), _CHUNK):
        for chunk in arrow[start : start + _CHUNK][column].chunks:
            numbers += _numbers(chunk.field("bytes"))
    return np.array(numbers, dtype=np.uint64)


def _numbers(cells: pa.BinaryArray) -> list[int]:
    """Content numbers of encoded images, read in place: three times faster than one scalar per image."""
    kind = np.int64 if pa.types.is_large_binary(cells.type) else np.int32
    _, offsets, data = cells.buffers()
    if data is None:
        return [0] * len(cells)
    ends = np.frombuffer(offsets, kind)[cells.offset : cells.offset + len(cells) + 1].tolist()
    view = memoryview(data)
    return [content_number(hashlib.sha256(view[a:b]).digest()) if a < b else 0 for a, b in pairwise(ends)]
