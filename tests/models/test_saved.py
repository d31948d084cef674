"""A saved folder gives the model that was trained: the same class names, tensors and logits."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import hf_accel.training.finish
from hf_accel.config.sections import ModelSettings
from hf_accel.models.load import load_model, load_trained
from hf_accel.models.saved import SavedModelError, check_saved
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.prediction import predict
from tests.models.test_positions import HUB
from tests.support.saved_models import save_hub, save_timm

pytestmark = pytest.mark.slow

RESNET = {"channels": [8, 8, 16, 16]}
OLD = ["ginkgo", "maple"]
NEW = ["oak", "elm"]


def save_resnet(folder, labels):
    return save_timm(folder, "resnet10t", labels, **RESNET)


def test_a_timm_model_tuned_again_names_the_new_classes_everywhere(tiny_recipe, tmp_path, photos):
    folder = save_resnet(tmp_path / "first", OLD)
    run_folder = train(tiny_recipe({"model": {"name": str(folder), "pretrained": True, "args": {}}}))
    saved = run_folder / "model"
    config = json.loads((saved / "config.json").read_text())
    assert config["label_names"] == ["blue", "red"] == RunReport.load(run_folder).data.labels
    assert AutoModelForImageClassification.from_pretrained(saved).config.id2label == {0: "blue", 1: "red"}
    image = next((photos / "test" / "red").iterdir())
    classes = {row["label"] for row in pipeline("image-classification", str(saved))(str(image))}
    assert classes == {"blue", "red"}
    (prediction,) = predict(run_folder, image)
    assert {label for label, _ in prediction.top} == {"blue", "red"}
    card = [line for line in (saved / "README.md").read_text().splitlines() if "new classifier" not in line]
    assert "ginkgo" not in "\n".join(card)


@pytest.mark.parametrize("labels", [NEW, ["maple", "ginkgo"]], ids=["other names", "another order"])
@pytest.mark.parametrize("save", [save_resnet, lambda f, n: save_hub(f, HUB["vit"], n)], ids=["timm", "hub"])
def test_a_classifier_of_other_classes_is_new_and_a_note_says_so(save, labels, tmp_path):
    folder = save(tmp_path / "saved", OLD)
    before = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    loaded = load_model(ModelSettings(str(folder)), labels)
    head = {name for name in before if name.startswith(("classifier", "timm_model.fc"))}
    assert len(head) == 2
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in head), name
    weight = loaded.model.state_dict()[next(name for name in head if name.endswith("weight"))]
    assert 0.01 < weight.std() < 0.04  # transformers starts a classifier with a standard deviation of 0.02
    (note,) = [note for note in loaded.notes if note.startswith("new classifier")]
    assert f"class 0 was 'ginkgo' and is '{labels[0]}'" in note


@pytest.mark.parametrize("save", [save_resnet, lambda f, n: save_hub(f, HUB["vit"], n)], ids=["timm", "hub"])
def test_a_classifier_of_the_same_classes_is_kept_and_a_note_says_so(save, tmp_path):
    folder = save(tmp_path / "saved", OLD)
    before = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    loaded = load_model(ModelSettings(str(folder)), OLD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert any("the classifier is kept" in note for note in loaded.notes)


def test_the_new_classifier_depends_on_the_seed_alone(tmp_path):
    folder = save_resnet(tmp_path / "saved", OLD)

    def head():
        torch.manual_seed(3)
        return load_model(ModelSettings(str(folder)), NEW).model.timm_model.fc.weight

    assert torch.equal(head(), head())


@pytest.fixture
def saved(tmp_path):
    loaded = load_trained_copy(tmp_path)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return tmp_path / "saved", loaded, pixels


def load_trained_copy(tmp_path):
    return load_trained(save_resnet(tmp_path / "saved", OLD)).model


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_folder_that_gives_the_trained_model_passes(saved, channels_last):
    folder, model, pixels = saved
    if channels_last:
        model.to(memory_format=torch.channels_last)
        pixels = pixels.to(memory_format=torch.channels_last)
    model.train()
    check_saved(folder, model, OLD, {"pixel_values": pixels}, AutoModelForImageClassification)
    assert model.training


def test_a_model_that_was_trained_under_autocast_is_compared_in_float32(saved):
    folder, model, pixels = saved
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    check_saved(folder, model, OLD, {"pixel_values": pixels}, AutoModelForImageClassification)


def test_other_class_names_in_the_folder_are_found(saved):
    folder, model, pixels = saved
    with pytest.raises(SavedModelError, match="class 0 is 'ginkgo' instead of 'oak'"):
        check_saved(folder, model, NEW, {"pixel_values": pixels}, AutoModelForImageClassification)
    with pytest.raises(SavedModelError, match="2 classes instead of 3"):
        check_saved(folder, model, [*OLD, "fox"], {"pixel_values": pixels}, AutoModelForImageClassification)


def test_a_tensor_that_differs_in_its_last_bit_is_found(saved):
    folder, model, pixels = saved
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("conv2.weight"))
    tensors[name] = torch.nextafter(tensors[name], torch.tensor(9.0))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SavedModelError, match=r"differs from the trained one in timm_model\..*conv2.weight"):
        check_saved(folder, model, OLD, {"pixel_values": pixels}, AutoModelForImageClassification)


def test_other_logits_of_the_same_tensors_are_found(saved):
    folder, model, pixels = saved
    model.timm_model.act1 = torch.nn.GELU()  # this is not in the config
    with pytest.raises(SavedModelError, match=r"logits of the saved model differ .* on 3 rows, expected at most \d"):
        check_saved(folder, model, OLD, {"pixel_values": pixels}, AutoModelForImageClassification)


def test_logits_that_rounding_changes_are_the_same(tmp_path):
    """The last convolution of this network sees one position, and its kernel depends on where the weight lies in memory."""
    torch.manual_seed(0)
    settings = ModelSettings(name="timm/efficientnet_lite0", pretrained=False)
    model = load_model(settings, OLD).model.eval()
    model.save_pretrained(tmp_path)
    check_saved(tmp_path, model, OLD, {"pixel_values": torch.rand(2, 3, 32, 32)}, AutoModelForImageClassification)


def test_a_run_whose_saved_model_differs_fails_by_name_and_is_not_finished(tiny_recipe, monkeypatch):
    recipe = tiny_recipe()

    def save_other_names(trainer, folder, **_):
        trainer.model.config.label_names = OLD
        trainer.model.save_pretrained(folder)

    monkeypatch.setattr(hf_accel.training.finish.ImageTrainer, "save_model", save_other_names)
    with pytest.raises(SavedModelError, match="class 0 is 'ginkgo' instead of 'blue'"):
        train(recipe)
    assert not (recipe.output_dir / "report.json").exists()


def test_the_processor_of_a_saved_run_is_the_one_it_was_trained_with(tiny_recipe):
    recipe = tiny_recipe()
    saved = AutoImageProcessor.from_pretrained(train(recipe) / "model")
    assert saved.data_config["mean"] == pytest.approx((0.4914, 0.4822, 0.4465))


def test_the_folder_of_a_run_is_a_model_to_train_on(tiny_recipe, tmp_path):
    folder = train(tiny_recipe())
    again = {
        "model": {"name": str(folder), "pretrained": True, "args": {}},
        "training": {"output_dir": str(tmp_path / "two")},
    }
    report = RunReport.load(train(tiny_recipe(again)))
    assert any(note.startswith(f"weights of {folder / 'model'}") for note in report.notes)
