import json

import pytest
import torch
from transformers import (
    Aimv2VisionConfig,
    AlignConfig,
    AutoModelForImageClassification,
    BertConfig,
    CLIPForImageClassification,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DetrConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    DPTConfig,
    DPTModel,
    MLCDVisionConfig,
    SamImageProcessor,
    Siglip2VisionConfig,
    SiglipForImageClassification,
    SiglipVisionConfig,
    VitDetConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    VitPoseBackboneConfig,
)
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.encoder import EncoderForImageClassification, pooled
from hf_accel.models.load import load_model, load_trained
from hf_accel.models.saved import check_saved
from tests.support.saved_models import save_encoder

LABELS = ["cat", "dog", "owl"]
SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY = {**SMALL, "intermediate_size": 8, "image_size": 32, "patch_size": 8}
MAE = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
OURS = {
    "dinov3 vit": (DINOv3ViTConfig(**TINY, num_register_tokens=2), "pooler"),
    "dinov3 convnext": (DINOv3ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, image_size=32), "pooler"),
    "mlcd": (MLCDVisionConfig(**TINY), "pooler"),
    "aimv2 without a head": (Aimv2VisionConfig(**TINY, use_head=False), "mean"),
    "vitdet": (VitDetConfig(**SMALL, image_size=32, patch_size=8, pretrain_image_size=32), "map"),
    "vitpose, a backbone alone": (VitPoseBackboneConfig(**SMALL, image_size=[32, 32], patch_size=[8, 8]), "map"),
}
UPSTREAM = {
    "clip": (CLIPVisionConfig(**TINY), CLIPForImageClassification, "vision_model"),
    "siglip": (SiglipVisionConfig(**TINY), SiglipForImageClassification, "vision_model"),
    "masked autoencoder": (ViTMAEConfig(**TINY, **MAE), ViTForImageClassification, "vit"),
}


def load(folder, **settings):
    return load_model(ModelSettings(name=str(folder), **settings), LABELS)


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def weights_of(folder):
    from safetensors.torch import load_file

    return sorted(float(value.float().sum()) for value in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("encoder", OURS)
def test_an_encoder_gets_a_linear_classifier_on_one_vector(encoder, tmp_path):
    config, pooling = OURS[encoder]
    folder = save_encoder(tmp_path / "encoder", config)
    loaded = load(folder)
    model = loaded.model.eval()
    assert isinstance(model, EncoderForImageClassification)
    assert (model.config.pooling, model.config.feature_size) == (pooling, 8)
    assert any(f"no classifier of the type {config.model_type}" in note for note in loaded.notes)
    assert any(
        "new layers, from random weights: classifier.bias [3], classifier.weight [3, 8]" in n for n in loaded.notes
    )
    assert len(loaded.notes) == 3
    with torch.no_grad():
        features = pooled(model.encoder(pixel_values=images()), pooling)
        torch.testing.assert_close(model(pixel_values=images()).logits, model.classifier(features))


@pytest.mark.parametrize("encoder", [*OURS, *UPSTREAM])
def test_the_classifier_has_the_encoders_weights_and_is_saved_whole(encoder, tmp_path):
    config = {**OURS, **UPSTREAM}[encoder][0]
    folder = save_encoder(tmp_path / "encoder", config)
    loaded = load(folder)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    check_saved(tmp_path / "saved", loaded.model, LABELS, {"pixel_values": images()}, AutoModelForImageClassification)
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()
    head = [float(p.detach().sum()) for p in loaded.model.classifier.parameters()]
    assert weights_of(tmp_path / "saved") == pytest.approx(sorted([*weights_of(folder), *head]))
    again = load_trained(tmp_path / "saved")
    torch.testing.assert_close(again.model(images()).logits, loaded.model.eval()(images()).logits, rtol=0, atol=0)
    kept = load(tmp_path / "saved")
    assert any("the classifier is kept" in note for note in kept.notes)
    other = load_model(ModelSettings(name=str(tmp_path / "saved")), ["cat", "dog", "owl", "yak"])
    assert any("classifier.weight [4, 8]" in note for note in other.notes)


@pytest.mark.parametrize("tower", UPSTREAM)
def test_a_tower_becomes_the_classifier_that_transformers_has(tower, tmp_path):
    config, network, place = UPSTREAM[tower]
    model = load(save_encoder(tmp_path, config)).model
    assert type(model) is network
    assert hasattr(model, place)
    load(tmp_path, freeze="backbone")


@pytest.mark.parametrize("config", [CLIPVisionConfig, SiglipVisionConfig])
def test_a_new_classifier_starts_as_upstreams(config, tmp_path):
    folder = save_encoder(tmp_path / "tower", config(**{**TINY, "hidden_size": 64}))
    labels = [str(number) for number in range(50)]
    first = load_model(ModelSettings(name=str(folder)), labels)
    first.model.save_pretrained(tmp_path / "saved")
    first.processor.save_pretrained(tmp_path / "saved")
    renewed = load_model(ModelSettings(name=str(tmp_path / "saved")), labels[::-1])
    for loaded in (first, renewed):
        assert float(loaded.model.classifier.weight.detach().std()) == pytest.approx(64**-0.5, rel=0.1)
        assert not loaded.model.classifier.bias.any()
    assert not torch.equal(first.model.classifier.weight, renewed.model.classifier.weight)


def test_a_tower_with_a_projection_is_a_tower(tmp_path):
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY))
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = load(tmp_path).model
    assert isinstance(model, CLIPForImageClassification)
    for name, value in network.vision_model.state_dict().items():
        assert torch.equal(value, model.vision_model.state_dict()[name]), name


def test_a_pooler_that_the_file_does_not_have_is_not_used(tmp_path):
    config = DPTConfig(**TINY, is_hybrid=False, backbone_out_indices=[0, 0, 1, 1], neck_hidden_sizes=[8] * 4)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    DPTModel(config).save_pretrained(tmp_path)
    assert load(tmp_path).model.config.pooling == "pooler"
    DPTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert load(tmp_path).model.config.pooling == "cls"


def test_an_encoder_from_random_weights(tmp_path):
    folder = save_encoder(tmp_path, OURS["dinov3 vit"][0])
    loaded = load(folder, pretrained=False, args={"num_hidden_layers": 1, "hidden_size": 16})
    assert "dinov3_vit from random weights" in loaded.notes
    assert loaded.model.config.vision_config.num_hidden_layers == 1
    assert loaded.model.classifier.in_features == 16
    assert loaded.model(images()).logits.shape == (2, 3)


@pytest.mark.parametrize("encoder", ["aimv2 without a head", "clip", "masked autoencoder"])
def test_positions_are_resampled_for_another_image_size(encoder, tmp_path):
    folder = save_encoder(tmp_path, {**OURS, **UPSTREAM}[encoder][0])
    loaded = load_model(ModelSettings(name=str(folder), args={"image_size": 64}), LABELS, 64)
    assert any(note.startswith("position tensors of another image size") for note in loaded.notes)
    assert loaded.model(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)


def test_only_the_classifier_learns_on_a_frozen_encoder(tmp_path):
    model = load(save_encoder(tmp_path, OURS["dinov3 vit"][0]), freeze="backbone").model
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("output", "pooling", "expected"),
    [
        (BaseModelOutputWithPooling(pooler_output=torch.ones(2, 3, 1, 1)), "pooler", 1.0),
        (BaseModelOutputWithPooling(last_hidden_state=torch.arange(4.0).view(1, 4, 1).expand(2, 4, 3)), "cls", 0.0),
        (BaseModelOutputWithPooling(last_hidden_state=torch.arange(4.0).view(1, 4, 1).expand(2, 4, 3)), "mean", 1.5),
        (BaseModelOutputWithPooling(last_hidden_state=torch.full((2, 3, 2, 2), 2.0)), "map", 2.0),
        (BackboneOutput(feature_maps=(torch.zeros(2, 9, 4, 4), torch.full((2, 3, 2, 2), 5.0))), "map", 5.0),
    ],
)
def test_the_vector_of_an_image(output, pooling, expected):
    assert torch.equal(pooled(output, pooling), torch.full((2, 3), expected))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(), "is of the type bert, which .* is not an image encoder"),
        (AlignConfig(), "is of the type align, which .* is not an image encoder"),
        (DetrConfig(), "is of the type detr, which .* is not an image encoder"),
        (Siglip2VisionConfig(**SMALL, intermediate_size=8), "does not turn an image into tokens"),
    ],
    ids=["text", "text and image", "detector", "patches as input"],
)
def test_a_model_that_is_not_an_image_encoder_is_refused_by_its_type(config, message, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_an_encoder_without_a_known_processor_is_refused(tmp_path):
    folder = save_encoder(tmp_path, OURS["vitdet"][0])
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="Can't load image processor"):
        load(folder)


def test_a_processor_of_images_of_different_sizes_is_refused(tmp_path):
    folder = save_encoder(tmp_path, OURS["mlcd"][0])
    SamImageProcessor().save_pretrained(folder)
    with pytest.raises(UserError, match="SamImageProcessor makes images of different sizes"):
        load(folder)


def test_an_encoder_alone_does_not_predict(tmp_path):
    folder = save_encoder(tmp_path, OURS["dinov3 vit"][0])
    with pytest.raises(UserError, match="has no classifier of images"):
        load_trained(folder)


def test_the_config_reads_back_what_it_wrote(tmp_path):
    model = load(save_encoder(tmp_path / "encoder", OURS["dinov3 vit"][0])).model
    model.save_pretrained(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert written["model_type"] == "hf_accel_encoder"
    assert written["vision_config"]["model_type"] == "dinov3_vit"
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    assert again.config.vision_config.to_dict() == model.config.vision_config.to_dict()
