"""How far the pixels of an evaluation are from those that a processor makes."""

import functools

import PIL.Image
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import ImageSplit, load_splits
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_evaluation_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.transforms.pipeline import EvalTransform

TWO_LEVELS = 2 + 1e-3  # the promise, and float32


@functools.cache
def real_images(name: str) -> ImageSplit:
    return load_splits(DataSettings(name=name, max_test_rows=12), seed=0).test


def levels_off(processor, name: str) -> float:
    """Largest difference from the processor, in levels of 255, over some test images of a data set."""
    split = real_images(name)
    preprocessing = Preprocessing.of(processor)
    pixels = open_evaluation_pixels(split, DataSettings(name=name), preprocessing)
    ours = EvalTransform(preprocessing)(ImageBatches(split, pixels).__getitems__(list(range(len(split)))))
    originals = [PIL.Image.fromarray(split.read(row)) for row in range(len(split))]
    theirs = torch.stack([processor([image], return_tensors="pt")["pixel_values"][0] for image in originals])
    std = torch.tensor(preprocessing.std)[:, None, None]
    assert ours["pixel_values"].dtype == torch.float32
    return float(((ours["pixel_values"] - theirs).abs() * std).max() * 255)
