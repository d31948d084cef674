"""The recipes of ImageNet run as they are, for a few steps on small photographs, streamed and loaded."""

import json

import pytest

from hf_accel.config.recipe import load_recipe, variant_names
from hf_accel.evaluate import main as evaluate
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from tests.support.saved_models import save_timm
from tests.support.shards import pack_parquet

RECIPES = ("resnet50_imagenet", "efficientnet_b0_imagenet", "vit_base_imagenet")
SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 2}


@pytest.fixture(scope="module")
def packed(data_dir, tmp_path_factory):
    return pack_parquet(data_dir / "clothing", tmp_path_factory.mktemp("packed") / "clothing", 150, 40)


@pytest.mark.parametrize("name", RECIPES)
def test_every_schedule_and_optimizer_streams_and_has_both_batches(name):
    """16 epochs and 88 of them, Adam and SGD; one GPU takes the steps of eight."""
    recipes = {variant: load_recipe(name, variant) for variant in (None, *variant_names(name))}
    plain = recipes[None]
    assert (plain.data.streaming, plain.data.cache, plain.data.validation) == (True, "none", 0)
    assert (plain.training["num_train_epochs"], recipes["epochs_88"].training["num_train_epochs"]) == (16, 88)
    other = "sgd" if name.startswith("vit") else "adamw"
    assert recipes[f"{other}_88"].training["num_train_epochs"] == 88
    assert {recipes[other].training["optim"], plain.training["optim"]} == {"sgd", "adamw_torch_fused"}
    assert recipes["one_gpu"].training["gradient_accumulation_steps"] == 8
    assert not recipes["cached"].data.streaming
    assert not any(recipe.model.pretrained for recipe in recipes.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_on_small_photographs_streamed_and_loaded(name, packed, tmp_path):
    def run(streaming):
        data = {"name": str(packed), "streaming": streaming, "cache": "none", "image_size": 64, "max_test_rows": 20}
        data |= {"cache_size": None, "progressive_resizing": {"start": 32}}
        training = {"per_device_train_batch_size": 4, "max_steps": 3, "logging_steps": 1, "save_strategy": "no", "bf16": False,
                    "dataloader_num_workers": 0, "output_dir": str(tmp_path / str(streaming))}  # fmt: skip
        model = {"args": SMALL} if name.startswith("vit") else {}
        return RunReport.load(train(load_recipe(name, None, {"data": data, "training": training, "model": model})))

    streamed, loaded = run(True), run(False)
    assert streamed.train.steps == loaded.train.steps == 3
    if not name.startswith("vit"):  # which mixes a row of a stream with one of its batch, and else with any
        assert [row["loss"] for row in streamed.history] == [row["loss"] for row in loaded.history]
        assert streamed.test.loss == loaded.test.loss


@pytest.mark.slow
def test_a_trained_model_is_tested_at_a_larger_size(photos, tmp_path, capsys):
    model = save_timm(tmp_path / "model", "resnet10t", ["blue", "red"])

    def scores(*flags):
        assert evaluate([str(model), "--data.name", str(photos), "--format", "json", *flags]) == 0
        return json.loads(capsys.readouterr().out)

    own, larger = scores(), scores("--data.image_size", "96")
    assert own["rows"] == larger["rows"]
    assert own["loss"] != larger["loss"]
