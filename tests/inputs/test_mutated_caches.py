"""Cache files changed at random, before they are opened and while they are: the pixels are right, or one message comes."""

import pathlib
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_accel.config.sections import DataSettings
from hf_accel.errors import RunError
from hf_accel.inputs.cache import open_pixels
from tests.support.image_splits import make_split, noise
from tests.support.mutations import cases, changed

pytestmark = pytest.mark.slow

SPLIT = make_split(noise(*[(10 + n, 14 - n) for n in range(4)]))
ROWS = np.arange(4)


def opened(folder):
    return open_pixels(
        SPLIT, DataSettings(name="made", cache="disk", cache_dir=folder), short_side=8, preprocessing=None
    )


def pixels_of(store):
    """The pixels of all rows and None, or None and what is said instead."""
    try:
        return store.batch(ROWS)[0], None
    except RunError as error:
        return None, str(error)


@pytest.mark.parametrize("name", ["pixels.bin", "index.npy", "manifest.json"])
@cases
@given(data=st.data(), while_open=st.booleans())
def test_a_changed_cache_gives_the_right_pixels_or_one_message_and_then_the_right_pixels(name, data, while_open):
    with tempfile.TemporaryDirectory() as place:
        store = opened(place)
        whole = store.batch(ROWS)[0]
        (file,) = pathlib.Path(place).glob(f"*/{name}")
        before = set(pathlib.Path(place).rglob("*"))
        file.write_bytes(data.draw(changed(file.read_bytes())))
        found, message = pixels_of(store if while_open else opened(place))
        assert "the cache of decoded images is damaged" in message if found is None else torch.equal(found, whole)
        assert torch.equal(opened(place).batch(ROWS)[0], whole)
        assert set(pathlib.Path(place).rglob("*")) == before
