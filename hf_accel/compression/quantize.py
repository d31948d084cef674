"""An ONNX file of float32 -> one of int8, by ONNX Runtime's own quantizer.

int8: static, in the QDQ format. Weights are int8, symmetric and per output channel; activations are uint8 with a range that
was seen on calibration images (smallest to largest). uint8 because ONNX Runtime's kernels for x86 multiply uint8 by int8 with
the VNNI instructions; int8 activations run no faster than float32 there. In a network of convolutions every operation that
has an int8 kernel takes part; in one with LayerNorm or softmax only convolutions and matrix products with a weight, because
the additions of its residual stream, normalised values and attention scores lose too much in 8 bits.

int8_dynamic: only matrix products with a weight; the range of an activation is taken from each batch. Convolutions stay
float32, as ONNX Runtime's guide advises.

A model that was trained for int8 brings the ranges of its layers' inputs. Then only these layers take part (and the
activations that the quantizer merges with them), and linear layers end in float32, as in training.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hf_accel.methods.quantization_aware import Range
from hf_accel.models.exported import INPUT

LINEAR = ("MatMul", "Gemm")
MERGED = ("Relu", "Clip")  # with the convolution before them
DELICATE = {"LayerNormalization", "Softmax"}  # operations of a transformer


def quantize_static(
    file: Path, target: Path, pixel_values: Iterable[np.ndarray], ranges: dict[str, Range] | None = None
) -> None:
    """Write the int8 form of a file.

    Args:
        file: a float32 ONNX file, batch norm folded into the convolutions.
        pixel_values: (B, 3, H, W) float32 each, of training images.
        ranges: tensor -> range that was learned in training, in place of that of the images.
    """
    from onnxruntime import quantization

    with _optimised(file) as optimised:
        operations, excluded, options = _quantized_operations(optimised, ranges)
        quantization.quantize_static(
            optimised,
            target,
            _Reader(pixel_values),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=operations,
            nodes_to_exclude=excluded,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options=options,
        )
    _finish(file, target)


def quantize_dynamic(file: Path, target: Path) -> None:
    """Write the form of a file whose linear layers are int8 and take the range of an activation from each batch."""
    from onnxruntime import quantization

    with _optimised(file) as optimised:
        quantization.quantize_dynamic(
            optimised,
            target,
            op_types_to_quantize=list(LINEAR),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    _finish(file, target)


def _quantized_operations(
    file: Path, ranges: dict[str, Range] | None
) -> tuple[list[str] | None, list[str], dict[str, Any]]:
    """The kinds of operations that become int8 (None: all that the quantizer knows), nodes that do not, and options."""
    import onnx

    graph = onnx.load(file).graph
    if ranges is None and not any(node.op_type in DELICATE for node in graph.node):
        return None, [], {}
    weights = {tensor.name for tensor in graph.initializer}
    of_activations = [node.name for node in graph.node if node.op_type == "MatMul" and not weights & set(node.input)]
    options: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": list(LINEAR)}
    if ranges is None:
        return ["Conv", *LINEAR], of_activations, options
    options["TensorQuantOverrides"] = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()
    }
    return ["Conv", *LINEAR, *MERGED], of_activations, options


class _Reader:
    """See onnxruntime.quantization.CalibrationDataReader."""

    def __init__(self, pixel_values: Iterable[np.ndarray]) -> None:
        self.batches = iter(pixel_values)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


@contextmanager
def _optimised(file: Path) -> Iterator[Path]:
    """The file as the quantizer wants it: operations fused, constants folded, shapes inferred."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        optimised = Path(scratch) / file.name
        quant_pre_process(file, optimised, skip_symbolic_shape=True)  # the exporter knows the symbolic shapes
        yield optimised


def _finish(file: Path, target: Path) -> None:
    """Give the quantized file what the float32 one says of itself, and each constant once."""
    import onnx

    source, model = onnx.load(file), onnx.load(target)
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    first: dict[bytes, str] = {}
    names: dict[str, str] = {}
    for tensor in list(model.graph.initializer):
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        names[tensor.name] = first.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
        if names[tensor.name] != tensor.name:
            model.graph.initializer.remove(tensor)
    for node in model.graph.node:
        node.ClearField("metadata_props")  # they would be a twentieth of a small network
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, target)
