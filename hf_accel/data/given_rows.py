"""Rows in the memory of a Python caller, read one by one through the caller's own object.

They stand where a table with encoded images stands, so that everything that reads a split reads them as well: an image is
handed over as the bytes of an uncompressed TIFF file, which costs a copy and loses nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.labelling import Images
from hf_accel.data.rows import Rows
from hf_accel.errors import UserError

COLUMN = "image"
IMAGE_KEYS = ("image", "img", "pixel_values", "images")
LABEL_KEYS = ("label", "labels", "fine_label", "target")


class GivenRows(Rows):
    """Images of an indexable object.

    Args:
        source: number of a row -> (image, label), or a mapping with an image, or an image alone.
        column: the name under which an image is handed over.
        is_fixed: a row is the same whenever it is read. A torch data set may transform at random, so it is not.
        image_key: key of the image where rows are mappings; None: one of `IMAGE_KEYS`.
        where: for messages.
        rows: (N,) numbers in `source`; None: all.
    """

    def __init__(
        self,
        source: Any,
        column: str,
        *,
        is_fixed: bool,
        where: str,
        image_key: str | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        super().__init__(column)
        self.source = source
        self.is_fixed = is_fixed
        self.where = where
        self.image_key = image_key
        self.rows = np.arange(len(source)) if rows is None else rows
        self.is_prepared = len(self.rows) > 0 and is_prepared(self.image(0))

    def __len__(self) -> int:
        return len(self.rows)

    def cell(self, row: int) -> dict[str, Any]:
        return encoded_image(self.image(row), f"row {int(self.rows[row])} of {self.where}")

    def paths(self) -> list[str | None]:
        return [None] * len(self)

    def select(self, rows: np.ndarray) -> GivenRows:
        return GivenRows(
            self.source,
            self.column,
            is_fixed=self.is_fixed,
            where=self.where,
            image_key=self.image_key,
            rows=self.rows[rows],
        )

    def image(self, row: int) -> Any:
        """The image of a row as the caller's object gives it."""
        number = int(self.rows[row])
        return image_of(self.source[number], self.image_key, f"row {number} of {self.where}")


def part_of_rows(
    source: Any,
    where: str,
    settings: DataSettings,
    labels: np.ndarray,
    label_names: list[str],
    *,
    is_fixed: bool,
    kind: type[Images],
) -> Images:
    """The images of an indexable object with their labels.

    Args:
        source, where, is_fixed: as in `GivenRows`.
        kind: of the split.
    Raises:
        UserError: the first row is not an image.
    """
    rows = GivenRows(source, COLUMN, is_fixed=is_fixed, where=where, image_key=settings.image_column)
    rows[0]  # what is not an image is refused here
    content = json.dumps([type(source).__name__, labels.tolist(), label_names])
    return kind.from_settings(
        settings,
        content,
        dataset=rows,
        image_column=COLUMN,
        labels=labels,
        label_names=label_names,
        source=where,
    )


def image_of(item: Any, key: str | None, where: str) -> Any:
    """The image of a row: of a mapping, of a pair, or the row itself.

    Raises:
        UserError: a mapping without an image.
    """
    if isinstance(item, Mapping):
        found = next((name for name in ([key] if key else IMAGE_KEYS) if name in item), None)
        if found is None:
            raise UserError(
                f"{where}: has the keys {', '.join(map(str, item))}, expected an image under {key or ' or '.join(IMAGE_KEYS)}"
            )
        return item[found]
    return item[0] if isinstance(item, tuple | list) else item


def label_of(item: Any, key: str | None) -> Any:
    """The label of a row as it stands there; None: there is none."""
    if isinstance(item, Mapping):
        return next((item[name] for name in ([key] if key else LABEL_KEYS) if name in item), None)
    return item[1] if isinstance(item, tuple | list) and len(item) > 1 else None


def is_prepared(image: Any) -> bool:
    """Whether it is a tensor or an array of floating-point numbers, which the model takes as it is."""
    if isinstance(image, torch.Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and image.dtype.kind == "f"


def encoded_image(image: Any, where: str) -> dict[str, Any]:
    """A cell of an image column: {"bytes", "path"}.

    Args:
        image: a path, encoded bytes, a PIL image, uint8 pixels (H, W), (H, W, C) or (C, H, W), or a float tensor
            (C, H, W), which is scaled to the range of a picture: only people look at it.
    Raises:
        UserError: it is none of these.
    """
    if isinstance(image, str | Path):
        return {"bytes": None, "path": str(image)}
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    if isinstance(image, Mapping) and {"bytes", "path"} <= set(image):
        return {"bytes": image["bytes"], "path": image["path"]}
    picture = as_picture(image, where)
    buffer = io.BytesIO()
    picture.save(buffer, format="TIFF")
    return {"bytes": buffer.getvalue(), "path": None}


def as_picture(image: Any, where: str) -> PIL.Image.Image:
    """An upright PIL image of an image in memory; see `encoded_image`."""
    if isinstance(image, PIL.Image.Image):
        return PIL.ImageOps.exif_transpose(image)
    pixels = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    if is_prepared(image) and pixels.ndim == 3:
        pixels = _as_levels(pixels)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_grey, is_colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not (is_grey and pixels.dtype in (np.uint8, np.uint16)) and not (is_colour and pixels.dtype == np.uint8):
        raise UserError(
            f"{where}: is {_described(image)}, expected an image: a path, a PIL image, uint8 pixels (H, W, 3) or (3, H, W), or "
            "the model's input as a float tensor (3, H, W)."
        )
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _as_levels(pixels: np.ndarray) -> np.ndarray:
    low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    levels = np.nan_to_num((pixels - low) * (255 / (high - low) if high > low else 0))
    levels = levels[:3] if len(levels) in (1, 3) else levels[:1]
    return np.rint(levels).astype(np.uint8)


def _described(image: Any) -> str:
    if isinstance(image, torch.Tensor | np.ndarray):
        kind = "a tensor" if isinstance(image, torch.Tensor) else "an array"
        return f"{kind} of {str(image.dtype).removeprefix('torch.')} of the shape {tuple(image.shape)}"
    return f"of the type {type(image).__name__}"
