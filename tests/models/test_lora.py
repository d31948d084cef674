import importlib.util

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BeitForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)

from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import LoraSettings, ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.head import head_parameters
from hf_accel.models.load import load_model
from hf_accel.models.lora import (
    add_adapters,
    base_checksum,
    has_adapters,
    load_adapters,
    merge_adapters,
    merged_state,
    require_peft,
    save_adapters,
)
from tests.support.given_rows import small_network, small_vit

pytest.importorskip("peft", reason='needs peft: pip install "hf_accel[lora]"')

VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
SMALL = {"hidden_sizes": [8, 8], "depths": [1, 1], "embedding_size": 8}


def timm_model(name, freeze="none", **args):
    settings = ModelSettings(name=name, pretrained=False, args=args, freeze=freeze)
    return load_model(settings, ["cat", "dog"]).model


def hub_swin():
    return SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2])
    )


def hub_siglip():
    part = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**part, "image_size": 32, "patch_size": 8}
    return SiglipForImageClassification(SiglipConfig(text_config=part, vision_config=vision))


def hub_beit():
    config = BeitConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
                        patch_size=8)  # fmt: skip
    return BeitForImageClassification(config)


MODELS = {
    "vit": lambda: small_vit(),
    "swin": hub_swin,
    "siglip": hub_siglip,
    "beit": hub_beit,
    "resnet": lambda: ResNetForImageClassification(ResNetConfig(**SMALL)),
    "timm vit": lambda: timm_model("timm/vit_tiny_patch16_224", **VIT),
    "timm beit": lambda: timm_model("timm/beit_base_patch16_224", **VIT),
    "timm resnet18": lambda: timm_model("timm/resnet18"),
    "timm efficientnet": lambda: timm_model("timm/efficientnet_lite0"),
    "timm convnext": lambda: timm_model("timm/convnext_atto", conv_mlp=False),
    "cifar_resnet": lambda: timm_model("hf_accel/cifar_resnet20", depth=8, width=4),
}


def images(model):
    side = model.config.image_size if model.config.model_type == "vit" else 32
    return {"pixel_values": torch.rand(2, 3, side, side)}


def adapted(model, freeze="none", **lora):
    """The note, with adapters that are not zero any more."""
    note = add_adapters(model, ModelSettings(name="not read", freeze=freeze, lora=LoraSettings(**lora)), images(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return note


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", MODELS)
def test_adapters_and_the_classifier_learn_and_merge_into_the_plain_model(kind, tmp_path):
    torch.manual_seed(0)
    model = MODELS[kind]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head = {name for name, value in model.named_parameters() if any(value is other for other in head_parameters(model))}
    pixels = images(model)
    untouched = model.eval()(**pixels).logits
    note = add_adapters(model, ModelSettings(name="not read", lora=LoraSettings(rank=2)), pixels)
    torch.testing.assert_close(model(**pixels).logits, untouched)
    assert note.startswith("lora: rank 2, alpha 16 in ")
    adapters = {name for name in learning(model) if ".lora_" in name}
    assert adapters
    assert learning(model) == adapters | head

    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        model.train()(**pixels, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
    moved = {name.replace(".base_layer.", ".") for name, value in model.state_dict().items()
             if ".lora_" not in name and not torch.equal(value, before[name.replace(".base_layer.", ".")])}  # fmt: skip
    assert moved == head
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name in adapters)

    expected = model.eval()(**pixels).logits
    assert not torch.equal(expected, untouched)
    state = merged_state(model)
    model.save_pretrained(tmp_path, state_dict=dict(state))  # which it empties
    merge_adapters(model)
    assert not has_adapters(model)
    assert model.state_dict().keys() == state.keys() == before.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    merged = model(**pixels).logits
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(again(**pixels).logits, merged, rtol=1e-5, atol=1e-6)


def test_a_transformer_has_adapters_in_its_linear_layers_and_a_cnn_in_its_convolutions():
    def kinds(model):
        adapted(model, rank=2)
        return {type(module.base_layer) for module in model.modules() if hasattr(module, "base_layer")}

    assert kinds(MODELS["timm vit"]()) == kinds(MODELS["timm convnext"]()) == {nn.Linear}
    assert kinds(MODELS["timm resnet18"]()) == kinds(MODELS["timm efficientnet"]()) == {nn.Conv2d}


def test_layers_are_named_by_the_end_of_their_names():
    model = MODELS["timm vit"]()
    adapted(model, rank=2, targets=["attn.qkv", "blocks.1.mlp.fc1"])
    found = {
        name.removeprefix("timm_model.") for name, module in model.named_modules() if hasattr(module, "base_layer")
    }
    assert found == {"blocks.0.attn.qkv", "blocks.1.attn.qkv", "blocks.1.mlp.fc1"}


@pytest.mark.parametrize(
    ("kind", "targets", "words"),
    [
        ("timm vit", ["qvk"], "there is no layer qvk. Did you mean qkv"),
        ("timm vit", ["head"], "head is a Linear that cannot have an adapter"),
        ("timm vit", ["norm1"], "norm1 is a LayerNorm that cannot"),
        ("timm efficientnet", ["conv_dw"], "conv_dw is a Conv2d that cannot have an adapter"),
        ("timm beit", ["attn.qkv"], "has no effect with an adapter"),
    ],
)
def test_a_layer_that_cannot_have_an_adapter_is_refused_by_name(kind, targets, words):
    with pytest.raises(UserError) as caught:
        adapted(MODELS[kind](), targets=targets)
    assert words in str(caught.value)


def test_frozen_layers_get_no_adapter():
    model = timm_model("timm/vit_tiny_patch16_224", freeze=1, **VIT)
    adapted(model, freeze=1, rank=2)
    assert {name.split(".")[2] for name in learning(model) if ".lora_" in name} == {"1"}


def test_batch_norm_keeps_its_statistics():
    model = MODELS["timm resnet18"]()
    assert "20 batch-norm layers keep their statistics" in adapted(model, rank=1)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()(**images(model))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_checkpoint_has_what_learns_and_is_loaded_whole_or_refused(tmp_path):
    model = MODELS["timm vit"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted(model, rank=2)
    save_adapters(model, tmp_path)

    def again(rank=2, **changed):
        other = MODELS["timm vit"]()
        other.load_state_dict({**before, **changed})
        adapted(other, rank=rank)
        return other

    other = again()
    load_adapters(other, tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(UserError, match=r"is of other adapters than model\.lora asks for"):
        load_adapters(again(rank=3), tmp_path)
    changed = before["timm_model.norm.weight"].clone()
    changed[0] = torch.nextafter(changed[0], torch.tensor(2.0))
    with pytest.raises(UserError, match="were trained on other weights"):
        load_adapters(again(**{"timm_model.norm.weight": changed}), tmp_path)
    with pytest.raises(UserError, match=r"is not a checkpoint of a run with model\.lora"):
        load_adapters(other, tmp_path / "nowhere")


def test_the_checksum_does_not_follow_what_learns():
    model = MODELS["timm vit"]()
    adapted(model, rank=2)
    before = base_checksum(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in learning(model):
                parameter.add_(1)
    assert base_checksum(model) == before


def test_models_that_cannot_have_adapters_are_refused():
    import peft

    wrapped = peft.get_peft_model(small_vit(), peft.LoraConfig(r=2, target_modules="all-linear"))
    from hf_accel.models.given import adopt_model

    plain = adopt_model(small_network(), ModelSettings(name="x"), ["a", "b", "c"]).model
    twice = MODELS["timm vit"]()
    adapted(twice)
    given = peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["fc1"]), small_vit())
    given._hf_peft_config_loaded = True  # as `add_adapter` of transformers leaves it
    assert not has_adapters(wrapped)
    assert not has_adapters(given)
    for model in (wrapped, given, plain, twice):
        with pytest.raises(UserError, match="a classifier of transformers or timm that has none yet"):
            add_adapters(model, ModelSettings(name="x", lora=LoraSettings()), {})


def test_a_missing_package_is_one_message_with_the_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "peft" else found(name, *args))
    require_peft(ModelSettings(name="x"))
    with pytest.raises(UserError, match=r'pip install "hf_accel\[lora\]"'):
        require_peft(ModelSettings(name="x", lora=LoraSettings()))


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"model": {"freeze": "backbone"}}, "leave no layer for an adapter"),
        ({"model": {"whiten_stem": True}}, "model.whiten_stem"),
        ({"training": {"optim": "muon"}}, "model.lora cannot be combined with training.optim: muon"),
        ({"training": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}},
         "Set use_reentrant to false"),
        ({"model": {"lora": {"rank": 0}}}, "model.lora.rank is 0, expected a whole number from 1 to 4096"),
        ({"model": {"lora": {"dropout": 1}}}, "model.lora.dropout is 1, expected a number from 0 to below 1"),
        ({"model": {"lora": {"targets": []}}}, "model.lora.targets is []"),
        ({"model": {"lora": {"r": 4}}}, "model.lora.r is not a setting, expected one of rank, alpha, dropout, targets"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_the_recipe(patch, words):
    model = {"lora": {}, **patch.get("model", {})}
    with pytest.raises(UserError) as caught:
        load_recipe("digits", overrides={**patch, "model": model})
    assert words in str(caught.value)
