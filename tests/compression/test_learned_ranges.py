"""The int8 file of a model that was trained for int8."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel import compress
from hf_accel.compression.learned_ranges import ranges_of_tensors, share_as_trained
from hf_accel.config.recipe import load_recipe
from hf_accel.methods.quantization_aware import load_ranges, rounded_layers, roundings
from hf_accel.models.exported import Exported
from hf_accel.report.run_report import RunReport
from hf_accel.tasks import TASKS
from hf_accel.train import train
from tests.support.onnx_files import VIT, loaded_model, write_exported

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("model", "shared"), [({}, 2), (VIT, 0)], ids=["convolutions", "transformer"])
def test_every_layer_is_found_in_the_file(tiny_recipe, tmp_path, model, shared):
    """Of a residual block that changes the size, the first convolution and that of the shortcut read the same tensor."""
    loaded = loaded_model(tiny_recipe({"model": model}))
    file = write_exported(loaded, tmp_path)
    layers = list(rounded_layers(loaded.model))
    ranges = {name: (float(number), number + 1.0) for number, name in enumerate(layers)}
    found = ranges_of_tensors(file, ranges)
    assert found["pixel_values"] == ranges[layers[0]]
    assert len(found) == len(layers) - shared, set(ranges.values()) - set(found.values())
    assert set(found.values()) <= set(ranges.values())
    assert ranges_of_tensors(file, {}) == {}


@pytest.fixture(scope="module")
def trained_for_int8(tmp_path_factory):
    """ResNet of eight layers that knows the digits."""
    overrides = {
        "model": {"args": {"depth": 8, "width": 8}, "channels_last": False},
        "data": {"name": "digits", "image_size": 16, "augment": {"crop": "none", "flip": False}},
        "training": {"per_device_train_batch_size": 64, "num_train_epochs": 5, "learning_rate": 0.1, "bf16": False,
                     "quantization": {}, "output_dir": str(tmp_path_factory.mktemp("int8") / "run")},
    }  # fmt: skip
    return train(load_recipe("resnet20_cifar10", overrides=overrides))


def test_the_int8_file_answers_as_the_model_did_in_training(trained_for_int8, capsys):
    """With the scales of training, on at least 99 % of the images."""
    import onnx

    assert compress.main([str(trained_for_int8), "--formats", "int8", "--keep", "--images", "359"]) == 0
    assert "int8: with the ranges of training" in capsys.readouterr().out
    exported, ranges = trained_for_int8 / "exported", load_ranges(trained_for_int8 / "model")
    file = Exported(exported / "onnx" / "model_quantized.onnx")
    recipe = load_recipe(trained_for_int8 / "recipe.yaml")
    task = TASKS[recipe.model.task]
    test = task.open_splits(recipe.data, 42).test
    loaded = task.load_trained(str(trained_for_int8 / "model"), None)
    assert share_as_trained(loaded, ranges, file, (test.read(row) for row in range(len(test)))) >= 0.99

    graph = onnx.load(file.file).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantized = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    for tensor, bounds in ranges_of_tensors(exported / "onnx" / "model.onnx", ranges).items():
        (scale,), (zero,) = roundings(torch.tensor([bounds]))
        np.testing.assert_allclose(values[quantized[tensor].input[1]], scale, rtol=1e-6)
        assert values[quantized[tensor].input[2]] == zero

    report, rows = RunReport.load(trained_for_int8), json.loads((exported / "compress.json").read_text())["rows"]
    (int8,) = (row for row in rows if row["format"] == "int8")
    assert report.test.accuracy > 0.95
    assert int8["accuracy"] == pytest.approx(report.quantization.test_accuracy, abs=0.01)
