"""Image files and encoded bytes -> RGB pixels.

Transparency is dropped, not blended, because `convert("RGB")` is what `pipeline("image-classification")` does with the
same file later: the model must be trained on what it will be shown. Only grey levels beyond 8 bits are treated
differently: PIL clips them, which turns most of a 16-bit picture white, so they are scaled, and a note says so.

A JPEG that is going to be shrunk several times is decoded at 1/2, 1/4 or 1/8 of its size: libjpeg then makes the mean of
each square of pixels in place of the pixels.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image

from hf_accel.data.arrays import is_array_file, read_array
from hf_accel.errors import UserError

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # width x height; the size from which Pillow, too, refuses an image as a decompression bomb
# Pillow warns from half of that number on. The limit here is `data.max_pixels`, which is checked before anything is decoded,
# so the warning would only be a line among the results. Its own refusal stays: it also sees what a header does not say.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
HEIC_EXTRA = 'pip install "hf_accel[heic]"'
HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None
if HAS_HEIC:  # in every process that decodes: a spawned DataLoader worker imports this file
    import pillow_heif

    pillow_heif.register_heif_opener()

IMAGE_SUFFIXES = (
    *((".avif",) if PIL.features.check("avif") else ()),
    *(".bmp", ".gif"),
    *((".heic", ".heics", ".heif", ".heifs", ".hif") if HAS_HEIC else ()),
    ".jfif",
    *((".j2k", ".jp2", ".jpf", ".jpx") if PIL.features.check("jpg_2000") else ()),
    *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# How many times larger than what it is shrunk to an image stays when it is decoded at a reduced size. Measured on photographs
# of 12 megapixels, bilinear and bicubic: at 5 the shrunk image differs by 1 or 2 levels of 255, at 4 by 3, at 3 by 4.
REDUCED_TIMES = 5
_MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode, to which every image can be converted
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


DEEP_GREY_SCALING = (
    "0..65535 is scaled to 0..255, values that end at 255 (or at 1) are taken as they are (or times 255)"
)


class UnreadableImageError(UserError):
    """An image that cannot be decoded. `reason` is the message without the name of the image."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: cannot be read as an image: {reason}")
        self.where, self.reason = where, reason

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[str, str]]:
        return type(self), (self.where, self.reason)  # an exception is copied to another process by its arguments


def decode_image(
    encoded: dict | bytes | Path | None,
    max_pixels: int | None = MAX_PIXELS,
    target_side: int | None = None,
    channels: int = 3,
) -> np.ndarray:
    """Decode one image of any PIL mode, upright.

    Args:
        encoded: the bytes of an image file, its path, or a row of an `Image(decode=False)` column
            ({"bytes", "path"}).
        max_pixels: width x height from which an image is refused, by its header: a few KB may hold gigabytes of pixels.
            None: any size. A limit above Pillow's own switches that off in this process.
        target_side: pixels to which the caller will shrink the short side, or less. None: the image is wanted whole.
        channels: 3 is RGB, 1 is grey; others are those of an image, or of an array in a .npy file, that has as many.
    Returns:
        (H, W, channels) uint8; of an animation the first frame. With `target_side`, both sides may be divided by 2, 4 or 8;
        their ratio stays as it is.
    Raises:
        UnreadableImageError: missing, truncated, not an image, too large, or of grey levels without a known range.
    """
    is_row = isinstance(encoded, dict)
    if isinstance(encoded, dict):
        encoded = Path(encoded["path"]) if encoded["bytes"] is None and encoded["path"] else encoded["bytes"]
    where = str(encoded) if isinstance(encoded, Path) else "image"
    if not encoded:
        raise UnreadableImageError(where, "it is empty: its row holds no bytes" if is_row else "it is empty")
    if max_pixels is None or max_pixels > MAX_PIXELS:
        PIL.Image.MAX_IMAGE_PIXELS = None
    try:
        if isinstance(encoded, Path) and is_array_file(encoded):
            return read_array(encoded, channels, max_pixels)
        with _open(encoded) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ValueError(_too_large(f"{image.width} x {image.height}", max_pixels))
            if target_side is not None and image.format in ("JPEG", "MPO"):
                _reduce(image, REDUCED_TIMES * target_side)
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            image = with_channels(image, channels)
            pixels = np.array(image if turn is None else image.transpose(turn))
            return pixels[:, :, None] if pixels.ndim == 2 else pixels
    except MemoryError:
        raise
    except Exception as error:  # on broken files PIL's decoders raise OSError, SyntaxError, struct.error, ValueError...
        reason = _pillow_refusal(error, max_pixels) or _reason(error, encoded)
        raise UnreadableImageError(where, reason) from error


def _open(encoded: bytes | Path) -> PIL.Image.Image:
    if isinstance(encoded, bytes):
        return PIL.Image.open(io.BytesIO(encoded))
    if not stat.S_ISREG(os.stat(encoded).st_mode):  # a pipe or a device would never end
        raise ValueError("it is not a regular file")
    return PIL.Image.open(encoded)


def _reduce(image: PIL.Image.Image, least: int) -> None:
    """Have a JPEG decoded at a reduced size whose short side is at least `least` pixels.

    Both sides must be divisible: the last column of others stands for a part of a pixel, and they would change their ratio.
    """
    for times in (8, 4, 2):
        width, height = image.width // times, image.height // times
        if min(width, height) >= least and (width * times, height * times) == image.size:
            image.draft(None, (width, height))
            return


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF next to sound pixels is common, and costs no more than the rotation
        return 1


def with_channels(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """An image of so many channels of 8 bits: RGB, grey, or its own.

    Raises:
        ValueError: neither three nor one are asked for, and it has another number.
    """
    if is_deep_grey(image):
        _warn_once(image.mode)
        image = _grey(_eight_bits(image))
    if image.mode == "La":  # grey with premultiplied alpha: PIL has no direct way to RGB
        image = image.convert("LA")
    if channels not in _MODES:
        if len(image.getbands()) != channels or image.mode in ("P", "PA"):
            raise ValueError(f"it has the channels {', '.join(image.getbands())}, and data.channels is {channels}")
        return image
    if image.mode == _MODES[channels]:
        return image
    # A palette with several transparent entries makes `convert` warn for each file.
    image.info.pop("transparency", None)
    return image.convert(_MODES[channels])


def is_deep_grey(image: PIL.Image.Image) -> bool:
    """Whether an image has grey levels of more than 8 bits, which `pipeline` clips and this package scales."""
    return image.mode.startswith("I") or image.mode == "F"  # "I;16" and its byte orders; 32 bits are "I"


def has_deep_grey(encoded: dict | None) -> bool:
    """`is_deep_grey` of a row of an image column, by its header; False where that cannot be read."""
    source = encoded and (encoded["bytes"] or (Path(encoded["path"]) if encoded["path"] else None))
    if not source:
        return False
    try:
        with _open(source) as image:
            return is_deep_grey(image)
    except Exception:  # unreadable: reported when it is read
        return False


def _eight_bits(image: PIL.Image.Image) -> np.ndarray:
    """Grey levels on the scale 0..255, float.

    The mode states 16 bits (and Pillow brings a PGM to them, in mode I). The range of 32-bit integers and floats is not
    written in a file: it is taken to be the smallest of 0..1 (floats), 0..255 and 0..65535 that holds the values.

    Raises:
        ValueError: there is no such range.
    """
    levels = np.asarray(image)
    if image.mode.startswith("I;16") or image.format == "PPM":
        return levels / 257
    if image.mode == "F":
        levels = np.nan_to_num(levels)
    least, peak = levels.min(), levels.max()
    if image.mode == "I" and not 0 <= least <= peak <= 65535:
        raise ValueError(
            f"its grey levels reach from {least} to {peak}, expected 0..255 or 0..65535: convert it to 8 or 16 bits"
        )
    if image.mode == "F" and peak <= 1:
        return levels * 255
    return levels if peak <= 255 else levels / 257


@functools.cache
def _warn_once(mode: str) -> None:
    logger.warning(
        "Images with grey levels of more than 8 bits (Pillow's mode %s): %s. `pipeline` would clip the levels at 255: "
        "give it 8-bit images",
        mode,
        DEEP_GREY_SCALING,
    )


def _grey(levels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _too_large(pixels: str, max_pixels: int) -> str:
    return f"it has {pixels} pixels, more than data.max_pixels ({max_pixels:,}) allows"


def _pillow_refusal(error: Exception, max_pixels: int | None) -> str | None:
    """The reason in the words of the setting where Pillow refused an image; None: the error is another one."""
    if not isinstance(error, PIL.Image.DecompressionBombError):
        return None
    pixels = re.search(r"\d+", str(error))
    return _too_large(f"{int(pixels[0]):,}" if pixels else "too many", max_pixels or MAX_PIXELS)


def _reason(error: Exception, encoded: bytes | Path) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return _unidentified(encoded)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _unidentified(encoded: bytes | Path) -> str:
    if isinstance(encoded, bytes):
        start = encoded[:12]
    else:
        with open(encoded, "rb") as file:
            start = file.read(12)
    is_heic = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
    if is_heic and not HAS_HEIC:
        return f"its content is HEIC, whatever its name: {HEIC_EXTRA}"
    return "its content is not in an image format that Pillow knows"
