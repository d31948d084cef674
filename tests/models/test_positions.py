"""Weights of one image size in a model of another: only position tensors change, and as upstream changes them."""

import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    CLIPConfig,
    Data2VecVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    HieraConfig,
    IJepaConfig,
    LevitConfig,
    MetaClip2Config,
    PvtConfig,
    SiglipConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
    ViTMSNConfig,
)

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.load import load_model
from hf_accel.models.trial import flops_per_image
from tests.support.saved_models import save_hub, save_timm

LABELS = ["a", "b", "c"]
SMALL = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
TIMM = {
    "vit_tiny_patch16_224": SMALL,
    "beit_base_patch16_224": SMALL,
    "cait_xxs24_224": {**SMALL, "depth_token_only": 1},
    "eva02_tiny_patch14_224": SMALL,
    "vit_small_patch14_dinov2": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL,
    "deit_tiny_distilled_patch16_224": SMALL,
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}
HUB = {
    "vit": ViTConfig(image_size=32, **TINY),
    "deit": DeiTConfig(image_size=32, architectures=["DeiTForImageClassification"], **TINY),
    "dinov2": Dinov2Config(image_size=32, **TINY),
    "beit": BeitConfig(image_size=32, use_relative_position_bias=True, use_absolute_position_embeddings=True, **TINY),
    "shared beit": BeitConfig(image_size=32, use_shared_relative_position_bias=True, **TINY),
}


VISION = {"vision_config": {"image_size": 32, **TINY}, "text_config": {}}
HIERA = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "embed_dim_multiplier": 2.0, "num_query_pool": 1,
         "masked_unit_size": [2, 2], "patch_size": [3, 3], "patch_stride": [4, 4], "patch_padding": [1, 1],
         "query_stride": [2, 2], "masked_unit_attention": [False, False]}  # fmt: skip
MORE = {
    "dinov2 with registers": Dinov2WithRegistersConfig(image_size=32, **TINY),
    "vit msn": ViTMSNConfig(image_size=32, **TINY),
    "ijepa": IJepaConfig(image_size=32, **TINY),
    "clip": CLIPConfig(**VISION),
    "metaclip 2": MetaClip2Config(**VISION),
    "siglip": SiglipConfig(**VISION),
    "hiera": HieraConfig(image_size=[32, 32], **HIERA),
    "swin with positions": SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=2,
        use_absolute_embeddings=True,
    ),
}
PVT = PvtConfig(image_size=32, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2])


def weights(folder):
    return AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).state_dict()


def positions_and_others(folder, size_args, size=48):
    """Of the file and of the loaded model at another size: {name: (before, after)}, position tensors and others."""
    before = weights(folder)
    loaded = load_model(ModelSettings(str(folder), args=size_args), LABELS, image_size=size)
    after = loaded.model.state_dict()
    assert flops_per_image(loaded.model, size) > 0
    changed = {n: (before[n], after[n]) for n in after if n in before and before[n].shape != after[n].shape}
    for name, tensor in after.items():
        assert not torch.isnan(tensor.float()).any(), name
        if name in before and name not in changed:
            assert torch.equal(tensor, before[name]), name
    assert set(dict(loaded.model.named_parameters())) <= set(before)
    learned = {name: pair for name, pair in changed.items() if name in dict(loaded.model.named_parameters())}
    assert all(name in " ".join(loaded.notes) for name in learned)
    return learned


def expected_timm(name, before, after, architecture):
    if name.endswith("pos_embed"):
        prefix = before.shape[1] - 16
        return resample_abs_pos_embed(before, [6, 6], [4, 4], num_prefix_tokens=prefix)
    window = (6, 6) if architecture.startswith("beit") else None
    assert window is not None, name
    return resize_rel_pos_bias_table(before, new_window_size=window, new_bias_shape=after.shape)


@pytest.mark.parametrize("architecture", [name for name in TIMM if "swin" not in name])
def test_a_timm_model_at_another_size_has_its_positions_resampled_as_timm_does(architecture, tmp_path):
    folder = save_timm(tmp_path / "saved", architecture, LABELS, img_size=32, **TIMM[architecture])
    changed = positions_and_others(folder, {"img_size": 48})
    assert changed
    for name, (before, after) in changed.items():
        assert torch.equal(after, expected_timm(name, before, after, architecture)), name


def test_a_timm_swin_at_another_size_keeps_every_learned_tensor(tmp_path):
    architecture = "swin_tiny_patch4_window7_224"
    folder = save_timm(tmp_path / "saved", architecture, LABELS, img_size=32, **TIMM[architecture])
    assert positions_and_others(folder, {"img_size": 64}, size=64) == {}


def test_a_timm_swin_of_another_window_has_its_tables_resized_as_timm_does(tmp_path):
    architecture = "swin_tiny_patch4_window7_224"
    folder = save_timm(tmp_path / "saved", architecture, LABELS, img_size=32, **TIMM[architecture])
    changed = positions_and_others(folder, {"img_size": 64, "window_size": 8}, size=64)
    assert changed
    for name, (before, after) in changed.items():
        side = round(len(after) ** 0.5)
        expected = resize_rel_pos_bias_table(before, ((side + 1) // 2,) * 2, after.shape)
        assert torch.equal(after, expected), name


@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2"])
def test_a_hub_model_at_another_size_has_the_positions_of_its_own_interpolation(kind, tmp_path):
    folder = save_hub(tmp_path / "saved", HUB[kind], LABELS)
    changed = positions_and_others(folder, {"image_size": 48})
    assert len(changed) == 1
    ((_, (_, after)),) = changed.items()
    source = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32)
    embeddings = source.base_model.embeddings
    expected = embeddings.interpolate_pos_encoding(torch.zeros_like(after), 48, 48)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["beit", "shared beit"])
def test_a_hub_beit_at_another_size_resizes_its_tables_bilinearly_and_keeps_the_rows_of_the_class_token(kind, tmp_path):
    folder = save_hub(tmp_path / "saved", HUB[kind], LABELS)
    tables = {n: p for n, p in positions_and_others(folder, {"image_size": 48}).items() if n.endswith("bias_table")}
    assert tables
    for name, (before, after) in tables.items():
        assert before.shape == (7 * 7 + 3, 2)
        assert after.shape == (11 * 11 + 3, 2)
        grid = before[:49].T.reshape(1, 2, 7, 7)
        expected = torch.nn.functional.interpolate(grid, size=(11, 11), mode="bilinear")[0].reshape(2, -1).T
        assert torch.equal(after[:121], expected), name
        assert torch.equal(after[121:], before[49:]), name


def test_a_square_of_another_size_gives_the_logits_that_interpolation_in_the_forward_pass_gives(tmp_path):
    folder = save_hub(tmp_path / "saved", HUB["vit"], LABELS)
    model = load_model(ModelSettings(str(folder), args={"image_size": 48}), LABELS, image_size=48).model.eval()
    source = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = source(pixel_values=pixels, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(model(pixel_values=pixels).logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("save", "args", "named"),
    [
        (lambda f: save_timm(f, "vit_tiny_patch16_224", LABELS, img_size=32, **SMALL), {"embed_dim": 32}, "embed_dim"),
        (lambda f: save_timm(f, "resnet10t", LABELS, channels=[8, 8, 16, 16]), {"channels": [8, 8, 16, 32]}, "layer4"),
        (lambda f: save_timm(f, "cifar_resnet20", LABELS, depth=8, width=4), {"width": 8}, "width"),
        (lambda f: save_hub(f, HUB["vit"], LABELS), {"hidden_size": 32}, "hidden_size|cls_token"),
        (lambda f: save_hub(f, HUB["vit"], LABELS), {"patch_size": 4}, "projection"),
    ],
)
def test_any_other_tensor_of_another_shape_is_refused_by_name(save, args, named, tmp_path):
    folder = save(tmp_path / "saved")
    with pytest.raises(UserError, match=named):
        load_model(ModelSettings(str(folder), args=args), LABELS)


def test_a_file_that_does_not_fit_its_own_config_is_refused(tmp_path):
    folder = save_hub(tmp_path / "saved", HUB["vit"], LABELS)
    config = (folder / "config.json").read_text()
    assert '"intermediate_size": 32' in config
    (folder / "config.json").write_text(config.replace('"intermediate_size": 32', '"intermediate_size": 64'))
    with pytest.raises(UserError, match=r"layers\.0.*another shape.*damaged"):
        load_model(ModelSettings(str(folder)), LABELS)


def test_the_classifier_may_be_new_at_another_size_too(tmp_path):
    folder = save_hub(tmp_path / "saved", HUB["vit"], ["x", "y"])
    loaded = load_model(ModelSettings(str(folder), args={"image_size": 48}), LABELS, image_size=48)
    assert loaded.model.classifier.weight.shape == (3, 16)
    assert torch.isfinite(loaded.model.classifier.weight).all()
    assert "classifier.weight" in " ".join(note for note in loaded.notes if "new layers" in note)


def test_a_config_that_does_not_count_its_labels_gets_the_right_classifier(tmp_path):
    config = PvtConfig(image_size=32, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2])
    folder = save_hub(tmp_path / "saved", config, ["x", "y"])
    loaded = load_model(ModelSettings(str(folder)), LABELS)
    assert loaded.model.classifier.weight.shape == (3, 16)
    assert flops_per_image(loaded.model, 32) > 0


def test_a_hub_swin_at_another_size_keeps_every_learned_tensor(tmp_path):
    config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    folder = save_hub(tmp_path / "saved", config, LABELS)
    assert positions_and_others(folder, {"image_size": 64}, size=64) == {}


@pytest.mark.parametrize("kind", MORE)
def test_every_table_of_absolute_positions_is_resampled_bicubically_on_its_own_grid(kind, tmp_path):
    folder = save_hub(tmp_path / "saved", MORE[kind], LABELS)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    size = {"image_size": [48, 48] if kind == "hiera" else 48}
    changed = positions_and_others(folder, size)
    ((name, (before, after)),) = changed.items()
    prefix = before.shape[-2] - math.isqrt(before.shape[-2]) ** 2
    assert prefix == (0 if kind in ("ijepa", "siglip", "hiera", "swin with positions") else 1)
    old, new = (math.isqrt(table.shape[-2] - prefix) for table in (before, after))
    assert new * 32 == old * 48
    grid = before.reshape(-1, before.shape[-1])[prefix:].T.reshape(1, -1, old, old)
    expected = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic")[0].flatten(1).T
    table = after.reshape(-1, after.shape[-1])
    torch.testing.assert_close(table[prefix:], expected, rtol=0, atol=1e-6)
    assert torch.equal(table[:prefix], before.reshape(-1, before.shape[-1])[:prefix]), name


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_with_an_image_encoder_of_its_own_gives_the_logits_of_interpolation_in_the_forward_pass(kind, tmp_path):
    folder = save_hub(tmp_path / "saved", MORE[kind], LABELS)
    args = {"vision_config": {"image_size": 48}}
    model = load_model(ModelSettings(str(folder), args=args), LABELS, image_size=48).model.eval()
    assert model.config.vision_config.image_size == 48
    source = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = source.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        hidden = hidden[:, 1:] if kind == "clip" else hidden
        expected = source.classifier(hidden.mean(dim=1))
        torch.testing.assert_close(model(pixel_values=pixels).logits, expected, rtol=0, atol=1e-5)


def test_a_data2vec_model_is_resized_as_a_beit_is(tmp_path):
    config = Data2VecVisionConfig(image_size=32, use_relative_position_bias=True, **TINY)
    changed = positions_and_others(save_hub(tmp_path / "saved", config, LABELS), {"image_size": 48})
    assert all(after.shape == (11 * 11 + 3, 2) for _, after in changed.values())
    assert changed


def test_a_pvt_at_another_size_has_the_positions_of_each_stage_resampled_and_keeps_that_of_the_class_token(tmp_path):
    changed = positions_and_others(save_hub(tmp_path / "saved", PVT, LABELS), {"image_size": 64}, size=64)
    assert [after.shape[1] for _, after in changed.values()] == [16 * 16, 8 * 8, 4 * 4, 2 * 2 + 1]
    for before, after in changed.values():
        prefix = 1 if after.shape[1] == 5 else 0  # the last stage has the class token
        old, new = (math.isqrt(table.shape[1] - prefix) for table in (before, after))
        grid = before[0, prefix:].T.reshape(1, -1, old, old)
        expected = torch.nn.functional.interpolate(grid, size=(new, new), mode="bilinear")[0].flatten(1).T
        torch.testing.assert_close(after[0, -new * new :], expected, rtol=0, atol=1e-6)
    last, resized = list(changed.values())[-1]
    assert torch.equal(resized[0, 0], last[0, 0])


def test_positions_that_cannot_be_resampled_are_refused_by_name(tmp_path):
    config = LevitConfig(image_size=32, hidden_sizes=[16, 16, 16], num_attention_heads=[1, 1, 1], depths=[1, 1, 1],
                         key_dim=[8, 8, 8], kernel_size=3, stride=2, patch_size=4)  # fmt: skip
    folder = save_hub(tmp_path / "saved", config, LABELS)
    with pytest.raises(UserError, match="attention_bias"):
        load_model(ModelSettings(str(folder), args={"image_size": 64}), LABELS, image_size=64)
