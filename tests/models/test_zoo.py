"""Every network of the zoo's recipes: it is built as its recipe says, trains, saves, and reloads with equal logits."""

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_accel.config.recipe import load_recipe, shipped_recipes
from hf_accel.models.load import load_model

FROM_SCRATCH = [name for name in shipped_recipes() if name.startswith("zoo_") and name.endswith("_cifar10")]
PARAMETERS = {  # with ten classes; the ImageNet figures of the papers less the thousand classes
    "zoo_cct_cifar10": 283_723,
    "zoo_efficientnet_b0_cifar10": 4_020_358,
    "zoo_efficientnet_b1_cifar10": 6_525_994,
    "zoo_mobilenetv2_cifar10": 2_236_682,
    "zoo_resnet18_cifar10": 11_173_962,
    "zoo_resnet34_cifar10": 21_282_122,
    "zoo_resnet50_cifar10": 23_520_842,
    "zoo_swin_s_cifar10": 48_805_732,
    "zoo_swin_t_cifar10": 27_505_108,
    "zoo_vit_small_cifar10": 21_342_346,
    "zoo_vit_tiny_cifar10": 5_362_762,
}


def test_the_zoo_has_every_network_for_both_data_sets():
    assert PARAMETERS.keys() == set(FROM_SCRATCH)
    assert {name.replace("_cifar10", "_cifar100") for name in FROM_SCRATCH} <= shipped_recipes().keys()


@pytest.mark.parametrize("data", ["", "0"])
@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_network_has_the_settings_of_the_published_comparison(name, data):
    plain, dropout, strong = (load_recipe(f"{name}{data}", variant) for variant in ("plain", "dropout_20", "blog"))
    assert list(plain.data.augment.switched_on()) == []
    assert (plain.model.dropout, dropout.model.dropout, strong.model.dropout) == (None, 0.2, 0.1)
    assert dropout.model.activation == strong.model.activation
    assert list(strong.data.augment.switched_on()) == ["crop", "pad", "pad_mode", "chain"]
    assert strong.data.augment.pad == 5
    operations = [operation.given() for operation in strong.data.augment.chain.operations]
    assert [name for operation in operations for name in operation] == [
        "color_jitter", "rotation", "affine", "perspective", "elastic", "solarize", "invert"
    ]  # fmt: skip
    assert strong.data.augment.chain.p == 0.5
    assert (plain.training["weight_decay"], strong.training["weight_decay"]) == (0, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_network_of_the_zoo_learns_a_step_and_reloads_with_equal_logits(name, tmp_path):
    recipe = load_recipe(name)
    model = load_model(recipe.model, [str(number) for number in range(10)], recipe.data.image_size).model
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(model(images).logits, labels).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    optimizer.step()
    model.eval().save_pretrained(tmp_path)
    reloaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        # another memory format rounds the sums of a convolution differently
        torch.testing.assert_close(reloaded(images).logits, model(images).logits, rtol=1e-4, atol=1e-5)
