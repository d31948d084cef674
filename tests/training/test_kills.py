"""SIGKILL at random moments, then the same command until the run ends: it ends as if nothing had happened.

`pytest -m kills tests/training/test_kills.py -s` kills each family HF_ACCEL_KILLS times (default 12) and prints a line for
each. A few kills of two families are part of the slow tests.
"""

import os

import pytest
from transformers import ConvNextConfig, Dinov2Config, ResNetConfig, SwinConfig, ViTConfig, ViTImageProcessor

from hf_accel.config.recipe import apply_patch, load_recipe
from tests.conftest import TINY, write_photos
from tests.support.killed_runs import Family, FamilyOfTwo
from tests.support.saved_models import save_hub
from tests.support.texts import text_recipe

KILLS = int(os.environ.get("HF_ACCEL_KILLS", "12"))
SEED = int(os.environ.get("KILLS_SEED", "0"))
STEPS = {"num_train_epochs": 3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps",
         "eval_steps": 2}  # fmt: skip
TIMM_VIT = {
    "name": "timm/vit_tiny_patch16_224",
    "pretrained": False,
    "args": {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2, "proj_drop_rate": 0.5},
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16,
         "patch_size": 8, "hidden_dropout_prob": 0.2}  # fmt: skip
CONFIGS = {
    "ViT": lambda: ViTConfig(**SMALL),
    "Swin": lambda: SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
    "DINOv2": lambda: Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=16,
                                   patch_size=8, drop_path_rate=0.2),
    "ConvNeXt": lambda: ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, drop_path_rate=0.2),
    "ResNet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"),
}  # fmt: skip
# A model of CONFIGS or a patch, and what else is asked for.
FAMILIES = {
    "timm ResNet, disk cache": (None, {"data": {"cache": "disk"}}),
    "timm ViT, mixup, average, disk cache": (
        None, {"model": TIMM_VIT, "data": {"cache": "disk", "augment": {"mixup": 0.5}}, "training": {"ema_decay": 0.9}},
    ),
    "ViT, accumulation": (
        "ViT", {"training": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_steps": 3}},
    ),
    "Swin, bf16": ("Swin", {"training": {"bf16": True}}),
    "DINOv2, best model": (
        "DINOv2", {"training": {"load_best_model_at_end": True, "metric_for_best_model": "loss", "save_total_limit": 1}},
    ),
    "ConvNeXt, Muon, cutmix": (
        "ConvNeXt", {"data": {"augment": {"cutmix": 1.0}},
                     "training": {"optim": "muon", "learning_rate": 0.05, "optim_args": "head_lr=0.5,bias_lr=0.05"}},
    ),
    "ResNet, loader workers": ("ResNet", {"data": {"cache": "none"}, "training": {"dataloader_num_workers": 1}}),
    "XLNet": ("XLNet", {}),
    "two processes": (None, {"data": {"cache": "disk"}, "training": {"per_device_train_batch_size": 4}}),
}  # fmt: skip


def command(family, place):
    """The words of a command of this family, on data and weights that are made in the folder."""
    model, patch = FAMILIES[family]
    if model == "XLNet":
        recipe = text_recipe(place, {"training": STEPS}, patch)
    else:
        asked = {"data": {"name": str(write_photos(place)), "cache_dir": str(place / "cache")}, "training": STEPS}
        if model is not None:
            folder = save_hub(place / "model", CONFIGS[model](), ["blue", "red"])
            ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
            asked["model"] = {"name": str(folder), "pretrained": True}
        recipe = load_recipe("finetune", overrides=apply_patch(apply_patch(TINY, asked), patch))
    recipe.write(place / "recipe.yaml")
    return ["--recipe", str(place / "recipe.yaml")]


@pytest.mark.kills
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(family, tmp_path, capsys):
    kind = FamilyOfTwo if family == "two processes" else Family
    tally = kind(tmp_path, command(family, tmp_path), f"{SEED} {family}").kill(
        max(1, KILLS // 3) if kind is FamilyOfTwo else KILLS
    )
    with capsys.disabled():
        print(f"\n{family}: {tally}")
    assert not tally.differences


@pytest.mark.slow
@pytest.mark.parametrize("family", ["timm ViT, mixup, average, disk cache", "XLNet"])
def test_a_few_kills(family, tmp_path):
    tally = Family(tmp_path, command(family, tmp_path)).kill(5)
    assert tally.kills == 5
    assert not tally.differences


@pytest.mark.slow
def test_a_run_whose_random_numbers_are_not_restored_is_found(tmp_path):
    """The negative control: dropout draws other numbers after a kill."""
    family = Family(tmp_path, command("timm ViT, mixup, average, disk cache", tmp_path), restores_random_states=False)
    tally = family.kill(1, ("training", 6))  # the second step after a checkpoint
    assert any("weights" in difference for difference in tally.differences), str(tally)
