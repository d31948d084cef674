"""Keeps a folder to one process at a time; a process that is killed releases its folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hf_accel.errors import UserError

LOCK_NAME = ".lock"
COMPARISON = "another comparison is running there"


@contextmanager
def sole_use(folder: Path, work: str = COMPARISON) -> Iterator[None]:
    """Keep other processes out of a folder: two would overwrite each other's files, and slow each other down.

    Args:
        folder: the folder to hold; it is made when it does not exist.
        work: what the other process does, for the message.
    Raises:
        UserError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: {work}. Wait for it, or choose another --output_dir.") from None
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:  # without the lock only where no process can write
        yield
    finally:
        lock.release()


def refuse_folder_in_use(folder: Path, work: str = COMPARISON) -> None:
    """Say at once what `sole_use` would say later, and write nothing.

    Raises:
        UserError: another process is at work there.
    """
    if (folder / LOCK_NAME).is_file():
        with sole_use(folder, work):
            pass
