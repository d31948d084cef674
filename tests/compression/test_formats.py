"""Files of other formats, made from the float32 one: what is stored, what they answer, and what they say of themselves."""

import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx

from hf_accel.compression import formats
from hf_accel.compression.formats import FILES, write_format
from hf_accel.compression.quantize import quantize_static
from hf_accel.data.images import decode_image
from hf_accel.errors import UserError
from hf_accel.models.exported import EXPORTED_MODEL, Exported
from hf_accel.tasks import TASKS
from tests.support.onnx_files import VIT, loaded_model, noise_images, write_exported

# depthwise convolutions, ReLU6
MOBILE = {"name": "timm/test_efficientnet", "channels_last": False, "args": {"act_layer": "relu6"}}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Networks that are exported already, by their settings."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def folder(tiny_recipe, tmp_path, request, exports):
    """An exported network."""
    model = getattr(request, "param", {})
    kept = exports / model.get("name", "tiny").replace("/", "-")
    if not kept.exists():
        write_exported(loaded_model(tiny_recipe({"model": model})), kept)
    return shutil.copytree(kept, tmp_path / "exported")


def calibration(folder):
    exported = Exported(folder / EXPORTED_MODEL)
    return lambda: (exported.prepare(pixels)["pixel_values"] for pixels in noise_images(8))


def written(folder, form) -> Exported:
    return Exported(write_format(form, folder, calibration(folder)), threads=1)


def logits_of(exported: Exported, size: int = 5) -> np.ndarray:
    return exported.logits(np.concatenate([exported.prepare(pixels)["pixel_values"] for pixels in noise_images(size)]))


def operations(file) -> dict[str, list]:
    found: dict[str, list] = {}
    for node in onnx.load(file).graph.node:
        found.setdefault(node.op_type, []).append(node)
    return found


@pytest.mark.parametrize("folder", [{}, VIT, MOBILE], ids=["convolutions", "transformer", "depthwise"], indirect=True)
@pytest.mark.parametrize(("form", "tolerance"), [("int8", 0.15), ("int8_dynamic", 0.1), ("fp16", 2e-3), ("bf16", 2e-2)])
def test_a_file_answers_as_the_float32_one_and_says_the_same_of_itself(folder, form, tolerance):
    reference, exported = Exported(folder / EXPORTED_MODEL), written(folder, form)
    expected = logits_of(reference)
    assert exported.label_names == reference.label_names == ["blue", "rouge é"]
    assert exported.preprocessing == reference.preprocessing
    difference = np.abs(logits_of(exported) - expected).max()
    assert 0 < difference <= tolerance * max(1.0, np.abs(expected).max())
    assert logits_of(exported, 1).shape == (1, 2)  # any batch size


def test_int8_has_weights_of_one_scale_per_channel_and_leaves_no_other_files(folder):
    written(folder, "int8")
    graph = onnx.load(folder / FILES["int8"]).graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8}
    scales = [tensor for tensor in graph.initializer if "weight_scale" in tensor.name]
    assert scales
    assert all(len(tensor.dims) == 1 for tensor in scales)
    assert len({tensor.name for tensor in graph.initializer}) == len(graph.initializer)
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == ["model.onnx", "model_quantized.onnx"]


@pytest.mark.parametrize("folder", [VIT], indirect=True)
def test_what_is_not_a_product_with_weights_stays_float32_in_a_transformer(folder):
    written(folder, "int8")
    found = operations(folder / FILES["int8"])
    made = {name: node.op_type for nodes in found.values() for node in nodes for name in node.output}

    def int8_inputs(kind: str) -> list[list[bool]]:
        return [[made.get(name) == "DequantizeLinear" for name in node.input] for node in found[kind]]

    assert [True, True] in int8_inputs("MatMul")
    assert [False, False] in int8_inputs("MatMul")  # of two activations
    assert [True, False] not in int8_inputs("MatMul")
    for kind in ("LayerNormalization", "Softmax", "Add", "Mul"):
        assert not any(map(any, int8_inputs(kind)))


def test_int8_dynamic_leaves_convolutions_as_they_are(folder):
    written(folder, "int8_dynamic")
    found = operations(folder / FILES["int8_dynamic"])
    assert "Conv" in found
    assert "ConvInteger" not in found
    assert "MatMulInteger" in found


@pytest.mark.parametrize(("form", "kind"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_weights_take_half_the_space_and_are_rounded_to_nearest(folder, form, kind):
    written(folder, form)
    before, after = (onnx.load(folder / file).graph for file in (EXPORTED_MODEL, FILES[form]))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in before.initializer}
    stored = [tensor for tensor in after.initializer if tensor.data_type == onnx.TensorProto.DataType.Value(kind)]
    assert len(stored) == sum(value.ndim > 1 for value in values.values() if value.dtype == np.float32)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[form]
    for tensor in stored:
        expected = torch.from_numpy(values[tensor.name.removesuffix("_stored")].copy()).to(dtype)
        assert tensor.raw_data == expected.view(torch.int16).numpy().tobytes()


def test_zero_weights_stay_zero(tiny_recipe, tmp_path):
    loaded = loaded_model(tiny_recipe())
    layers = [layer for layer in loaded.model.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.weight[:, ::2] = 0
    write_exported(loaded, tmp_path)
    for form in FILES:
        written(tmp_path, form)
        graph = onnx.load(tmp_path / FILES[form]).graph
        zeros = sum(int((onnx.numpy_helper.to_array(t) == 0).sum()) for t in graph.initializer if len(t.dims) == 4)
        assert zeros >= sum(int((layer.weight == 0).sum()) for layer in layers)


def test_a_network_that_cannot_be_quantized_is_refused_in_words(folder, monkeypatch):
    def broken(*_):
        raise ValueError("no\nkernel")

    monkeypatch.setattr(formats, "quantize_static", broken)
    with pytest.raises(UserError, match="int8: ONNX Runtime cannot quantize this network: no kernel"):
        written(folder, "int8")


def test_a_trained_depthwise_network_keeps_its_answers_in_int8(data_dir, tmp_path):
    loaded = TASKS["image-classification"].load_trained(data_dir / "mobilenetv2_100")
    write_exported(loaded, tmp_path)
    reference = Exported(tmp_path / EXPORTED_MODEL, threads=1)
    photographs = sorted((data_dir / "hymenoptera" / "val").glob("*/*.jpg"))
    inputs = np.stack([reference.preprocessing.pixel_values(decode_image(path)) for path in photographs[::3]])
    quantize_static(tmp_path / EXPORTED_MODEL, tmp_path / FILES["int8"], [inputs[::2]])
    small = Exported(tmp_path / FILES["int8"], threads=1)
    same = reference.logits(inputs[1::2]).argmax(-1) == small.logits(inputs[1::2]).argmax(-1)
    assert len(same) >= 20
    assert same.mean() >= 0.85, same.mean()
    assert small.file.stat().st_size <= 0.30 * reference.file.stat().st_size
