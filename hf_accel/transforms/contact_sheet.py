"""A contact sheet: training images next to what augmentation makes of them, as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL.ImageDraw import Draw
from PIL.ImageFont import load_default

_SMALLEST_TILE, _LARGEST_TILE = 128, 224  # pixels
_GAP, _MARGIN, _LINE, _FONT = 8, 16, 18, 14
_INK, _MUTED, _PAPER = "#1f2329", "#5b6572", "#ffffff"


@dataclass(frozen=True)
class AugmentedImage:
    """A training image and what training is given in its place."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, as evaluation sees it
    label: str
    samples: list[np.ndarray]  # (H, W, 3) uint8 RGB each
    sample_labels: list[str]


def contact_sheet(rows: Sequence[AugmentedImage], title: str, settings: str) -> PIL.Image.Image:
    """Draw the images, one row for each, under a title, the settings and the headings of the columns.

    Args:
        rows: with the same number of samples each.
        title: of the picture; long lines of it and of the settings are wrapped.
        settings: any number of lines.
    """
    tile = _tile_size(rows[0].image)
    columns = 1 + len(rows[0].samples)
    width = 2 * _MARGIN + columns * (tile[0] + _GAP) - _GAP
    titles = _wrapped(title, width - 2 * _MARGIN)
    head = [*titles, *(line for text in settings.splitlines() for line in _wrapped(text, width - 2 * _MARGIN))]
    captions = [[row.label, *row.sample_labels] for row in rows]
    wrapped = [[_wrapped(caption, tile[0])[:2] for caption in of_row] for of_row in captions]
    caption_lines = max(len(lines) for of_row in wrapped for lines in of_row)
    top = _MARGIN + _LINE * (len(head) + 1) + _GAP
    row_height = tile[1] + _LINE * caption_lines + _GAP
    sheet = PIL.Image.new("RGB", (width, top + _LINE + len(rows) * row_height + _MARGIN), _PAPER)
    draw, font = Draw(sheet), load_default(_FONT)
    for number, line in enumerate(head):
        draw.text((_MARGIN, _MARGIN + number * _LINE), line, _INK if number < len(titles) else _MUTED, font)
    for column in range(columns):
        heading = "original" if column == 0 else f"epoch {column}"
        draw.text((_MARGIN + column * (tile[0] + _GAP), top), heading, _INK, font)
    for number, row in enumerate(rows):
        y = top + _LINE + number * row_height
        for column, image in enumerate([row.image, *row.samples]):
            x = _MARGIN + column * (tile[0] + _GAP)
            sampling = PIL.Image.Resampling.NEAREST if image.shape[1] <= tile[0] else PIL.Image.Resampling.LANCZOS
            sheet.paste(PIL.Image.fromarray(image).resize(tile, sampling), (x, y))
            draw.multiline_text((x, y + tile[1]), "\n".join(wrapped[number][column]), _MUTED, font)
    return sheet


def _tile_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height of the tiles: whole multiples of small images, so that each of their pixels is a square."""
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer > _LARGEST_TILE:
        return round(width * _LARGEST_TILE / longer), round(height * _LARGEST_TILE / longer)
    times = -(-_SMALLEST_TILE // longer)
    return width * times, height * times


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that fit into so many pixels; a letter of this font is about half as wide as it is high."""
    return textwrap.wrap(text, max(8, int(width / (0.52 * _FONT))), max_lines=6, placeholder=" ...")
