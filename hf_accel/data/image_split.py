"""The rows of one split: labels at hand, images decoded when they are read."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from hf_accel.data.arrays import for_people, is_array_file, read_array
from hf_accel.data.images import MAX_PIXELS, UnreadableImageError, decode_image
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.rows import Rows
from hf_accel.errors import UserError

if TYPE_CHECKING:
    import datasets

    from hf_accel.config.sections import DataSettings

logger = logging.getLogger(__name__)

_MOST_TRIED = 20  # images of the same class, to replace one that became unreadable


@dataclass(frozen=True)
class ImageSplit(LabelledRows):
    """The rows of one split, nothing decoded."""

    unit: ClassVar[str] = "image"

    dataset: datasets.Dataset | Rows  # its image column is Image(decode=False): {"bytes", "path"}
    image_column: str
    labels: np.ndarray  # (N,) int64; all -1 where they are not known, in rows that are only predicted
    label_names: list[str]
    source: str  # for messages: "data/cifar10, train split"
    fingerprint: str  # changes with the content and with the rows selected
    rows: np.ndarray | None = None  # (N,) the row of each image in `source`; None: 0..N-1
    max_pixels: int | None = MAX_PIXELS  # width x height from which an image counts as unreadable
    were_readable: bool = False  # the unreadable images were left out when the split was loaded
    has_stand_ins: bool = False  # an image that became unreadable since then is replaced by one of its class
    folder: Path | None = None  # of the data, if it is one on this machine
    channels: int = 3  # of the pixels that are read
    groups: np.ndarray | None = None  # (N,) int64, see `LabelledRows`; kept only while splits are made
    content: np.ndarray | None = None  # (N,) uint64, equal for equal files; kept only while splits are made

    @classmethod
    def from_settings(cls, settings: DataSettings, described: str, **values: Any) -> Self:
        """A split that is read as `data` of a recipe says.

        Args:
            described: what its fingerprint depends on, in words.
            values: the other attributes.
        """
        fingerprint = hashlib.sha256(described.encode()).hexdigest()
        channels = settings.channels or 3
        return cls(fingerprint=fingerprint, max_pixels=settings.max_pixels, channels=channels, **values)

    @property
    def is_fixed(self) -> bool:
        """Whether a row has the same pixels whenever it is read, so that they can be kept."""
        return not isinstance(self.dataset, Rows) or self.dataset.is_fixed

    @property
    def is_streamed(self) -> bool:
        """Whether rows are read from shards, so that only neighbouring ones are read quickly and no pixels are kept."""
        return isinstance(self.dataset, Rows) and self.dataset.is_streamed

    @property
    def is_prepared(self) -> bool:
        """Whether the rows are tensors that the model takes as they are, instead of images."""
        return isinstance(self.dataset, Rows) and self.dataset.is_prepared

    def read(self, row: int, target_side: int | None = None) -> np.ndarray:
        """Pixels of one row, (H, W, channels) uint8, upright; three channels are RGB.

        Args:
            target_side: as in `decode_image`.
        Raises:
            UserError: the image is unreadable; names its file or row.
        """
        try:
            return self.decode(self.dataset[int(row)][self.image_column], target_side)
        except UnreadableImageError as error:
            if self.has_stand_ins:
                return self._stand_in(int(row), error, target_side)
            advice = "It could be read when the run began: is the file being changed, or the disk failing?"
            if not self.were_readable:
                advice = "Fix or remove it, or set data.on_bad_image: skip to leave out such images."
            raise self._unreadable(row, error, advice) from error

    def shown(self, row: int) -> np.ndarray:
        """Pixels of one row for people, (H, W, 3) uint8 RGB, whatever its channels.

        Raises:
            UserError: the image is unreadable.
        """
        path = (self.dataset[int(row)][self.image_column] or {}).get("path")
        if path and is_array_file(path):
            return for_people(read_array(Path(path), None))
        return replace(self, channels=3).read(row)

    def decode(self, encoded: dict | None, target_side: int | None = None) -> np.ndarray:
        """Pixels of a cell of the image column. Raises UnreadableImageError."""
        return decode_image(encoded, self.max_pixels, target_side, self.channels)

    def where(self, row: int) -> str:
        """The file of an image if it has one, else its row in the data set."""
        encoded = self.dataset[int(row)][self.image_column] or {"bytes": None, "path": None}
        if encoded["bytes"] is None and encoded["path"]:
            return encoded["path"]
        original = int(row) if self.rows is None else int(self.rows[row])
        name = f" ({encoded['path']})" if encoded["path"] else ""
        return f"row {original}{name} of {self.source}"

    def file_names(self) -> list[str | None]:
        """The file of each image, relative to the folder of the data; None where an image has none.

        Reports hold them, so a file elsewhere is named without its folder, which belongs to this machine.
        """
        if isinstance(self.dataset, Rows):
            paths = self.dataset.paths()
        else:
            column = f"{self.image_column}.path"
            paths = self.dataset.flatten().select_columns([column])[:][column]
        roots = [] if self.folder is None else [os.path.abspath(self.folder), os.path.realpath(self.folder)]
        return [_relative_name(path, roots) if path else None for path in paths]

    def select(self, rows: np.ndarray) -> ImageSplit:
        """The split that has only these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + rows.tobytes())
        return replace(
            self,
            dataset=self.dataset.select(rows),
            labels=self.labels[rows],
            rows=rows if self.rows is None else self.rows[rows],
            fingerprint=digest.hexdigest(),
            groups=None if self.groups is None else self.groups[rows],
            content=None if self.content is None else self.content[rows],
        )

    def _stand_in(self, row: int, error: UnreadableImageError, target_side: int | None) -> np.ndarray:
        """The next readable image of the same class: a batch has a fixed number of rows, and its label stays right."""
        equal = self.labels == self.labels[row]
        same = np.flatnonzero(equal if equal.ndim == 1 else equal.all(axis=1))
        after = np.searchsorted(same, row, side="right")
        for other in np.roll(same, -after)[:_MOST_TRIED].tolist():
            if other == row:
                continue
            try:
                pixels = self.decode(self.dataset[other][self.image_column], target_side)
            except UnreadableImageError:
                continue
            logger.warning(
                "%s became unreadable during the run: %s. %s is taken in its place", self.where(row), error.reason,
                self.where(other),
            )  # fmt: skip
            return pixels
        raise self._unreadable(row, error, "Neither can the next images of its class.") from error

    def _unreadable(self, row: int, error: UnreadableImageError, advice: str) -> UserError:
        return UserError(f"{self.where(row)}: cannot be read as an image: {error.reason}. {advice}")


def _relative_name(path: str, roots: list[str]) -> str:
    for root in roots:
        inside = root.rstrip(os.sep) + os.sep
        if path.startswith(inside):
            return path.removeprefix(inside)
    return Path(path).name if os.path.isabs(path) else path
