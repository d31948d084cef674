"""`data.name` -> the tables it stands for: the built-in digits, a local folder, or a data set of the Hub.

An image folder is listed here instead of by `datasets`' own `imagefolder`: hidden folders never become classes,
messages can name the file, and nothing but paths is kept. Nothing is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import PIL.Image
import pyarrow as pa

from hf_accel.config.sections import DataSettings
from hf_accel.data.folders import read_image_folder
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
from hf_accel.data.parquet import has_mixed_up_names, read_parquet_tables
from hf_accel.data.split_names import SPLIT_WORDS, split_role
from hf_accel.errors import UserError

DIGITS = "digits"


@dataclass(frozen=True)
class Source:
    """The splits a data set brings, by role: "train", "validation", "test"."""

    parts: dict[str, datasets.Dataset]
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
    if settings.name == DIGITS:
        _refuse_clash(path)
        return _open_digits()
    if path.is_dir():
        return _open_folder(settings, path)
    if path.exists():
        raise UserError(f"data.name {settings.name}: is a file, expected a folder of parquet files or of class folders")
    if is_local_name(settings.name):
        raise UserError(f"data.name {settings.name}: no such folder. {neighbouring_folders(path)}")
    return open_hub(settings)


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
    tables = [name for name in listing.files if name.endswith(".parquet") and Path(name).name != "metadata.parquet"]
    pictures = [name for name in listing.files if is_image_file(name) or is_unread_picture(name)]
    if tables:
        return open_parquet_folder(settings, folder, listing, tables, len(pictures))
    if pictures:
        parts, notes = read_image_folder(settings, where, folder, listing)
        return Source(
            parts={role: part.table for role, part in parts.items()},
            fingerprints={role: part.fingerprint for role, part in parts.items()},
            names={role: part.name for role, part in parts.items()},
            notes=listing.notes() + notes,
            content={role: part.content for role, part in parts.items()},
        )
    files = listing.files
    content = f"none of its {len(files)} files is parquet or an image" if files else "the folder is empty"
    raise UserError(f"{where}: {content}. Expected parquet files, or a folder of images for each class.")


def open_parquet_folder(
    settings: DataSettings, folder: Path, listing: Listing, names: list[str], num_pictures: int = 0
) -> Source:
    """A folder with these parquet files; raises UserError where they cannot be read."""
    where = f"data.name {settings.name}"
    require_utf8(where, names)
    with said_clearly(where):
        tables, notes = read_parquet_tables(folder.resolve(), names, settings)
    fingerprints = table_fingerprints(settings, folder, names, tables)
    notes = listing.notes() + notes
    if num_pictures:
        notes.append(f"the folder holds parquet files: its {num_pictures:,} picture files are not read as rows")
    return source_of_tables(where, tables, fingerprints, notes, (folder,))


def table_fingerprints(
    settings: DataSettings, folder: Path, names: list[str], tables: dict[str, datasets.Dataset]
) -> dict[str, str]:
    """By split, of the content of files; the library's own fingerprint follows their path and date."""
    content, _ = files_fingerprint(names, [str(folder / name) for name in names])
    return {
        split: hashlib.sha256(f"{content} {settings.config} {split} {len(table)}".encode()).hexdigest()
        for split, table in tables.items()
    }


def open_hub(settings: DataSettings) -> Source:
    """A data set of the Hub; raises UserError where it cannot be fetched or read."""
    name, where = settings.name, f"data.name {settings.name}"
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise UserError(f"{where}: is neither a local folder nor a name the Hub can have. {error}") from error
    local = "For a data set on this machine give its folder: --data.name ./FOLDER (parquet files or class folders)."
    try:
        with said_clearly(where):
            tables = datasets.load_dataset(name, settings.config, revision=settings.revision)
    except ConnectionError as error:
        url = f"{huggingface_hub.constants.ENDPOINT}/datasets/{name}"
        raise UserError(
            f"{where}: there is no such local folder, {url} cannot be reached, and nothing of it is in "
            f"{datasets.config.HF_DATASETS_CACHE}. Its parquet files would be downloaded from there. {local}"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{where}: there is no such local folder, and the Hub says: {error} {local}") from error
    downloads = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    folders = (downloads, Path(datasets.config.DOWNLOADED_DATASETS_PATH))
    mixed_up = _mixed_up_snapshot(settings, tables, downloads)
    if mixed_up is None:
        return source_of_tables(where, tables, folders=folders)
    folder, listing, names = mixed_up
    return replace(open_parquet_folder(settings, folder, listing, names), folders=folders)


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
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError):
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
    tables: dict[str, datasets.Dataset],
    fingerprints: dict[str, str] | None = None,
    notes: list[str] | None = None,
    folders: tuple[Path, ...] | None = None,
) -> Source:
    """Tables by name, as a source: give each split its role; a split that has none is not read, and a note says so."""
    source = Source({}, {}, {}, notes or [], folders=folders)
    rank = {word: place for words in SPLIT_WORDS.values() for place, word in enumerate(words)}
    for name in sorted(tables, key=lambda name: rank.get(name.casefold(), len(rank))):  # stable
        role = "train" if len(tables) == 1 and split_role(name) is None else split_role(name)
        if role is None or role in source.parts:
            why = f"the {role} split is {source.names[role]}" if role else "it is neither train, validation nor test"
            source.notes.append(f"split {name} is not read: {why}")
            continue
        source.parts[role] = tables[name]
        source.names[role] = name
        source.fingerprints[role] = fingerprints[name] if fingerprints else tables[name]._fingerprint
    if not source.parts:
        raise UserError(
            f"{where}: its splits are {', '.join(tables)}. Expected splits named train, validation or test."
        )
    return source
