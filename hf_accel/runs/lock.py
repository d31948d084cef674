"""A folder is used by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hf_accel.errors import UserError


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep a second comparison out of the folder: two would overwrite each other's runs, and slow each other down.

    Raises:
        UserError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder}: another comparison is running there. Wait for it, or choose another --output_dir."
        ) from None
    try:
        yield
    finally:
        lock.release()
