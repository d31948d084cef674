"""Pictures that explain an answer: drawn over what the model sees."""

import numpy as np
import pytest
import torch

pytest.importorskip("captum", reason='needs captum: pip install "hf_accel[trust]"')

from hf_accel.tasks import TASKS
from hf_accel.tasks.explanations import Explainer, overlay, picture_name, seen


def test_the_picture_of_an_image_has_the_size_that_the_model_sees_enlarged(tiny_recipe, photos):
    recipe = tiny_recipe()
    loaded = TASKS[recipe.model.task].load_model(recipe, ["blue", "red"])
    explainer = Explainer(loaded)
    first, second = (explainer.picture(photos / "test" / "red" / f"0{n}.png", label=n) for n in (0, 1))
    assert first.shape == second.shape == (224, 224, 3)  # 14 times 16 pixels
    assert first.dtype == np.uint8


def test_heat_changes_the_image_only_where_it_is():
    image = np.full((300, 200, 3), 100, np.uint8)
    heat = np.zeros((300, 200), np.float32)
    heat[:10, :10] = 1.0
    drawn = overlay(image, heat)
    assert drawn.shape == image.shape
    assert (drawn[20:] == 100).all()
    assert (drawn[:10, :10, 0] > 150).all()


def test_where_only_the_processor_knows_the_pixels_their_range_is_shown():
    values = torch.linspace(-2, 2, 48).reshape(1, 3, 4, 4)
    shown = seen({"pixel_values": values}, values)
    assert (shown.min(), shown.max()) == (0, 255)


def test_names_of_pictures_hold_nothing_that_acts():
    assert picture_name(1, "../a b.png", "x/../y") == "000001-a_b-x_.._y.png"
    assert picture_name(12, b"bytes", "cat") == "000012-image-cat.png"
