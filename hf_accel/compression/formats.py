"""The files of an exported folder: one per format, all made from the float32 one.

The names are those by which transformers.js chooses: dtype fp32, q8, int8 and fp16 (it has none for bf16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from hf_accel.compression.learned_ranges import ranges_of_tensors
from hf_accel.compression.narrow import narrow_weights
from hf_accel.compression.quantize import quantize_dynamic, quantize_static
from hf_accel.config.compression_settings import Format
from hf_accel.errors import UserError
from hf_accel.methods.quantization_aware import Range
from hf_accel.models.exported import EXPORTED_MODEL

FILES: dict[Format, Path] = {
    "int8": EXPORTED_MODEL.with_name("model_quantized.onnx"),
    "int8_dynamic": EXPORTED_MODEL.with_name("model_int8.onnx"),
    "fp16": EXPORTED_MODEL.with_name("model_fp16.onnx"),
    "bf16": EXPORTED_MODEL.with_name("model_bf16.onnx"),
}


def write_format(
    form: Format,
    folder: Path,
    calibration: Callable[[], Iterable[np.ndarray]],
    ranges: dict[str, Range] | None = None,
) -> Path:
    """Write the file of one format next to the float32 one; returns it.

    Args:
        calibration: gives batches of training images, (B, 3, H, W) float32 each.
        ranges: of the layers' inputs, of a model that was trained for int8.
    Raises:
        UserError: the network has an operation that ONNX Runtime cannot quantize.
    """
    source, target = folder / EXPORTED_MODEL, folder / FILES[form]
    if form in ("fp16", "bf16"):
        narrow_weights(source, target, {"fp16": torch.float16, "bf16": torch.bfloat16}[form])
        return target
    try:
        if form == "int8":
            learned = None if ranges is None else ranges_of_tensors(source, ranges)
            quantize_static(source, target, calibration(), learned)
        else:
            quantize_dynamic(source, target)
    except UserError:  # an image that cannot be read
        raise
    except Exception as error:  # the quantizer has no exceptions of its own
        text = " ".join(str(error).split())
        raise UserError(f"{form}: ONNX Runtime cannot quantize this network: {text[:300]}") from error
    return target
