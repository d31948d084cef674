"""An ONNX file whose weights are stored in 16 bits and computed with in float32.

ONNX Runtime has hardly any kernel for fp16 or bf16 on a CPU, so a cast to float32 follows each weight; it is done once, when
the file is opened. The file is half as large and as fast as the float32 one, on any device and in any runtime.
"""

from __future__ import annotations

from pathlib import Path

import torch


def narrow_weights(file: Path, target: Path, dtype: torch.dtype) -> None:
    """Write the file with its weights in torch.float16 or torch.bfloat16; biases and other vectors stay float32.

    A weight beyond the range of fp16 becomes infinite there, which shows in the accuracy.
    """
    import onnx

    stored_type = {torch.float16: onnx.TensorProto.FLOAT16, torch.bfloat16: onnx.TensorProto.BFLOAT16}[dtype]
    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()).to(dtype)
        name, stored = tensor.name, f"{tensor.name}_stored"
        raw = values.view(torch.int16).numpy().tobytes()
        tensor.CopyFrom(onnx.helper.make_tensor(stored, stored_type, list(values.shape), raw, raw=True))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)
