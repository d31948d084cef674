"""`hf_accel.predict`: images in every form, from every kind of model."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import timm
import torch

import hf_accel
from hf_accel.config.sections import ModelSettings
from hf_accel.data.images import UnreadableImageError
from hf_accel.errors import RunError, UserError
from hf_accel.models.given import adopt_model, model_to_predict
from tests.support.given_rows import NAMES, pictures, pixels, small_network, small_vit

PICTURES, _ = pictures(4, 16)
ARRAYS, _ = pixels(4, 16)


@pytest.fixture
def loaded():
    torch.manual_seed(0)
    return adopt_model(small_vit(), ModelSettings(name="not read"), NAMES)


@pytest.fixture
def folder(loaded, tmp_path):
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def scores(predictions):
    return [(prediction.label, round(prediction.score, 4)) for prediction in predictions]


def test_every_form_of_an_image_gives_the_same_answer(folder, tmp_path):
    expected = scores(hf_accel.predict(folder, PICTURES))
    images = tmp_path / "images"
    images.mkdir()
    for number, picture in enumerate(PICTURES):
        picture.save(images / f"{number}.png")
    planes = torch.from_numpy(ARRAYS).permute(0, 3, 1, 2)
    forms = {
        "folder": str(images),
        "glob": str(images / "*.png"),
        "paths": sorted(images.iterdir()),
        "arrays": list(ARRAYS),
        "array": ARRAYS,
        "tensors": planes,
        "floats": planes / 255,
        "mixed": [PICTURES[0], ARRAYS[1], planes[2], images / "3.png"],
    }
    for form, given in forms.items():
        assert scores(hf_accel.predict(folder, given)) == expected, form
    assert [p.file for p in hf_accel.predict(folder, [images, PICTURES[0]])] == [
        *map(str, sorted(images.iterdir())),
        None,
    ]


def test_a_prediction_has_the_likeliest_class_and_those_after_it(folder, loaded):
    (prediction,) = hf_accel.predict(folder, PICTURES[0])
    pixel_values = loaded.processor(PICTURES[0], return_tensors="pt")["pixel_values"]
    expected = loaded.model.eval()(pixel_values=pixel_values).logits[0].softmax(-1)
    assert [label for label, _ in prediction.top] == [NAMES[number] for number in expected.argsort(descending=True)]
    assert prediction.top[0] == (prediction.label, prediction.score)
    assert prediction.score == pytest.approx(expected.max().item(), abs=1e-6)
    assert len(hf_accel.predict(folder, PICTURES[0], top_k=1)[0].top) == 1


def test_every_kind_of_model_is_taken_and_left_in_its_mode(folder, loaded):
    loaded.model.train()
    expected = scores(hf_accel.predict(folder, PICTURES))
    assert scores(hf_accel.predict(loaded, PICTURES)) == expected
    assert scores(hf_accel.predict(loaded.model, PICTURES)) == expected
    assert scores(hf_accel.predict(str(folder), PICTURES, batch_size=3)) == expected
    assert loaded.model.training
    network = timm.create_model("resnet18", num_classes=3)
    assert {p.label for p in hf_accel.predict(network, PICTURES)} <= {"0", "1", "2"}
    named = hf_accel.predict(network, PICTURES, label_names=["a", "b", "c"])
    assert {p.label for p in named} <= {"a", "b", "c"}
    own = hf_accel.predict(small_network(), PICTURES, processor=loaded.processor)
    assert {p.label for p in own} <= {"0", "1"}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images: there are none"),
        (5, "images: of the type int, expected paths"),
        (torch.full((3, 8, 8), 1.5), "image 0: its floating-point pixels reach from 1.5 to 1.5, expected 0 to 1"),
        (np.zeros((4, 4), np.int64), "image 0: is an array of int64 of the shape (4, 4), expected an image"),
        ("nowhere.png", "nowhere.png: no such file or folder"),
    ],
)
def test_images_that_cannot_be_understood_are_refused(images, message, folder):
    with pytest.raises(UserError) as error:
        hf_accel.predict(folder, images)
    assert message in str(error.value)


def test_a_broken_file_is_named(folder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"broken\.jpg"):
        hf_accel.predict(folder, tmp_path / "broken.jpg")


def test_a_model_that_is_none_or_broken_is_refused(loaded):
    with pytest.raises(UserError, match="expected a folder, a Hub id, a trainer or a"):
        hf_accel.predict(5, PICTURES)
    with pytest.raises(UserError, match="top_k is 0"):
        hf_accel.predict(loaded, PICTURES, top_k=0)
    with torch.no_grad():
        loaded.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(RunError, match="holds values that are not finite"):
        hf_accel.predict(loaded, PICTURES)
    with pytest.raises(UserError, match="processor: is not given"):
        model_to_predict(small_network())


IMPORTS = {
    "the command's module first": "import hf_accel.predict; import hf_accel",
    "the function first": "import hf_accel; hf_accel.predict; import hf_accel.predict",
    "from the package": "import hf_accel.predict; from hf_accel import predict; assert predict is hf_accel.predict",
    "the command itself": "import hf_accel; from hf_accel.cli import main; main(['predict', 'nowhere', 'none.png'])",
}


@pytest.mark.slow
@pytest.mark.parametrize("order", IMPORTS)
def test_predict_is_the_function_in_whatever_order_it_and_the_command_are_imported(order):
    code = (
        f"{IMPORTS[order]}\n"
        "import inspect, sys\n"
        "assert inspect.isfunction(hf_accel.predict), hf_accel.predict\n"
        "assert hf_accel.predict.__module__ == 'hf_accel.training.prediction'\n"
        "from hf_accel.predict import main\n"
        "assert inspect.ismodule(sys.modules['hf_accel.predict'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_one_picture_alone_is_one_prediction(loaded):
    assert len(hf_accel.predict(loaded, PIL.Image.new("L", (30, 20)))) == 1
