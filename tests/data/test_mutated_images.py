"""Image files changed at random: each is decoded, or refused by one message."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_accel.data.images import UnreadableImageError, decode_image
from tests.support.image_splits import noise
from tests.support.mutations import cases, changed


def encoded(form: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise((24, 20))[0]).convert(mode).save(buffer, format=form)
    return buffer.getvalue()


FILES = {form: encoded(form) for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")}
FILES |= {"GIF": encoded("GIF", "P"), "grey PNG": encoded("PNG", "L"), "PNG with a palette": encoded("PNG", "P")}


def decoded(content: bytes):
    """The pixels and None, or None and what is said instead."""
    try:
        return decode_image(content), None
    except UnreadableImageError as error:
        return None, str(error)


@pytest.mark.parametrize("form", FILES)
@cases
@given(data=st.data())
def test_a_changed_image_is_decoded_or_refused(form, data):
    content = data.draw(changed(FILES[form]))
    pixels, message = decoded(content)
    if pixels is None:
        assert message.startswith("image: cannot be read as an image: ")
        assert len(message) < 1000
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
