"""The manifest of a folder: the size and the SHA-256 of each of its files, so that damage is noticed.

A folder is begun with a manifest that says that it is not complete. When all files are there, each is flushed to the disk,
and the manifest that lists them takes its place. So a folder is whole or not at any moment, wherever a process was killed
or the power failed, and files need not be renamed, which fails where several processes write
(https://github.com/huggingface/transformers/pull/36112).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from hf_accel.errors import UserError
from hf_accel.files import settle_file, settle_folder, write_whole

MANIFEST = "hf_accel_manifest.json"  # a name that no other tool gives a file of a model
FORMAT = 1
# Of a file whose content is compared when a model is used; that of a larger one is compared by `hf-accel verify` alone.
# 0.7 seconds at 0.77 GB/s, the speed of SHA-256 on one core.
LARGEST_QUICK_BYTES = 512 * 2**20
SIZES = 0  # as a limit: the sizes alone are compared

Entries = Mapping[str, Mapping[str, Any]]  # path relative to the folder -> bytes, sha256


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written.

    Attributes:
        is_unfinished: the folder was never completely written.
    """

    path: Path
    got: str
    expected: str
    is_unfinished: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.got}, expected {self.expected}"


def begin(folder: Path, clear: bool = True) -> None:
    """Make a folder that does not count as complete.

    Args:
        folder: its files of an earlier attempt are deleted.
        clear: False keeps them.
    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {"complete": False})
    for path in folder.iterdir() if clear else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MANIFEST:
            path.unlink()


def commit(folder: Path, left_out: Collection[Path] = (), **facts: Any) -> None:
    """Flush every file of a folder to the disk, and then declare it complete.

    Args:
        left_out: files and folders in it that may change afterwards.
        facts: of the folder, as JSON types.
    Raises:
        OSError: a file cannot be flushed or read, or the manifest cannot be written; the folder does not count as complete.
    """
    paths = [path for path in sorted(folder.rglob("*")) if not _is_left_out(path, folder, left_out)]
    files = [path for path in paths if path.is_file()]
    for path in files:
        settle_file(path)
    for path in paths:
        if path.is_dir():
            settle_folder(path)
    settle_folder(folder)
    listed = {path.relative_to(folder).as_posix(): entry_of(path) for path in files}
    _write(folder, {"complete": True, **facts, "files": listed})


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is none.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict) or not isinstance(values.get("complete"), bool):
        raise ValueError("it is not a manifest")
    if values["complete"] and not are_entries(values.get("files")):
        raise ValueError("it does not list files")
    return values


def damage(folder: Path, largest_hashed: int | None = None) -> Damage | None:
    """The first file of a folder that is not as its manifest says; None: all are, or the folder has no manifest.

    Args:
        largest_hashed: bytes of the largest file whose content is compared, not only its size; None: all are.
    """
    try:
        values = read(folder)
    except (OSError, ValueError) as error:
        return Damage(folder / MANIFEST, f"cannot be read ({_reason(error)})", "the sizes and checksums of the files")
    if values is None:
        return None
    if not values["complete"]:
        return Damage(folder, "was not completely written", "a manifest that lists its files", is_unfinished=True)
    return damaged_entry(folder, values["files"], largest_hashed)


def damaged_entry(folder: Path, entries: Entries, largest_hashed: int | None = None) -> Damage | None:
    """The first of these files that is not as it was; see `damage`."""
    for name, entry in entries.items():  # all sizes before any content
        found = _other_size(folder / name, entry)
        if found is not None:
            return found
    for name, entry in entries.items():
        if largest_hashed is not None and entry["bytes"] > largest_hashed:
            continue
        path = folder / name
        try:
            checksum = _checksum(path)
        except OSError as error:
            return Damage(path, f"cannot be read ({_reason(error)})", f"{entry['bytes']:,} bytes")
        if checksum != entry["sha256"]:
            got, expected = f"its SHA-256 is {checksum[:16]}…", f"{entry['sha256'][:16]}…"
            return Damage(path, got, expected)
    return None


def refuse_damaged(folder: Path, largest_hashed: int | None = LARGEST_QUICK_BYTES) -> None:
    """Refuse to use a folder that is not whole; one without a manifest is taken as it is.

    Raises:
        UserError: names the first file that is not as it was written.
    """
    found = damage(folder, largest_hashed)
    if found is None:
        return
    if found.is_unfinished:
        raise UserError(f"{found}. Repeat the command that writes it: a run continues from its last checkpoint.")
    raise UserError(
        f"{found}. The file has changed since it was written. Restore it; if the change is yours, delete "
        f"{folder / MANIFEST}."
    )


def entry_of(content: Path | bytes) -> dict[str, Any]:
    """What a manifest says of a file, or of the bytes that a file is going to have."""
    if isinstance(content, bytes):
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"bytes": content.stat().st_size, "sha256": _checksum(content)}


def are_entries(value: Any) -> TypeGuard[Entries]:
    """Whether a value of JSON is what `entry_of` made, by the names of files."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        for entry in value.values()
    )


def _write(folder: Path, values: dict[str, Any]) -> None:
    write_whole(folder / MANIFEST, json.dumps({"format": FORMAT, **values}, indent=1) + "\n")


def _is_left_out(path: Path, folder: Path, left_out: Collection[Path]) -> bool:
    return path == folder / MANIFEST or any(path == other or other in path.parents for other in left_out)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_size(path: Path, entry: Mapping[str, Any]) -> Damage | None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Damage(path, "is missing", f"{entry['bytes']:,} bytes")
    except OSError as error:
        return Damage(path, f"cannot be read ({_reason(error)})", f"{entry['bytes']:,} bytes")
    if size != entry["bytes"]:
        return Damage(path, f"has {size:,} bytes", f"{entry['bytes']:,} bytes")
    return None


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
