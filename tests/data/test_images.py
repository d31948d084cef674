"""Images of every mode become upright RGB; broken ones are refused by name; files, folders and globs are found."""

import contextlib
import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hf_accel.data import images
from hf_accel.data.images import UnreadableImageError, decode_image


def encode(image: PIL.Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(height: int = 24, width: int = 16) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8))


GREY = PIL.Image.new("RGB", (5, 4), (128, 128, 128))
GREY_IN_EVERY_MODE = {
    **{mode: GREY.convert(mode) for mode in ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")},
    **{mode: GREY.convert("LA").convert(mode) for mode in ("PA", "La")},
    **{mode: PIL.Image.new(mode, (5, 4), 128 * 257) for mode in ("I;16", "I;16B", "I;16L", "I")},
    "P": GREY.quantize(4),
    "RGBa": GREY.convert("RGBA").convert("RGBa"),
    "F": PIL.Image.new("F", (5, 4), 0.5),
    "LAB": PIL.Image.new("LAB", (5, 4), (137, 128, 128)),  # L* of 53.6 is mid grey
}


@pytest.mark.parametrize("mode", GREY_IN_EVERY_MODE)
def test_mid_grey_in_any_mode_decodes_to_mid_grey(mode, monkeypatch):
    # Not every mode has a file format, so the decoder is handed the image as PIL would open it.
    monkeypatch.setattr(PIL.Image, "open", lambda source: GREY_IN_EVERY_MODE[mode].copy())
    pixels = decode_image(b"any")
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 128).max() <= 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("P", "PNG"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("1", "TIFF")],
)
def test_files_give_what_pils_own_conversion_gives(mode, kind, tmp_path):
    encoded = encode(noise().convert(mode), kind)
    expected = np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))
    path = tmp_path / "image"
    path.write_bytes(encoded)
    for source in (encoded, path, {"bytes": encoded, "path": None}, {"bytes": None, "path": str(path)}):
        np.testing.assert_array_equal(decode_image(source), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind):
    levels = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    pixels = decode_image(encode(PIL.Image.fromarray(levels), kind))
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [100] * 3, [255] * 3]


def test_float_images_may_count_to_1_or_to_255_or_to_65535():
    for peak in (1.0, 255.0, 65535.0):
        values = np.array([[0, peak / 2, peak, np.nan]], dtype=np.float32)
        pixels = decode_image(encode(PIL.Image.fromarray(values), "TIFF"))
        assert pixels[0, :, 0].tolist() == [0, 128, 255, 0], peak


def test_transparency_is_dropped_as_pipeline_drops_it_and_without_a_warning():
    image = noise().convert("RGBA")
    image.putalpha(0)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), np.asarray(noise()))
    palette = encode(noise().quantize(8), "PNG", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(palette).shape == (24, 16, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation, kind):
    image = PIL.Image.new("RGB", (24, 16), "black")
    image.paste((255, 255, 255), (0, 0, 12, 8))  # the upper left quarter is white
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encode(image, kind, exif=exif))
    # Row and column of the white quarter after the turn that each value of the EXIF standard asks for.
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    height, width = (16, 24) if orientation <= 4 else (24, 16)
    assert pixels.shape == (height, width, 3)
    rows = slice(0, height // 2) if corner[0] == 0 else slice(height // 2, None)
    columns = slice(0, width // 2) if corner[1] == 0 else slice(width // 2, None)
    assert pixels[rows, columns].mean() > 250


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_image_with_damaged_exif_is_still_read():
    encoded = encode(noise(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12broken")
    assert decode_image(encoded).shape == (24, 16, 3)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (None, "empty"),
        ({"bytes": None, "path": None}, "empty"),
        (b"<html>404</html>", "not in an image format"),
        (encode(noise(200, 200), "JPEG")[:-2000], "truncated"),
        (encode(noise(200, 200), "PNG")[:-2000], "truncated"),
        (Path("gone.jpg"), "gone.jpg: .*No such file"),
    ],
)
def test_bytes_that_are_not_an_image_are_refused_with_the_reason(encoded, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(encoded)


def photograph(height: int = 480, width: int = 640) -> PIL.Image.Image:
    """Noise on a coarse grid: smooth between its points, as photographs are, and not the same in any corner."""
    return noise(height // 40, width // 40).resize((width, height), PIL.Image.Resampling.BICUBIC)


def levels_apart(encoded: bytes, side: int) -> int:
    """The largest difference, in levels of 255, that the reduced size makes to the image when it is shrunk."""
    sizes = {}
    for target in (None, side):
        pixels = decode_image(encoded, target_side=target)
        height, width = pixels.shape[:2]
        size = (round(width * side / min(height, width)), round(height * side / min(height, width)))
        shrunk = PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC)
        sizes[target] = pixels.shape, np.asarray(shrunk).astype(int)
    assert sizes[side][0] < sizes[None][0]
    return int(np.abs(sizes[side][1] - sizes[None][1]).max())


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        ((3000, 4000), 256, (1500, 2000)),
        ((3000, 4000), 300, (1500, 2000)),
        ((3000, 4000), 301, (3000, 4000)),
        ((3000, 4000), 75, (375, 500)),
        ((2400, 1200), 50, (600, 300)),
        ((3024, 4030), 75, (1512, 2015)),  # a quarter would have a part of a pixel
        ((3001, 4000), 75, (3001, 4000)),
        ((375, 500), 224, (375, 500)),
    ],
)
def test_a_jpeg_is_decoded_at_five_times_what_it_is_shrunk_to_or_more(size, side, decoded):
    encoded = encode(PIL.Image.new("L", size[::-1]), "JPEG")
    assert decode_image(encoded, target_side=side).shape == (*decoded, 3)
    assert decode_image(encoded).shape == (*size, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30, "subsampling": 1}])
def test_a_reduced_size_makes_no_more_than_two_levels_of_difference(mode, options):
    assert levels_apart(encode(photograph().convert(mode), "JPEG", **options), 48) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_turned_as_a_whole_one(orientation, kind):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    assert levels_apart(encode(photograph(), kind, exif=exif), 48) <= 2


def test_other_formats_are_decoded_whole():
    for kind in ("PNG", "TIFF", "WEBP"):
        assert decode_image(encode(noise(200, 200), kind), target_side=10).shape == (200, 200, 3)


def test_a_reduced_size_hides_neither_too_many_pixels_nor_a_truncated_file():
    encoded = encode(noise(200, 200), "JPEG")
    with pytest.raises(UnreadableImageError, match=r"200 x 200 pixels, more than data\.max_pixels \(39,999\)"):
        decode_image(encoded, max_pixels=39_999, target_side=10)
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_image(encoded[:-2000], target_side=10)


def test_what_pillow_refuses_as_a_bomb_is_refused_in_the_words_of_the_setting(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match=r"it has [\d,]+ pixels, more than data\.max_pixels") as refused:
        decode_image(encode(noise(), "PNG"))
    assert "bomb" not in str(refused.value)


def test_pillows_warning_of_large_images_is_not_shown():
    """In a process of its own, as pytest has its own filter of warnings. A lower limit of Pillow's stands for a large image."""
    code = (
        "import hf_accel.data.images as images, io, numpy as np, PIL.Image\n"
        "file = io.BytesIO(); PIL.Image.new('RGB', (20, 15)).save(file, 'PNG')\n"
        "PIL.Image.MAX_IMAGE_PIXELS = 200\n"
        "assert images.decode_image(file.getvalue()).shape == (15, 20, 3)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_flipped_byte_escapes_as_another_exception():
    random = np.random.RandomState(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        sound = encode(noise(), kind)
        for _ in range(60):
            broken = bytearray(sound)
            for position in random.randint(0, len(broken), 4):
                broken[position] = random.randint(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for target_side in (None, 1):
                    with contextlib.suppress(UnreadableImageError):
                        assert decode_image(bytes(broken), target_side=target_side).dtype == np.uint8


def grey(values: list[int], kind: str, dtype=np.int32) -> np.ndarray:
    """The red values of a picture of one row with these grey levels."""
    return decode_image(encode(PIL.Image.fromarray(np.array([values], dtype=dtype)), kind))[0, :, 0]


def test_32_bit_grey_of_0_to_255_keeps_its_values():
    assert grey([0, 1, 128, 255], "TIFF").tolist() == [0, 1, 128, 255]
    assert grey([0, 257, 25700, 65535], "TIFF").tolist() == [0, 1, 100, 255]
    assert grey([0, 10, 200, 255], "TIFF", np.float32).tolist() == [0, 10, 200, 255]


def test_16_bit_grey_is_scaled_by_the_range_that_its_mode_states_however_dark_it_is():
    for kind in ("PNG", "TIFF", "PPM"):
        assert grey([0, 128, 255, 257], kind, np.uint16).tolist() == [0, 0, 1, 1], kind


@pytest.mark.parametrize("values", [[0, 70_000], [-1, 255], [-1000, 3000]])
def test_32_bit_grey_without_a_known_range_is_refused_with_its_levels(values):
    with pytest.raises(
        UnreadableImageError, match=f"grey levels reach from {values[0]} to {values[1]}, expected 0..255"
    ):
        grey(values, "TIFF")


def test_the_first_deep_grey_image_is_announced_once(caplog):
    images._warn_once.cache_clear()
    for _ in range(3):
        grey([0, 65535], "PNG", np.uint16)
    (record,) = caplog.records
    assert "mode I;16" in record.getMessage()
    assert "`pipeline` would clip the levels at 255" in record.getMessage()


def test_the_content_of_a_heic_file_is_recognised_whatever_its_name(monkeypatch):
    monkeypatch.setattr(images, "HAS_HEIC", False)
    with pytest.raises(UnreadableImageError, match=r'its content is HEIC.*pip install "hf_accel\[heic\]"'):
        decode_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00broken")
