"""The checkpoints in the folder of a run: which are whole, which is the newest of those, and which are deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import checkpoint_damage, prune, step_of
from hf_accel.runs.manifest import Damage


class StoredCheckpoints:
    """What is in one folder.

    Args:
        folder: of the run.
        prefix: of their names, which a number follows.
        identity: gives what tells this run from others, as its checkpoints say it; None: it is not known.

    Attributes:
        damaged: what is wrong with those that are newer than the one that `newest_whole` returned.
    """

    def __init__(self, folder: Path, prefix: str, identity: Callable[[], str | None]) -> None:
        self.folder = folder
        self.prefix = prefix
        self.identity = identity
        self.damaged: list[Damage] = []
        self._read: dict[Path, Damage | None] = {}  # those whose content was compared, and what was found

    def all(self) -> list[Path]:
        """Every folder with the name of a checkpoint, in no order."""
        found = self.folder.glob(f"{self.prefix}*")
        return [path for path in found if path.name.removeprefix(self.prefix).isdigit() and path.is_dir()]

    def last(self) -> Path | None:
        """The newest one whose files are all there and have their sizes."""
        identity = self.identity()
        found = [path for path in self.all() if checkpoint_damage(path, manifest.SIZES, identity) is None]
        return max(found, key=step_of, default=None)

    def all_whole(self) -> list[Path]:
        """Those that are as they were written, every byte, in no order."""
        return [checkpoint for checkpoint in self.all() if self._damage_of(checkpoint) is None]

    def newest_whole(self) -> Path | None:
        """The newest one that is as it was written, every byte; those that are newer and are not: in `damaged`.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        self.damaged = []
        for checkpoint in sorted(self.all(), key=step_of, reverse=True):
            found = self._damage_of(checkpoint)
            if found is None:
                return checkpoint
            self.damaged.append(found)
        real = [found for found in self.damaged if not found.is_unfinished]
        if real:
            raise UserError(
                f"{self.folder}: the checkpoints are damaged ({'; '.join(map(str, real))}). Restore one, or add --overwrite to "
                "start from scratch."
            )
        return None

    def prune(self, keep: int, newest: Path, best: Path | None) -> None:
        """Delete those of the lowest steps until `keep` are left, the newest and the best one among them."""
        prune(self.all(), keep, [newest] if best is None else [newest, best])

    def _damage_of(self, checkpoint: Path) -> Damage | None:
        """As `checkpoint_damage`; the contents are read once, and the sizes again after that."""
        if checkpoint not in self._read:
            self._read[checkpoint] = checkpoint_damage(checkpoint, None, self.identity())
            return self._read[checkpoint]
        return self._read[checkpoint] or checkpoint_damage(checkpoint, manifest.SIZES, self.identity())
