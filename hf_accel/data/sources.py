"""`data.name` -> the tables it stands for: the built-in digits, a local folder, or a data set of the Hub, read or streamed.

An image folder is listed here instead of by `datasets`' own `imagefolder`: hidden folders never become classes,
messages can name the file, and nothing but paths is kept. Nothing is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import PIL.Image
import pyarrow as pa

from hf_accel.config.sections import DataSettings
from hf_accel.data.columns import Table
from hf_accel.data.folders import ImageTable, parquet_files, read_image_folder
from hf_accel.data.label_file import read_label_file
from hf_accel.data.listing import (
    Listing,
    files_fingerprint,
    is_image_file,
    is_local_name,
    is_unread_picture,
    list_files,
    neighbouring_folders,
    require_utf8,
)
from hf_accel.data.parquet import are_mixed_up, class_columns, has_mixed_up_names, read_parquet_tables
from hf_accel.data.plain_tables import TABLE_SUFFIXES
from hf_accel.data.split_names import SPLIT_WORDS, split_role
from hf_accel.data.streaming import ParquetShard, Shard, StreamedTable, TarShard, open_shards
from hf_accel.errors import UserError
from hf_accel.files import cache_folder

DIGITS = "digits"
SHARD_SUFFIXES = (".parquet", ".tar")


@dataclass(frozen=True)
class Source:
    """The splits a data set brings, by role: "train", "validation", "test"."""

    parts: dict[str, Table]
    fingerprints: dict[str, str]  # by role; the same in every process that opens the same data
    names: dict[str, str]  # by role: what the data set calls the split
    notes: list[str] = field(default_factory=list)  # what a person should know about how it was read
    content: dict[str, np.ndarray | None] = field(default_factory=dict)  # by role: (N,) uint64, equal for equal files
    folders: tuple[Path, ...] | None = None  # from which files that rows name may be read; None: the names are our own


def open_source(settings: DataSettings) -> Source:
    """Find and open what `data.name` stands for. A local folder comes before a data set of the Hub.

    Raises:
        UserError: there is no such thing, it holds no images, its structure is ambiguous, or it cannot be read.
    """
    path = Path(settings.name).expanduser()
    if settings.labels is not None:
        return source_of_files(*read_label_file(settings), settings)
    if settings.name == DIGITS:
        _refuse_clash(path)
        if settings.streaming:
            raise UserError(f"data.name {DIGITS}: is in memory already. Set data.streaming to false.")
        return _open_digits()
    if path.is_dir():
        return _stream_folder(settings, path) if settings.streaming else _open_folder(settings, path)
    if path.exists():
        is_table = path.suffix.lower() in TABLE_SUFFIXES
        hint = f". Is it a table of labels? Name the folder of the images, and --data.labels {path}" if is_table else ""
        raise UserError(
            f"data.name {settings.name}: is a file, expected a folder of parquet files or of class folders{hint}"
        )
    if is_local_name(settings.name):
        raise UserError(f"data.name {settings.name}: no such folder. {neighbouring_folders(path)}")
    return _stream_hub(settings) if settings.streaming else open_hub(settings)


def _refuse_clash(folder: Path) -> None:
    """The built-in data set has the name of a folder here. A run's own folder, which has a recipe, is not data."""
    if folder.is_dir() and not (folder / "recipe.yaml").exists():
        raise UserError(
            f"data.name {DIGITS}: is the built-in data set, and there is a folder {folder.resolve()}. Write ./{DIGITS} for "
            "the folder; for the built-in one rename the folder, or start from another one."
        )


def _open_digits() -> Source:
    from sklearn.datasets import load_digits  # takes a second, and only this data set needs it

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), grey levels 0..16 -> 0..255
    # Encoded, although they could be kept as pixels: the built-in data set then takes the path of every other one.
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=[str(n) for n in range(10)])}
    )
    rows = {"image": [{"bytes": _png(image), "path": None} for image in pixels], "label": digits.target.tolist()}
    fingerprint = hashlib.sha256(pixels.tobytes() + digits.target.tobytes()).hexdigest()
    return Source(
        {"train": datasets.Dataset.from_dict(rows, features=features)}, {"train": fingerprint}, {"train": DIGITS}
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _open_folder(settings: DataSettings, folder: Path) -> Source:
    where = f"data.name {settings.name}"
    listing = list_files(folder)
    tables = parquet_files(listing)
    pictures = [name for name in listing.files if is_image_file(name) or is_unread_picture(name)]
    if tables:
        return open_parquet_folder(settings, folder, listing, tables, len(pictures))
    if pictures:
        parts, notes = read_image_folder(settings, where, folder, listing)
        return source_of_files(parts, listing.notes() + notes, settings)
    files = listing.files
    content = f"none of its {len(files)} files is parquet or an image" if files else "the folder is empty"
    raise UserError(f"{where}: {content}. Expected parquet files, or a folder of images for each class.")


def source_of_files(parts: dict[str, ImageTable], notes: list[str], settings: DataSettings) -> Source:
    """Image files with their labels, by role, as a source."""
    return Source(
        parts={role: _table_of(part, settings.group_column) for role, part in parts.items()},
        fingerprints={role: part.fingerprint for role, part in parts.items()},
        names={role: part.name for role, part in parts.items()},
        notes=notes,
        content={role: part.content for role, part in parts.items()},
    )


def _table_of(part: ImageTable, group_column: str | None) -> datasets.Dataset:
    text, image, label = datasets.Value("string"), part.image_column, datasets.Value("string")
    groups = {} if part.groups is None else {group_column: part.groups}
    has_lists = any(isinstance(labels, list) for labels in part.labels)
    if has_lists:
        label = datasets.List(datasets.ClassLabel(names=list(part.label_names)) if part.label_names else text)
    features = datasets.Features({image: text, part.column: label, **dict.fromkeys(groups, text)})
    types = {"features": features} if has_lists or not part.labels else {}
    table = datasets.Dataset.from_dict({image: part.paths, part.column: part.labels, **groups}, **types)
    return table.cast_column(image, datasets.Image(decode=False))


def open_parquet_folder(
    settings: DataSettings, folder: Path, listing: Listing, names: list[str], num_pictures: int = 0
) -> Source:
    """A folder with these parquet files; raises UserError where they cannot be read."""
    where = f"data.name {settings.name}"
    require_utf8(where, names)
    with said_clearly(where):
        tables, notes = read_parquet_tables(folder.resolve(), names, settings)
    fingerprints = table_fingerprints(settings, content_of(folder, names), tables)
    notes = listing.notes() + notes
    if num_pictures:
        notes.append(f"the folder holds parquet files: its {num_pictures:,} picture files are not read as rows")
    return source_of_tables(where, tables, fingerprints, notes, (folder,))


def content_of(folder: Path, names: list[str]) -> str:
    """A fingerprint of the content of files; the library's own follows their path and date."""
    return files_fingerprint(names, [str(folder / name) for name in names])[0]


def table_fingerprints(settings: DataSettings, content: str, tables: Mapping[str, Table]) -> dict[str, str]:
    """By split.

    Args:
        content: a fingerprint of the files.
    """
    return {
        split: hashlib.sha256(f"{content} {settings.config} {split} {len(table)}".encode()).hexdigest()
        for split, table in tables.items()
    }


def open_hub(settings: DataSettings) -> Source:
    """A data set of the Hub; raises UserError where it cannot be fetched or read."""
    name = settings.name
    with _hub_said_clearly(settings):
        tables = datasets.load_dataset(name, settings.config, revision=settings.revision)
    downloads = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    folders = (downloads, Path(datasets.config.DOWNLOADED_DATASETS_PATH))
    mixed_up = _mixed_up_snapshot(settings, tables, downloads)
    if mixed_up is None:
        return source_of_tables(f"data.name {name}", tables, folders=folders)
    folder, listing, names = mixed_up
    return replace(open_parquet_folder(settings, folder, listing, names), folders=folders)


@contextmanager
def _hub_said_clearly(settings: DataSettings) -> Iterator[None]:
    """Errors of asking the Hub for a data set, as one message with what to do."""
    name, where = settings.name, f"data.name {settings.name}"
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise UserError(f"{where}: is neither a local folder nor a name the Hub can have. {error}") from error
    local = "For a data set on this machine give its folder: --data.name ./FOLDER (parquet files or class folders)."
    try:
        with said_clearly(where):
            yield
    except ConnectionError as error:
        url = f"{huggingface_hub.constants.ENDPOINT}/datasets/{name}"
        raise UserError(
            f"{where}: there is no such local folder, {url} cannot be reached, and nothing of it is in "
            f"{datasets.config.HF_DATASETS_CACHE}. Its parquet files would be downloaded from there. {local}"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{where}: there is no such local folder, and the Hub says: {error} {local}") from error


def _stream_folder(settings: DataSettings, folder: Path) -> Source:
    where, listing = f"data.name {settings.name}", list_files(folder)
    names = [name for name in listing.files if Path(name).suffix in SHARD_SUFFIXES]
    if not names:
        raise UserError(
            f"{where}: data.streaming reads parquet files and webdataset archives ({', '.join(SHARD_SUFFIXES)}), and none of its "
            f"{len(listing.files)} files is one. Leave data.streaming out; data.cache: none or disk keep no image in memory."
        )
    require_utf8(where, names)
    with said_clearly(where):
        builder = datasets.load_dataset_builder(str(folder.resolve()), settings.config)
    files = _files_of_splits(builder)
    content = content_of(folder, names)
    left = len(names) - sum(map(len, files.values()))
    notes = [*listing.notes(), *([f"{left} shards do not belong to the splits found: not read"] if left > 0 else [])]
    return _source_of_shards(settings, files, builder.info.features, content, notes)


def _stream_hub(settings: DataSettings) -> Source:
    with _hub_said_clearly(settings):
        builder = datasets.load_dataset_builder(settings.name, settings.config, revision=settings.revision)
    files = _files_of_splits(builder)
    if any(not path.endswith(".parquet") for paths in files.values() for path in paths) or not files:
        raise UserError(
            f"data.name {settings.name}: data.streaming reads parquet files from the Hub, and this data set has others. Set "
            "data.revision: refs/convert/parquet, if the Hub has converted all of it; or download it (hf download --repo-type "
            f"dataset {settings.name} --local-dir FOLDER) and name the folder, from which webdataset archives are read, too."
        )
    # the addresses hold the commit
    content = hashlib.sha256("\n".join(path for paths in files.values() for path in paths).encode()).hexdigest()
    return _source_of_shards(settings, files, builder.info.features, content, [])


def _files_of_splits(builder: datasets.DatasetBuilder) -> dict[str, list[str]]:
    return {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}


def _source_of_shards(
    settings: DataSettings,
    files: dict[str, list[str]],
    card: datasets.Features | None,
    content: str,
    notes: list[str],
) -> Source:
    """Open the shards of each split.

    Args:
        files: split -> paths or addresses.
        card: the features that the data set's card states.
        content: a fingerprint of the files.
    """
    where = f"data.name {settings.name}"
    with said_clearly(where):
        shards = {split: open_shards(paths, partial(_open_shard, settings)) for split, paths in files.items()}
    every = [shard for its in shards.values() for shard in its]
    _refuse_unequal_shards(where, every, card or {})
    features = datasets.Features(every[0].features | {k: v for k, v in (card or {}).items() if k in every[0].features})
    tables = {split: StreamedTable(its, features) for split, its in shards.items()}
    fingerprints = table_fingerprints(settings, content, tables)
    counts = ", ".join(f"{len(its):,} ({split})" for split, its in shards.items())
    return source_of_tables(where, tables, fingerprints, [*notes, f"images are streamed; number of shards: {counts}"])


def _open_shard(settings: DataSettings, name: str) -> Shard:
    if name.endswith(".tar"):
        return TarShard(name)
    if not name.startswith("hf://"):
        return ParquetShard(name)
    # the address holds the commit, so what is kept is never out of date
    return ParquetShard(
        name, cache_folder(settings.cache_dir) / "shards" / hashlib.sha256(name.encode()).hexdigest()[:24]
    )


def _refuse_unequal_shards(where: str, shards: list[Shard], card: dict[str, object]) -> None:
    first = shards[0]
    for shard in shards:
        if set(shard.features) != set(first.features):
            raise UserError(
                f"{where}: {shard.name} has the columns {', '.join(shard.features)}, and {first.name} has "
                f"{', '.join(first.features)}. Expected the same in all shards."
            )
    if are_mixed_up({shard.name: class_columns(shard.features) for shard in shards}, class_columns(card)):
        raise UserError(
            f"{where}: its shards list the classes in different orders, and data.streaming reads numbers, expected one order. "
            "Leave data.streaming out: the classes are then matched by name."
        )


def _mixed_up_snapshot(
    settings: DataSettings, tables: dict[str, datasets.Dataset], downloads: Path
) -> tuple[Path, Listing, list[str]] | None:
    """The downloaded files of a data set whose class names `datasets` has mixed up, and its parquet files; None: it has not.

    None too where the files are no longer there, because only the tables made of them were kept. The folders of both are
    named after the commit.
    """
    commit = next((Path(file["filename"]).parent.name for table in tables.values() for file in table.cache_files), "")
    folder = downloads / "snapshots" / commit
    if not commit or not folder.is_dir():
        return None
    listing = list_files(folder)
    names = [name for name in listing.files if name.endswith(".parquet")]
    with said_clearly(f"data.name {settings.name}"):
        return (folder, listing, names) if names and has_mixed_up_names(folder, names, settings) else None


@contextmanager
def said_clearly(where: str) -> Iterator[None]:
    """Errors of opening tables, as one message with the cause."""
    try:
        yield
    except (UserError, ConnectionError, datasets.exceptions.DatasetNotFoundError):
        raise
    except (OSError, ValueError, RuntimeError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            cache = datasets.config.HF_DATASETS_CACHE
            raise UserError(
                f"{where}: no space left for the tables in {cache}. Name a larger disk with HF_DATASETS_CACHE."
            ) from error
        raise UserError(f"{where}: cannot be opened: {cause}") from error


def source_of_tables(
    where: str,
    tables: Mapping[str, Table],
    fingerprints: dict[str, str] | None = None,
    notes: list[str] | None = None,
    folders: tuple[Path, ...] | None = None,
) -> Source:
    """Tables by name, as a source: give each split its role; a split that has none is not read, and a note says so."""
    source = Source({}, {}, {}, notes or [], folders=folders)
    stated = fingerprints or {
        name: table._fingerprint for name, table in tables.items() if isinstance(table, datasets.Dataset)
    }
    rank = {word: place for words in SPLIT_WORDS.values() for place, word in enumerate(words)}
    for name in sorted(tables, key=lambda name: rank.get(name.casefold(), len(rank))):  # stable
        role = "train" if len(tables) == 1 and split_role(name) is None else split_role(name)
        if role is None or role in source.parts:
            why = f"the {role} split is {source.names[role]}" if role else "it is neither train, validation nor test"
            source.notes.append(f"split {name} is not read: {why}")
            continue
        source.parts[role] = tables[name]
        source.names[role] = name
        source.fingerprints[role] = stated[name]
    if not source.parts:
        raise UserError(
            f"{where}: its splits are {', '.join(tables)}. Expected splits named train, validation or test."
        )
    return source
