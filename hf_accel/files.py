"""Files that are written whole: a reader, or a crash, finds the old content or the new one, never a part of it.

And the folder of the files that later runs may use again, and what a file would take after compression.
"""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

LONGEST_NAME_BYTES = 255
_CHUNK = 1 << 20
RUN_MARK = ".hf_accel.json"  # in the folder of each run; pictures below it are not the user's


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write bytes, or text as UTF-8, as they stand, by way of a temporary file next to it; returns the path.

    The content is on the disk before the file gets its name, and the name is on the disk when this returns.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full; the file is as it was.
    """
    ending = f".{os.getpid()}.part"
    stem = os.fsencode(f".{path.name}")[: LONGEST_NAME_BYTES - len(ending)]  # the name itself may be the longest one
    temporary = path.with_name(os.fsdecode(stem) + ending)
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    settle_folder(path.parent)
    return path


def settle_file(path: Path) -> None:
    """Have the system write the content of a file to the disk.

    Raises:
        OSError: the disk failed or is full.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def settle_folder(path: Path) -> None:
    """Have the system write the names in a folder to the disk, where it can: Windows cannot open a folder.

    Raises:
        OSError: the disk failed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # of a file system that cannot do it
            raise
    finally:
        os.close(descriptor)


def compressed_bytes(file: Path) -> int:
    """Size of a file after zlib (level 6), which is read in parts."""
    compressor, size = zlib.compressobj(6), 0
    with file.open("rb") as opened:
        while part := opened.read(_CHUNK):
            size += len(compressor.compress(part))
    return size + len(compressor.flush())


def cache_folder(cache_dir: str | None) -> Path:
    """The folder of all caches: the setting, else `hf_accel` in $HF_HOME, in $XDG_CACHE_HOME, or in ~/.cache."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    home = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "hf_accel"
