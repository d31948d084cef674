"""Rows of shards that are read as they are needed: parquet files of a folder or of the Hub, and webdataset archives.

Nothing is downloaded, converted or decoded first. When the data is opened, the index of each shard and the column of the
labels are read, so that every row has a number, a label and a place. Images are read one part of a shard at a time (a row
group of a parquet file), and only the parts that a shuffle window still needs are kept: memory does not grow with the data.

`datasets` streams too, but what is in its shuffle buffer is lost when a run resumes, and whole shards are what it shares
between processes. Here a row has a number, so that the order of an epoch is a function of the seed (`inputs/stream.py`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self, TypeVar

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from hf_accel import terminal
from hf_accel.data.images import IMAGE_SUFFIXES
from hf_accel.data.rows import Rows
from hf_accel.errors import UserError
from hf_accel.files import write_whole

SHUFFLE_BUFFER = 2048  # rows; photographs of 110 KB take 225 MB

Item = TypeVar("Item")
Result = TypeVar("Result")
Cell = dict[str, Any]  # of an image column: {"bytes", "path"}

_TAR_PART = 64  # images; an archive is read image by image, so that parts may be small
_OF_PROCESS = ("parts_read", "_kept", "_lock", "_process")
_OPENERS = 16  # threads; a shard of the Hub is opened in a few small requests


class Shard(Protocol):
    """A file with rows, in parts that are read at once."""

    name: str
    features: datasets.Features

    @property
    def parts(self) -> Sequence[int]:
        """Rows of each part."""

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows, without the others."""

    def read(self, part: int, column: str) -> list[Cell]:
        """The image cells of a part, in the order of its rows."""


class ParquetShard:
    """A parquet file. Its parts are its row groups, the least that can be read of it.

    Args:
        name: path or address, as fsspec takes it.
        kept: folder in which its index is kept, for an address that many processes and runs read; None: nowhere.
    Raises:
        OSError, pa.ArrowException: it cannot be read.
    """

    def __init__(self, name: str, kept: Path | None = None) -> None:
        self.name = name
        self.kept = kept
        self.metadata = pq.read_metadata(io.BytesIO(self._fetched_once("footer", self._footer)))
        self.parts = [self.metadata.row_group(part).num_rows for part in range(self.metadata.num_row_groups)]
        self.features = datasets.Features.from_arrow_schema(self.metadata.schema.to_arrow_schema())

    def column(self, name: str) -> pa.ChunkedArray:
        file = f"column-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return pq.read_table(io.BytesIO(self._fetched_once(file, partial(self._column, name)))).column(0)

    def read(self, part: int, column: str) -> list[Cell]:
        stored = column if isinstance(self.features[column], datasets.Value) else f"{column}.bytes"
        with _exact_file(self.name) as file:
            table = pq.ParquetFile(file, metadata=self.metadata).read_row_group(part, [stored], use_threads=False)
        values = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table.column(0).to_pylist()]
        return [{"bytes": value, "path": None} for value in values]  # a row may not name a file of the reader

    def _footer(self) -> bytes:
        with _exact_file(self.name) as file:
            return _written(pq.read_metadata(file).write_metadata_file)

    def _column(self, name: str) -> bytes:
        with _exact_file(self.name) as file:
            table = pq.ParquetFile(file, metadata=self.metadata).read([name])
        return _written(partial(pq.write_table, table))

    def _fetched_once(self, what: str, fetch: Callable[[], bytes]) -> bytes:
        """A part of the index, from the folder where it is kept; the first process that needs it puts it there."""
        if self.kept is None:
            return fetch()
        self.kept.mkdir(parents=True, exist_ok=True)
        file = self.kept / what
        with FileLock(self.kept / "lock"):
            if not file.is_file():
                write_whole(file, fetch())
        return file.read_bytes()


def _written(write: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _exact_file(name: str) -> Any:
    """A file that reads what it is asked for; that of the Hub would read 5 MB more each time."""
    system, path = fsspec.url_to_fs(name)
    return system.open(path, "rb", cache_type="none")


class TarShard:
    """A webdataset archive on this machine: the files `KEY.jpg` and `KEY.cls` (or `KEY.json` with a "label") are a row.

    Args:
        name: its path; it must not be compressed as a whole, so that an image can be read alone.
    Raises:
        OSError, tarfile.TarError: it cannot be read.
        UserError: a row has no image or no label.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        rows: dict[str, dict[str, tarfile.TarInfo]] = {}
        labels: list[int | str] = []
        with tarfile.open(name, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isfile() and not path.name.startswith("."):
                    key, _, suffix = path.name.partition(".")
                    rows.setdefault(str(path.parent / key), {})[f".{suffix.lower()}"] = member
            for key, members in rows.items():
                labels.append(_label_of(archive, members, f"{name}: row {key}"))
        images = [_image_of(members, f"{name}: row {key}") for key, members in rows.items()]
        self.places = np.array([(member.offset_data, member.size) for member in images], np.int64).reshape(-1, 2)
        are_numbers = all(isinstance(label, int) for label in labels)
        self.labels = pa.array(labels if are_numbers else list(map(str, labels)))
        starts = range(0, len(images), _TAR_PART)
        self.parts = [min(_TAR_PART, len(images) - start) for start in starts]
        kind = datasets.Value("int64" if are_numbers else "string")
        self.features = datasets.Features({"image": datasets.Image(decode=False), "label": kind})

    def column(self, name: str) -> pa.ChunkedArray:
        assert name == "label", "an archive has one column besides its images"
        return pa.chunked_array([self.labels])

    def read(self, part: int, column: str) -> list[Cell]:
        cells = []
        with open(self.name, "rb") as file:
            for offset, size in self.places[part * _TAR_PART : (part + 1) * _TAR_PART].tolist():
                file.seek(offset)
                cells.append({"bytes": file.read(size), "path": None})
        return cells


def _image_of(members: dict[str, tarfile.TarInfo], where: str) -> tarfile.TarInfo:
    found = [member for suffix, member in members.items() if suffix in IMAGE_SUFFIXES]
    if len(found) != 1:
        raise UserError(f"{where}: has {len(found)} images ({', '.join(sorted(members))}), expected one.")
    return found[0]


def _label_of(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], where: str) -> int | str:
    for suffix in (".cls", ".json"):
        if suffix not in members:
            continue
        file = archive.extractfile(members[suffix])
        assert file is not None, "a regular file"
        content = file.read()
        try:
            value = content.decode().strip() if suffix == ".cls" else json.loads(content)["label"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where}: its {suffix[1:]} file holds no label. Expected one: {error}") from error
        return int(value) if str(value).isdecimal() else str(value)
    raise UserError(f"{where}: has no label ({', '.join(sorted(members))}), expected a .cls or .json file.")


def open_shards(names: Sequence[str], open_shard: Callable[[str], Shard]) -> tuple[Shard, ...]:
    """Open shards side by side, in the order of their names."""
    return tuple(_side_by_side(open_shard, names, "opening shards"))


def _side_by_side(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    results = []
    with terminal.bar(len(items), title, "shard") as bar, ThreadPoolExecutor(_OPENERS) as pool:
        for result in pool.map(work, items):
            results.append(result)
            bar.update()
    return results


@dataclass(frozen=True)
class StreamedTable:
    """A split in shards. It stands where a `datasets.Dataset` stands: its labels are read as from one, its images are not."""

    shards: tuple[Shard, ...]
    features: datasets.Features
    _columns: dict[str, datasets.Dataset] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return sum(sum(shard.parts) for shard in self.shards)

    def select_columns(self, names: list[str]) -> datasets.Dataset:
        """A table of one column that is not of images, read from all shards."""
        (name,) = names
        if name not in self._columns:
            schema = datasets.Features({name: self.features[name]}).arrow_schema
            kind = schema.field(0).type
            try:
                pieces = _side_by_side(lambda shard: shard.column(name), self.shards, f"reading {name}")
                column = pa.chunked_array([chunk for piece in pieces for chunk in piece.cast(kind).chunks], kind)
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{self.shards[0].name}: column {name} of its split cannot be read: {error}") from error
            self._columns[name] = datasets.Dataset(pa.table([column], schema=schema))
        return self._columns[name]

    def images(self, column: str, window: int) -> StreamedRows:
        """The rows of the image column; see `StreamedRows`."""
        return StreamedRows(self.shards, column, window)


class StreamedRows(Rows):
    """Images of shards, by the number of their row.

    Any row can be read, but reading is cheap only near the rows that were read last.

    Args:
        shards: the shards, in the order of their rows.
        column: the name under which an image is handed over, that of the column.
        window: rows; a part is kept until as many rows of later parts have been read.
        rows: (N,) numbers of the rows that are meant; None: all.

    Attributes:
        parts_read: how many parts this object has read, in this process.
    """

    is_streamed = True

    def __init__(self, shards: Sequence[Shard], column: str, window: int, rows: np.ndarray | None = None) -> None:
        super().__init__(column)
        self.shards = shards
        self.window = window
        self.places = [(shard, part) for shard, its in enumerate(shards) for part in range(len(its.parts))]
        self.ends = np.cumsum([count for shard in shards for count in shard.parts], dtype=np.int64)
        self.rows = np.arange(self.ends[-1] if len(self.ends) else 0) if rows is None else rows
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process: a worker begins with nothing."""
        self.parts_read = 0
        self._kept: dict[int, list[Cell]] = {}  # by the number of the part, in the order in which they were read
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OF_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: np.ndarray) -> Self:
        return type(self)(self.shards, self.column, self.window, self.rows[rows])

    def paths(self) -> list[str | None]:
        return [None] * len(self)

    def shard_numbers(self) -> np.ndarray:
        """(N,) int64: the number of the shard that holds each row."""
        ends = np.cumsum([sum(shard.parts) for shard in self.shards], dtype=np.int64)
        return np.searchsorted(ends, self.rows, side="right")

    def cell(self, row: int) -> Cell:
        number = int(self.rows[row])
        part = int(np.searchsorted(self.ends, number, side="right"))
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            return self._part(part)[number - int(self.ends[part])]  # counted from the part's end

    def _part(self, number: int) -> list[Cell]:
        if number not in self._kept:
            shard, part = self.places[number]
            self._kept[number] = self.shards[shard].read(part, self.column)
            self.parts_read += 1
            self._forget()
        return self._kept[number]

    def _forget(self) -> None:
        """Drop the parts whose rows have all had their turn, where rows move by less than the window.

        Parts are first needed in the order of their places, and the newest one from its first row on.
        """
        sizes = [len(cells) for cells in self._kept.values()]
        between = sum(sizes) - sizes[-1]
        for number, size in zip(list(self._kept)[:-1], sizes[:-1], strict=True):
            between -= size
            if between < self.window - 1:
                return
            del self._kept[number]
