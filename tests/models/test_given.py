"""Models that a Python caller brings."""

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification
from transformers.models.bit.image_processing_bit import BitImageProcessor

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.given import adopt_model, classes_of_model, describe_model, model_to_predict
from hf_accel.models.head import known_labels
from hf_accel.models.load import load_trained
from tests.support.given_rows import NAMES, small_network, small_vit

SETTINGS = ModelSettings(name="not read")
IMAGES = torch.rand(2, 3, 16, 16)


def adopted(model, **more):
    return adopt_model(model, SETTINGS, NAMES, **more)


def test_a_classifier_of_transformers_keeps_its_object_and_gets_the_names_and_a_processor(tmp_path):
    model = small_vit()
    loaded = adopted(model)
    assert loaded.model is model
    assert known_labels(model.config) == NAMES
    assert loaded.image_size == 16
    assert "no processor is given: the default of vit is used" in loaded.notes
    model.save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    again = load_trained(tmp_path)
    assert known_labels(again.model.config) == NAMES
    torch.testing.assert_close(again.model(pixel_values=IMAGES).logits, model.eval()(pixel_values=IMAGES).logits)


@pytest.mark.parametrize(
    ("name", "arguments"), [("resnet18", {}), ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 16})]
)
def test_a_timm_network_is_saved_as_a_model_that_transformers_loads_alone(name, arguments, tmp_path):
    network = timm.create_model(name, num_classes=2, **arguments)
    loaded = adopted(network)
    assert loaded.model.timm_model is network
    loaded.model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(pixel_values=images).logits, network.eval()(images))
    assert known_labels(again.config) == NAMES


def test_a_timm_network_that_its_name_does_not_build_again_is_saved_as_any_other_network(tmp_path):
    network = timm.create_model("resnet18", num_classes=2)
    network.layer4 = torch.nn.Identity()
    network.fc = torch.nn.Linear(256, 2)
    loaded = adopted(network, usual_side=32)
    assert any("a saved folder has its weights and class names, and not its architecture" in n for n in loaded.notes)
    assert loaded.model(pixel_values=IMAGES).logits.shape == (2, 2)


def test_any_network_is_saved_with_its_own_tensor_names_and_loads_again(tmp_path):
    from safetensors.torch import load_model

    network = small_network()
    loaded = adopted(network, usual_side=16)
    assert loaded.model.network is network
    loaded.model.save_pretrained(tmp_path)
    other = small_network()
    load_model(other, tmp_path / "model.safetensors")
    torch.testing.assert_close(other.eval()(IMAGES), network.eval()(IMAGES))
    with pytest.raises(UserError, match="only the code that built it can build it again"):
        load_trained(tmp_path)


def test_a_network_may_answer_with_an_output_that_has_logits():
    class Answering(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = small_network()

        def forward(self, images):
            return {"logits": self.network(images)}

    assert adopted(Answering(), usual_side=16).model(pixel_values=IMAGES).logits.shape == (2, 2)


def test_half_precision_weights_are_trained_in_float32():
    loaded = adopted(small_network().half(), usual_side=16)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert "weights of float16 are trained in float32" in loaded.notes


def test_a_given_processor_is_used_at_the_size_that_is_asked_for():
    processor = BitImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20})
    assert adopted(small_network(), processor=processor).processor is processor
    assert adopted(small_network(), processor=processor, image_size=40).image_size == 40
    assert adopted(small_network()).image_size == 224


def test_a_peft_model_keeps_the_statistics_that_its_adapter_does_not_save(tmp_path):
    peft = pytest.importorskip("peft", reason='needs peft: pip install "hf_accel[test]"')
    base = adopted(timm.create_model("resnet18", num_classes=2)).model
    config = peft.LoraConfig(r=2, target_modules=["timm_model.layer4.1.conv2"], modules_to_save=["timm_model.fc"])
    model = peft.get_peft_model(base, config)
    loaded = adopted(model)
    assert loaded.model is model
    assert known_labels(base.config) == NAMES
    assert "20 batch-norm layers keep their statistics" in loaded.notes
    assert describe_model(model) == "TimmWrapperForImageClassification with PeftModel"
    before = base.timm_model.bn1.running_mean.clone()
    model.train()(pixel_values=torch.rand(4, 3, 32, 32))
    torch.testing.assert_close(base.timm_model.bn1.running_mean, before)


def test_peft_around_a_network_that_is_not_of_transformers_is_refused():
    peft = pytest.importorskip("peft", reason='needs peft: pip install "hf_accel[test]"')
    model = peft.get_peft_model(small_network(), peft.LoraConfig(r=2, target_modules=["5"]))
    with pytest.raises(UserError, match="PEFT wraps Sequential, expected a transformers classifier inside"):
        adopted(model)


def test_the_classes_of_a_model_are_known_unless_they_are_only_numbered():
    model = small_vit()
    assert classes_of_model(model) is None
    adopted(model)
    assert classes_of_model(model) == NAMES
    assert classes_of_model(small_network()) is None
    assert classes_of_model("a name") is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: small_vit(5),
            "ViTForImageClassification has 5 classes, and the data has 2 (red, blue). Build it with num_labels=2",
        ),
        (
            lambda: timm.create_model("resnet18", num_classes=3),
            "has 3 classes, and the data has 2 (red, blue). Build it with num_classes=2",
        ),
        (lambda: "google/vit", "is of the type str, expected a transformers classifier, a timm model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, message):
    with pytest.raises(UserError) as error:
        adopted(model())
    assert message in str(error.value)


def test_a_processor_of_another_kind_is_refused():
    with pytest.raises(UserError, match="processor: is of the type function, expected an image processor"):
        adopted(small_network(), processor=lambda image: image)


def test_a_network_of_your_own_is_not_predicted_with_guessed_preprocessing():
    with pytest.raises(UserError, match="does not say its preprocessing"):
        model_to_predict(small_network())
    assert model_to_predict(small_vit()).image_size == 16
