"""`.hf_accel.json`, by which a run marks its folder: facts of the run, and which files there are its own.

Files by the names that a run uses are deleted or overwritten only where the mark, or a report or recipe that an earlier
version wrote, proves that they are a run's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

import hf_accel
from hf_accel.files import RUN_MARK, write_whole
from hf_accel.runs.manifest import Damage


class RunMark:
    """The mark of a folder, which need not be there.

    Args:
        folder: of the run.
        left: the names that a run uses in it.
    """

    def __init__(self, folder: Path, left: Sequence[str]) -> None:
        self.folder, self.left = folder, left
        self.path = folder / RUN_MARK

    def read(self) -> dict[str, Any] | None:
        """Everything that it holds; None where there is none, or it is damaged."""
        mark = mapping_in(self.path, json.loads)
        return mark if {"files", "others"} <= mark.keys() else None

    def fact(self, name: str) -> Any:
        """One of the facts that `write` was given; None where it is not known."""
        return (self.read() or {}).get(name)

    def write(self, files: list[str] | None, others: set[str], **facts: Any) -> None:
        """Write the mark; what else it holds stays.

        Args:
            files: None while the run lasts, and all by its names is its own.
            others: files that are not.
            facts: of the run, `data`, `longer_from` (the checkpoint of this folder that was asked for by name), `run` (see
                `RunFolder.identity`), `opening` and `results`.
        """
        values = {**(self.read() or {}), "hf_accel": hf_accel.__version__, "files": files, "others": sorted(others)}
        write_whole(self.path, json.dumps(values | facts, indent=1) + "\n")

    def note(self, **facts: Any) -> None:
        """Add facts to the mark where there is one."""
        mark = self.read()
        if mark is not None:
            self.write(mark["files"], set(mark["others"]), **facts)

    def damage(self) -> Damage | None:
        """What is wrong with the mark, which holds the checksums of the results; None where it can be read, or there is none."""
        if not self.path.is_file() or self.read() is not None:
            return None
        return Damage(self.path, "cannot be read", "the mark of a run as JSON")

    def present(self) -> set[str]:
        """Every file by a name that a run uses, checkpoints aside, relative to the folder."""
        found: list[Path] = []
        for path in (self.folder / name for name in self.left):
            if path.is_dir() and not path.is_symlink():
                found += [inner for inner in path.rglob("*") if inner.is_symlink() or not inner.is_dir()]
            elif os.path.lexists(path):
                found.append(path)
        return {path.relative_to(self.folder).as_posix() for path in found}

    def others(self) -> set[str]:
        """Those of the files present that the run did not write: somebody put them there after it had finished."""
        mark = self.read()
        if mark is None:
            return set()
        present = self.present()
        return present & set(mark["others"]) if mark["files"] is None else present - set(mark["files"])

    def own(self) -> set[str]:
        """Those of the files present that the run wrote."""
        return self.present() - self.others()


def mapping_in(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping in a file; empty where there is none."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        values = parse(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
    return {}
