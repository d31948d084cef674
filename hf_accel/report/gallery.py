"""A row of the data as HTML: an image as a data URI, a text as a quotation of which the beginning is shown."""

from __future__ import annotations

import base64
import io
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from hf_accel.formatting import MISSING

if TYPE_CHECKING:
    from hf_accel.tasks.gallery import GalleryItem

MISTAKE_SIDE = 256  # pixels: a mistake is shown at 160 CSS pixels or more, to be looked at
SAMPLE_SIDE = 176  # sharp on a dense screen at the 88 CSS pixels it is shown at
MISTAKE_CHARACTERS, SAMPLE_CHARACTERS = 800, 240  # of a text


def shown(item: GalleryItem, is_large: bool) -> dict[str, Any]:
    """What the template of a page shows of a row.

    Args:
        is_large: as large as a mistake, which is to be looked at.
    """
    confidence = MISSING if item.confidence is None else f"{100 * item.confidence:.0f} %"
    return {"html": content_html(item.content, item, is_large), "item": item, "confidence": confidence}


@singledispatch
def content_html(content: Any, item: GalleryItem, is_large: bool) -> Markup:
    raise TypeError(f"a {type(content).__name__} cannot be shown on a page")


@content_html.register(np.ndarray)
def _(content: np.ndarray, item: GalleryItem, is_large: bool) -> Markup:
    what = f"An image of class {item.label}"
    alt = what if item.predicted is None else f"{what} that the model takes for {item.predicted}"
    kind = Markup(' class="small"') if max(content.shape[:2]) <= 64 else ""
    uri = data_uri(content, MISTAKE_SIDE if is_large else SAMPLE_SIDE)
    image = Markup('<img src="{}" alt="{}"{}>').format(uri, alt, kind)
    if item.explanation is None:
        return image
    alt = f"The same image, with the places that speak for {item.predicted} in bright colours"
    return image + Markup('<img class="explanation" src="{}" alt="{}">').format(
        data_uri(item.explanation, MISTAKE_SIDE), alt
    )


@content_html.register(str)
def _(content: str, item: GalleryItem, is_large: bool) -> Markup:
    most = MISTAKE_CHARACTERS if is_large else SAMPLE_CHARACTERS
    cut = content if len(content) <= most else f"{content[:most].rstrip()} …"
    return Markup("<blockquote>{}</blockquote>").format(cut)


def data_uri(image: np.ndarray, longest_side: int) -> str:
    """Small images as PNG, exactly; photographs as JPEG, reduced.

    Args:
        image: (H, W, 3) uint8.
        longest_side: pixels that a photograph has at most.
    """
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if max(picture.size) <= 64:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        picture.save(buffer, "JPEG", quality=82, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
