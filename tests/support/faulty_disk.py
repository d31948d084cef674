"""A disk on which the n-th operation of a save fails, once or from then on, as SQLite is tested.

Operations are writes, fsyncs, renames and new folders, of Python and of the two libraries that write tensors. A write that
fails leaves half of its bytes.
"""

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_utils


class FaultyDisk:
    """Counts the operations below a folder, and lets one of them fail.

    Args:
        folder: operations elsewhere are left alone.
        fails_at: the number of the operation, from 1; 0: none.
        error: its errno.
        for_good: all that follow fail, too.
    """

    def __init__(self, folder: Path, fails_at: int = 0, error: int = 0, for_good: bool = False) -> None:
        self.folder = str(folder)
        self.fails_at, self.error, self.for_good = fails_at, error, for_good
        self.done: list[str] = []

    def step(self, what: str, path: Any, before_failure: Callable[[], Any] = lambda: None) -> None:
        """An operation begins; raises if it is to fail."""
        if not str(path).startswith(self.folder):
            return
        self.done.append(f"{what} {Path(str(path)).name}")
        count = len(self.done)
        if count == self.fails_at or (self.for_good and 0 < self.fails_at <= count):
            before_failure()
            raise OSError(self.error, os.strerror(self.error), str(path))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for owner, name, place in ((torch, "save", 1), (transformers.modeling_utils, "safe_save_file", 1)):
                patch.setattr(owner, name, self._writes_file(getattr(owner, name), place))
            fsync, replace, mkdir = os.fsync, Path.replace, Path.mkdir
            patch.setattr(
                os, "fsync", lambda fd: (self.step("fsync", os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1]
            )
            patch.setattr(Path, "replace", lambda path, to: (self.step("rename", to), replace(path, to))[1])
            patch.setattr(Path, "mkdir", lambda path, **how: (self.step("mkdir", path), mkdir(path, **how))[1])
            opened = io.open
            patch.setattr(io, "open", self._opens(opened))
            patch.setattr(builtins, "open", self._opens(opened))
            yield

    def _writes_file(self, write: Callable[..., Any], place: int) -> Callable[..., Any]:
        def written(*args: Any, **kwargs: Any) -> Any:
            path = args[place] if len(args) > place else kwargs.get("filename", kwargs.get("f"))

            def half() -> None:
                write(*args, **kwargs)
                os.truncate(path, os.path.getsize(path) // 2)

            self.step("write", path, half)
            return write(*args, **kwargs)

        return written

    def _opens(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def open_file(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = opened(path, mode, *args, **kwargs)
            if "r" in mode or not str(path).startswith(self.folder):
                return file
            write = file.write

            def counted(content: Any) -> Any:
                self.step("write", path, lambda: write(content[: len(content) // 2]))
                return write(content)

            file.write = counted
            return file

        return open_file
