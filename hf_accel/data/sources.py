"""`data.name` -> the tables it stands for: the built-in digits, a local folder, or a data set of the Hub.

An image folder is listed here instead of by `datasets`' own `imagefolder`: hidden folders never become classes,
messages can name the file, and nothing but paths is kept. Nothing is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import PIL.Image

from hf_accel.config.sections import DataSettings
from hf_accel.data.images import is_hidden, is_image_file, visible_files
from hf_accel.errors import UserError, did_you_mean

DIGITS = "digits"
_HASHED_BYTES = 4 << 30  # files up to this size in all are told apart by their content: seconds to read
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Source:
    """The splits a data set brings, by role: "train", "validation", "test"."""

    parts: dict[str, datasets.Dataset]
    fingerprints: dict[str, str]  # by role; the same in every process that opens the same data
    notes: list[str] = field(default_factory=list)  # what a person should know about how it was read


def open_source(settings: DataSettings) -> Source:
    """Find and open what `data.name` stands for. A local folder comes before a data set of the Hub.

    Raises:
        UserError: there is no such thing, it holds no images, or it cannot be read.
    """
    if settings.name == DIGITS:
        return _open_digits()
    path = Path(settings.name).expanduser()
    if path.is_dir():
        return _open_folder(settings, path)
    if path.exists():
        raise UserError(f"data.name {settings.name}: is a file, expected a folder of parquet files or of class folders")
    if _is_path(settings.name):
        raise UserError(f"data.name {settings.name}: no such folder. {_neighbours(path)}")
    return _open_hub(settings)


def _is_path(name: str) -> bool:
    """Whether a name that is no folder was meant as one: a Hub id is `name` or `owner/name`, nothing else."""
    parts = name.split("/")
    looks_local = name.startswith((".", "~")) or "\\" in name or "" in parts or len(parts) > 2
    return looks_local or (len(parts) == 2 and Path(parts[0]).is_dir())


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either; the current folder is {Path.cwd()}."
    folders = [p.name for p in path.parent.iterdir() if p.is_dir() and not is_hidden(p.name)]
    return did_you_mean(path.name, folders) if folders else f"{path.parent.resolve()} holds no folder."


def _open_digits() -> Source:
    from sklearn.datasets import load_digits  # takes a second, and only this data set needs it

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), grey levels 0..16 -> 0..255
    # Encoded, although they could be kept as pixels: the embedded default then tests the path of every other data set.
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=[str(n) for n in range(10)])}
    )
    rows = {"image": [{"bytes": _png(image), "path": None} for image in pixels], "label": digits.target.tolist()}
    fingerprint = hashlib.sha256(pixels.tobytes() + digits.target.tobytes()).hexdigest()
    return Source({"train": datasets.Dataset.from_dict(rows, features=features)}, {"train": fingerprint})


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _open_folder(settings: DataSettings, folder: Path) -> Source:
    where = f"data.name {settings.name}"
    files = visible_files(folder)
    if any(name.endswith(".parquet") for name in files):
        tables = _load(where, str(folder.resolve()), settings.config)
        # The library's own fingerprint follows the path and the date of the files.
        names = [name for name in files if name.endswith(".parquet")]
        content = _files_fingerprint(names, [str(folder / name) for name in names])
        fingerprints = {
            split: hashlib.sha256(f"{content} {settings.config} {split} {len(table)}".encode()).hexdigest()
            for split, table in tables.items()
        }
        return _by_role(where, tables, fingerprints)
    if any(is_image_file(name) for name in files):
        return _open_image_folder(where, folder, files)
    content = f"none of its {len(files)} files is parquet or an image" if files else "the folder is empty"
    raise UserError(f"{where}: {content}. Expected parquet files, or a folder of images for each class.")


def _open_image_folder(where: str, folder: Path, files: list[str]) -> Source:
    """Read `class/…/image` or `split/class/…/image`."""
    images = [name for name in files if is_image_file(name)]
    tops = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    # A folder named train that holds images itself is a class (vehicles), not a split.
    with_classes = {name.split("/")[0] for name in images if name.count("/") >= 2}
    splits = [name for name in tops if name in with_classes and _role(name)]
    roots = {split: f"{split}/" for split in splits} or {"train": ""}
    tables, fingerprints, used = {}, {}, 0
    notes = [f"folder {name} is no split and is not read" for name in tops if splits and name not in splits]
    for split, prefix in roots.items():
        rows = [name for name in images if name.startswith(prefix) and "/" in name[len(prefix) :]]
        labels = [name[len(prefix) :].split("/")[0] for name in rows]
        classes = {path.name for path in (folder / prefix).iterdir() if path.is_dir() and not is_hidden(path.name)}
        empty = sorted(classes - set(labels))
        if empty:
            notes.append(f"no image in {', '.join(prefix + name for name in empty)}: not a class")
        if len(set(labels)) < 2 and _role(split) == "train":
            _refuse_single_class(where, prefix, rows, labels)
        root = os.path.abspath(folder)
        paths = [f"{root}/{name}" for name in rows]
        table = datasets.Dataset.from_dict({"image": paths, "label": labels})
        tables[split] = table.cast_column("image", datasets.Image(decode=False))
        fingerprints[split] = _files_fingerprint(rows, paths)
        used += len(rows)
    if used < len(files):
        notes.append(f"{len(files) - used} files are no images, or lie outside the class folders: not read")
    return _by_role(where, tables, fingerprints, notes)


def _refuse_single_class(where: str, prefix: str, rows: list[str], labels: list[str]) -> None:
    expected = "Expected a folder of images for each of two or more classes"
    if not labels:
        raise UserError(f"{where}: its images lie in no class folder. {expected}: cats/1.jpg, dogs/2.jpg.")
    below = sorted({parts[1] for name in rows if len(parts := name[len(prefix) :].split("/")) > 2})
    hint = f" Are the classes the folders in it ({', '.join(below[:5])})? Then name that folder." if below else ""
    raise UserError(f"{where}: has one class only, {labels[0]}. {expected}.{hint}")


def _files_fingerprint(names: list[str], paths: list[str]) -> str:
    """Of what files hold, wherever and since whenever they are there; of their size and date where they are too large."""
    digest = hashlib.sha256()
    # A link to nowhere is an unreadable image, to be treated as any other when it is read.
    stats = [os.stat(path) if os.path.exists(path) else os.lstat(path) for path in paths]
    by_content = sum(stat.st_size for stat in stats) <= _HASHED_BYTES
    for name, path, stat in zip(names, paths, stats, strict=True):
        digest.update(f"{name}\0{stat.st_size}\0".encode())
        digest.update(_content_digest(path) if by_content else f"{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _content_digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:  # unreadable as an image, too
        return str(error.errno).encode()


def _open_hub(settings: DataSettings) -> Source:
    name, where = settings.name, f"data.name {settings.name}"
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise UserError(f"{where}: is neither a local folder nor a name the Hub can have. {error}") from error
    local = "For a data set on this machine give its folder: --data.name ./FOLDER (parquet files or class folders)."
    try:
        return _by_role(where, _load(where, name, settings.config, settings.revision))
    except ConnectionError as error:
        url = f"{huggingface_hub.constants.ENDPOINT}/datasets/{name}"
        raise UserError(
            f"{where}: there is no such local folder, {url} cannot be reached, and nothing of it is in "
            f"{datasets.config.HF_DATASETS_CACHE}. Its parquet files would be downloaded from there. {local}"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{where}: there is no such local folder, and the Hub says: {error} {local}") from error


def _load(where: str, name: str, config: str | None, revision: str | None = None) -> dict[str, datasets.Dataset]:
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError):
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            cache = datasets.config.HF_DATASETS_CACHE
            raise UserError(
                f"{where}: no space left for the tables in {cache}. Name a larger disk with HF_DATASETS_CACHE."
            ) from error
        raise UserError(f"{where}: cannot be opened: {cause}") from error


def _role(name: str) -> str | None:
    return next((role for role, names in SPLIT_NAMES.items() if name.lower() in names), None)


def _by_role(
    where: str,
    tables: dict[str, datasets.Dataset],
    fingerprints: dict[str, str] | None = None,
    notes: list[str] | None = None,
) -> Source:
    """Give each split its role; a split that has none is not read, and a note says so."""
    source = Source({}, {}, notes or [])
    for name, table in tables.items():
        role = "train" if len(tables) == 1 and _role(name) is None else _role(name)
        if role is None or role in source.parts:
            source.notes.append(f"split {name} is neither train, validation nor test: not read")
            continue
        source.parts[role] = table
        source.fingerprints[role] = fingerprints[name] if fingerprints else table._fingerprint
    if "train" not in source.parts:
        raise UserError(f"{where}: has no train split, only {', '.join(tables)}. Expected a split named train.")
    return source
