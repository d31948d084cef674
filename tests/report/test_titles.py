"""A run is called by its model, as its paper writes it, and its data, without the folders that they lie in."""

import pytest

from hf_accel.report.titles import model_title, run_title


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("timm/efficientnet_b0.ra_in1k", "EfficientNet-B0"),
        ("/home/jane/efficientnet_lite0", "EfficientNet-Lite0"),
        ("timm/tf_efficientnetv2_s.in21k", "EfficientNetV2-S"),
        ("google/vit-base-patch16-224-in21k", "ViT-Base-patch16-224-in21k"),
        ("microsoft/resnet-50", "ResNet-50"),
        ("timm/resnet50.a1_in1k", "ResNet50"),
        ("mobilenetv2_100", "MobileNetV2-100"),
        ("hf_accel/cifar_resnet20", "cifar_resnet20"),
        ("vit", "ViT"),
        ("./vitamin", "vitamin"),
        ("jane/my.model.v2", "my.model.v2"),
    ],
)
def test_a_model_is_called_by_its_family_and_size(name, title):
    assert model_title(name) == title


@pytest.mark.parametrize("data", ["photos", "./photos/", "/home/jane/photos", "jane/photos"])
def test_a_data_set_is_called_by_its_last_name(data):
    assert run_title("timm/resnet18", data, 1000) == "ResNet18 on photos, 1,000 classes"


def test_a_report_that_knows_neither_model_nor_data_has_a_title():
    assert run_title(None, None, 0) == "A model"
