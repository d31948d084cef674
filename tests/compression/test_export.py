"""A model as an ONNX file: the same answers, what the file says of itself, and what is refused."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import ViTImageProcessor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel.compression import export
from hf_accel.compression.answers import answers
from hf_accel.compression.export import recorded_preprocessing
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.models.confidence import Confidence, remember, softmax
from hf_accel.models.exported import EXPORTED_MODEL, Exported, exported_file, preprocessing_from, preprocessing_to
from hf_accel.models.load import LoadedModel
from tests.support.onnx_files import VIT, loaded_model, noise_images, write_exported


@pytest.fixture
def loaded(tiny_recipe) -> LoadedModel:
    return loaded_model(tiny_recipe())


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, VIT], ids=["convolutions", "transformer"])
def test_the_file_gives_the_logits_of_the_model_for_any_batch_size(tiny_recipe, tmp_path, model):
    loaded = loaded_model(tiny_recipe({"model": model}))
    exported = Exported(write_exported(loaded, tmp_path))
    assert exported.label_names == ["blue", "rouge é"]
    for size in (1, 2, 5):
        pixel_values = torch.randn(size, 3, 16, 16)
        with torch.inference_mode():
            expected = loaded.model(pixel_values=pixel_values).logits.numpy()
        np.testing.assert_allclose(exported.logits(pixel_values.numpy()), expected, atol=1e-5)
    forms = {("torch", "fp32"): loaded.model}, {("onnxruntime", "fp32"): exported}
    agreement = answers(loaded, *forms, noise_images(33)).agreement
    assert agreement.images == 33
    assert agreement.same_answers == 1
    assert agreement.largest_difference < 1e-5 < agreement.largest_logit


@pytest.mark.slow
def test_the_file_prepares_an_image_as_the_models_own_processor_does(tiny_recipe, tmp_path):
    loaded = loaded_model(tiny_recipe())
    size = {"height": 16, "width": 16}
    loaded.processor = ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    _, notes = recorded_preprocessing(loaded)
    assert len(notes) == (Preprocessing.of(loaded.processor, closest=True).resizer == "torchvision")
    exported = Exported(write_exported(loaded, tmp_path))
    for pixels in noise_images(5):
        got = exported.prepare(pixels)["pixel_values"]
        expected = loaded.processor(images=[PIL.Image.fromarray(pixels)], return_tensors="np")["pixel_values"]
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() * 255 * 0.6 <= 2.01  # levels


def test_a_preprocessing_is_the_same_after_json(loaded):
    preprocessing = Preprocessing.of(loaded.processor)
    assert preprocessing_from(json.loads(json.dumps(preprocessing_to(preprocessing)))) == preprocessing


def test_a_processor_that_only_itself_can_run_is_refused(loaded, monkeypatch):
    whole = Preprocessing(16, 16, None, "bilinear", (0.5,) * 3, (0.5,) * 3, processor=loaded.processor)
    monkeypatch.setattr(export.Preprocessing, "of", lambda processor, closest: whole)
    with pytest.raises(UserError, match="in a way that cannot be recorded in an ONNX file"):
        recorded_preprocessing(loaded)


@pytest.mark.slow
def test_the_file_does_not_tell_where_the_code_of_its_layers_lies(loaded, tmp_path):
    content = write_exported(loaded, tmp_path).read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


@pytest.mark.slow
def test_the_file_holds_what_the_model_has_learned_about_its_answers(loaded, tmp_path):
    assert not Exported(write_exported(loaded, tmp_path / "before")).confidence.is_learned
    learned = Confidence(temperature=1.5, unsure_below=0.8, unlike_below=None)
    remember(loaded.model.config, learned)
    assert Exported(write_exported(loaded, tmp_path / "after")).confidence == learned


def test_probabilities_are_the_softmax_of_the_logits(monkeypatch):
    exported = object.__new__(Exported)
    monkeypatch.setattr(Exported, "logits", lambda self, pixel_values: np.array([[1000.0, 1001.0], [0, 0]], np.float32))
    inputs = [{"pixel_values": np.zeros((1, 3, 4, 4), np.float32)}] * 2
    expected = [[1 / (1 + np.e), np.e / (1 + np.e)], [0.5, 0.5]]
    np.testing.assert_allclose(softmax(exported.score(inputs)), expected, rtol=1e-6)


def test_a_file_of_other_origin_or_damaged_is_refused(tmp_path):
    import onnx

    file = tmp_path / EXPORTED_MODEL
    file.parent.mkdir()
    file.write_bytes(b"no")
    assert exported_file(tmp_path) == file
    with pytest.raises(UserError, match="cannot be opened by ONNX Runtime"):
        Exported(file)
    value = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Constant", [], ["logits"], value_floats=[0.0])
    graph = onnx.helper.make_graph([node], "other", [], [value])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    with pytest.raises(UserError, match="does not say which classes it knows"):
        Exported(file)
    (tmp_path / "model.safetensors").touch()
    assert exported_file(tmp_path) is None
    assert exported_file(file) == file, "by its own path, whatever stands next to it"
