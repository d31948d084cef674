"""Image files and encoded bytes -> RGB pixels, and the files that a person means by a folder or a glob.

Transparency is dropped, not blended, because `convert("RGB")` is what `pipeline("image-classification")` does with the
same file later: the model must be trained on what it will be shown. Only grey levels beyond 8 bits are treated in
another way: PIL clips them, which turns most of a 16-bit picture white, so they are scaled.
"""

from __future__ import annotations

import glob
import io
import os
from pathlib import Path

import numpy as np
import PIL.Image

from hf_accel.errors import UserError

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_ORIENTATION = 0x0112  # the EXIF tag; 1 or absent: upright
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


class UnreadableImageError(UserError):
    """An image that cannot be decoded. `reason` is the message without the name of the image."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: cannot be read as an image: {reason}")
        self.reason = reason


def decode_image(encoded: dict | bytes | Path | None) -> np.ndarray:
    """Decode one image of any PIL mode, upright.

    Args:
        encoded: the bytes of an image file, its path, or a row of an `Image(decode=False)` column
            ({"bytes", "path"}).
    Returns:
        (H, W, 3) uint8, RGB. Of an animation, the first frame.
    Raises:
        UnreadableImageError: missing, truncated or not an image, or a decompression bomb (by PIL's limit).
    """
    if isinstance(encoded, dict):
        encoded = Path(encoded["path"]) if encoded["bytes"] is None and encoded["path"] else encoded["bytes"]
    where = str(encoded) if isinstance(encoded, Path) else "image"
    if not encoded:
        raise UnreadableImageError(where, "it is empty")
    try:
        with PIL.Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except MemoryError:
        raise
    except Exception as error:  # on broken files PIL's decoders raise OSError, SyntaxError, struct.error, ValueError...
        raise UnreadableImageError(where, _reason(error)) from error


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF beside sound pixels is common, and costs no more than the turn
        return 1


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is what PIL makes of a 16-bit PGM
        return _grey(np.asarray(image) / 257)
    if image.mode == "F":  # the range is not written in the file: 0..1, 0..255 or 0..65535
        values = np.nan_to_num(np.asarray(image))
        peak = values.max()
        return _grey(values * (255 if peak <= 1 else 1 if peak <= 255 else 1 / 257))
    if image.mode == "La":  # grey with premultiplied alpha: PIL has no direct way to RGB
        image = image.convert("LA")
    # A palette with several transparent entries makes `convert` warn for each file.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _grey(levels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "its content is in no image format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_image_file(path: str | Path) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def visible_files(folder: Path) -> list[str]:
    """All files below a folder, as sorted paths relative to it, with "/" between their parts.

    Hidden files and folders (`.ipynb_checkpoints`, `._photo.jpg`, `__MACOSX`) are left out. Text, not Path: a folder of
    a million images is listed several times faster.

    Raises:
        UserError: a folder may not be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be listed: {error.strerror}")

    found = []
    for path, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        prefix = os.path.relpath(path, folder).replace(os.sep, "/")
        found += [name if prefix == "." else f"{prefix}/{name}" for name in names if not is_hidden(name)]
    return sorted(found)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def load_images(paths: list[str]) -> list[Path]:
    """The image files that files, folders (searched to their depth) and globs stand for, each once, in order.

    A file named outright is taken whatever its ending.

    Raises:
        UserError: an argument stands for no image file.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            matches = [path / name for name in visible_files(path) if is_image_file(name)]
            problem = f"the folder holds no image file ({', '.join(IMAGE_SUFFIXES)})"
        elif path.exists():
            matches, problem = [path], ""
        else:
            names = sorted(glob.glob(str(path), recursive=True))
            matches = [Path(name) for name in names if is_image_file(name)]
            problem = "no image file matches this pattern" if glob.has_magic(text) else "no such file or folder"
        if not matches:
            raise UserError(f"{text}: {problem}. Expected an image, a folder of images, or a glob such as '*.jpg'.")
        found.update(dict.fromkeys(matches))
    return list(found)
