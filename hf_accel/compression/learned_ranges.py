"""A model that was trained for int8: its ranges as ONNX Runtime's quantizer takes them, and whether the file is what it saw.

Training rounds the weights and the input of each linear layer and convolution (methods/quantization_aware.py). In the file the
quantizer also rounds the outputs of convolutions, because a convolution that ends in float32 does not run as int8; an
output that no layer reads directly has the range of the calibration. Linear layers end in float32.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_accel.compression.answers import in_batches, torch_logits
from hf_accel.compression.export import SCOPES
from hf_accel.methods.quantization_aware import Range, as_int8
from hf_accel.models.exported import INPUT, Exported
from hf_accel.models.load import LoadedModel

if TYPE_CHECKING:
    from onnx import NodeProto

NETWORK = "model"  # of export.Logits, whose layers the file names
ROUNDED = ("Conv", "MatMul", "Gemm")


def ranges_of_tensors(file: Path, ranges: dict[str, Range]) -> dict[str, Range]:
    """The ranges of a model's layers as those of the tensors that the layers of its float32 file read.

    Args:
        ranges: layer -> range of its input.
    """
    import onnx

    nodes = [node for node in onnx.load(file, load_external_data=False).graph.node if node.op_type in ROUNDED]
    found = ((node.input[0], ranges[layer]) for node in nodes for layer in _layers_of(node) if layer in ranges)
    return dict(found)


def share_as_trained(
    loaded: LoadedModel, ranges: dict[str, Range], exported: Exported, images: Iterable[np.ndarray]
) -> float:
    """The share of images to which the int8 file gives the class that the model gives with rounding.

    Args:
        images: (H, W, 3) uint8 RGB each; at least one.
    """
    same: list[np.ndarray] = []
    for batch in in_batches(images):
        pixel_values = np.concatenate([exported.prepare(pixels)[INPUT] for pixels in batch])
        with as_int8(loaded.model, ranges):
            trained = torch_logits(loaded.model, torch.from_numpy(pixel_values)).argmax(-1).numpy()
        same.append(exported.logits(pixel_values).argmax(-1) == trained)
    return float(np.concatenate(same).mean())


def _layers_of(node: NodeProto) -> Iterator[str]:
    """Names that a node may have as a layer: by its weight, or by the modules that it comes from."""
    yield from (name.removeprefix(f"{NETWORK}.").removesuffix(".weight") for name in node.input[1:2])
    scopes: list[Any] = ast.literal_eval(
        next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    )
    yield from (scope.removeprefix(f"{NETWORK}.") for scope in reversed(scopes))
