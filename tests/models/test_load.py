"""Loading never runs code, and a model gets the right weights and preprocessing."""

import json
import os

import pytest
import timm
import torch
from transformers import PvtConfig

from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.evaluate import main as evaluate_main
from hf_accel.models.load import load_model, load_model_processor, load_trained
from hf_accel.predict import main as predict_main
from hf_accel.runs.manifest import MANIFEST
from hf_accel.train import main as train_main
from hf_accel.train import train
from hf_accel.training.checkpointing import load_weights
from tests.models.test_positions import HUB, LABELS
from tests.support.saved_models import save_hub, save_timm

RESNET = {"channels": [8, 8, 16, 16]}
TWO = ["blue", "red"]


class Bomb:
    """Unpickled, it makes the file whose name it holds."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def with_pickle(folder, mark):
    """Replace the safetensors of a folder by a pickle that runs code when it is opened."""
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(mark), folder / "pytorch_model.bin")
    return folder


def with_remote_code(folder, mark):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Config: pass\nclass M: pass\n")
    return folder


def commands(folder, photos, output):
    image = str(next((photos / "test" / "red").iterdir()))
    data = ["--data.name", str(photos)]
    return {
        "train": (train_main, [*data, "--model.name", str(folder), "--output_dir", str(output)]),
        "evaluate": (evaluate_main, [str(folder), *data]),
        "predict": (predict_main, [str(folder), image]),
    }


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
@pytest.mark.parametrize("save", ["timm", "hub"])
def test_a_pickle_is_never_opened(command, save, photos, tmp_path, capsys):
    folder = tmp_path / "saved"
    save_timm(folder, "resnet10t", TWO, **RESNET) if save == "timm" else save_hub(folder, HUB["vit"], TWO)
    main, argv = commands(with_pickle(folder, tmp_path / "mark"), photos, tmp_path / "run")[command]
    assert run(main, argv) == 2
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert "pytorch_model.bin" in error
    assert "safetensors" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_code_of_a_repository_never_runs_and_nobody_is_asked(command, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked to run remote code"))
    folder = with_remote_code(save_hub(tmp_path / "saved", HUB["vit"], TWO), tmp_path / "mark")
    main, argv = commands(folder, photos, tmp_path / "run")[command]
    assert run(main, argv) == 2
    assert not (tmp_path / "mark").exists()
    error = capsys.readouterr().err
    assert "code of its own" in error
    assert "trust_remote_code" not in error


def test_a_checkpoint_with_pickled_weights_is_not_resumed(tmp_path):
    folder = save_timm(tmp_path / "saved", "resnet10t", TWO, **RESNET)
    model = load_trained(folder).model
    with pytest.raises(OSError, match="safetensors"):
        load_weights(model, with_pickle(folder, tmp_path / "mark"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_a_pickled_optimizer_state_that_runs_code_is_refused_by_the_trainer(tiny_recipe, tmp_path):
    from hf_accel.training.build import build_trainer

    trainer = build_trainer(tiny_recipe({"training": {"save_strategy": "epoch"}}))
    trainer.train()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    torch.save(Bomb(tmp_path / "mark"), checkpoint / "optimizer.pt")
    (checkpoint / MANIFEST).unlink()  # which says that the file is another one
    again = build_trainer(tiny_recipe({"training": {"save_strategy": "epoch", "num_train_epochs": 2}}))
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        again.train(resume_from_checkpoint=str(checkpoint))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_a_config_cannot_make_timm_open_a_file(key, tmp_path):
    folder = save_timm(tmp_path / "saved", "resnet10t", TWO, **RESNET)
    torch.save(Bomb(tmp_path / "mark"), tmp_path / "evil.pth")
    config = json.loads((folder / "config.json").read_text())
    value = str(tmp_path / "evil.pth")
    config["model_args"][key] = value if key == "checkpoint_path" else {"file": value}
    (folder / "config.json").write_text(json.dumps(config))
    for load in (lambda: load_trained(folder), lambda: load_model(ModelSettings(str(folder)), TWO)):
        with pytest.raises(UserError, match=key):
            load()
    settings = ModelSettings("timm/resnet10t", pretrained=False, args={key: value})
    with pytest.raises(UserError, match=key):
        load_model(settings, TWO)
    assert not (tmp_path / "mark").exists()


PVT = PvtConfig(image_size=32, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2])


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [(HUB["vit"], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]), (PVT, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])],
    ids=["vit", "pvt"],
)
def test_a_folder_without_a_processor_file_gets_the_default_of_its_architecture_and_says_so(
    config, mean, std, tmp_path
):
    folder = save_hub(tmp_path / "saved", config, LABELS)
    for loaded in (load_model(ModelSettings(str(folder)), LABELS), load_trained(folder)):
        assert list(loaded.processor.image_mean) == mean
        assert list(loaded.processor.image_std) == std
        assert loaded.image_size == 32
        (note,) = [note for note in loaded.notes if "preprocessor_config.json" in note]
        assert f"mean {mean}" in note


def test_a_timm_folder_without_preprocessing_gets_the_default_of_its_architecture_and_says_so(tmp_path):
    folder = save_timm(tmp_path / "saved", "vit_base_patch16_clip_224", LABELS, img_size=32, patch_size=8, embed_dim=16,
                       depth=1, num_heads=2)  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"]
    (folder / "config.json").write_text(json.dumps(config))
    expected = timm.get_pretrained_cfg("vit_base_patch16_clip_224")
    assert expected.mean != (0.5, 0.5, 0.5)
    for loaded in (load_model(ModelSettings(str(folder)), LABELS), load_trained(folder)):
        assert tuple(loaded.processor.data_config["mean"]) == pytest.approx(expected.mean)
        assert tuple(loaded.processor.data_config["std"]) == pytest.approx(expected.std)
        assert loaded.image_size == 32
        assert any("no pretrained_cfg" in note and str(list(expected.mean)) in note for note in loaded.notes)


def test_a_model_named_on_the_command_line_comes_with_its_weights(tmp_path):
    overrides = {"model": {"name": str(tmp_path)}}
    assert load_recipe("resnet20_cifar10").model.pretrained is False
    assert load_recipe("resnet20_cifar10", overrides=overrides).model.pretrained is True
    overrides["model"]["pretrained"] = False
    assert load_recipe("resnet20_cifar10", overrides=overrides).model.pretrained is False
    same = {"model": {"name": "hf_accel/cifar_resnet20"}}
    assert load_recipe("resnet20_cifar10", overrides=same).model.pretrained is False


def test_another_network_of_this_package_still_trains_from_scratch(tiny_recipe):
    other = load_recipe("resnet20_cifar10", overrides={"model": {"name": "hf_accel/cifar_resnet44"}})
    assert other.model.pretrained is False
    assert "from random weights" in load_model(other.model, LABELS).notes[0]


@pytest.mark.slow
def test_a_trained_folder_named_on_a_recipe_from_scratch_gives_its_own_weights(tiny_recipe, tmp_path):
    folder = train(tiny_recipe()) / "model"
    recipe = load_recipe("resnet20_cifar10", overrides={"model": {"name": str(folder)}})
    kept, trained = load_model(recipe.model, TWO).model.state_dict(), load_trained(folder).model.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in kept.items())


@pytest.mark.parametrize("damage", [lambda b: b[:4], lambda b: b[: len(b) // 2], lambda b: b"\xff" * 80 + b[80:]])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_of_a_model_is_one_message(name, damage, tmp_path):
    folder = save_timm(tmp_path / "saved", "resnet10t", ["a", "b"], channels=[8, 8, 16, 16])
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    for load in (load_trained, lambda folder: load_model(ModelSettings(str(folder)), ["a", "b"])):
        with pytest.raises(UserError, match=f"the folder {folder} holds no model that can be loaded"):
            load(folder)


@pytest.mark.parametrize(
    ("name", "pretrained", "size"),
    [
        ("hf_accel/cifar_resnet20", False, 16),
        ("timm/resnet18.a1_in1k", False, 48),
        ("timm/resnet18.a1_in1k", False, None),
        ("hub", True, 48),
        ("timm", True, None),
    ],
)
def test_the_processor_alone_is_that_of_the_model(name, pretrained, size, tmp_path):
    if name == "hub":
        name = str(save_hub(tmp_path, HUB["vit"], LABELS))
    elif name == "timm":
        name = str(save_timm(tmp_path, "vit_tiny_patch16_224", LABELS, img_size=32, depth=1, embed_dim=24, num_heads=2))
    settings = ModelSettings(name=name, pretrained=pretrained)
    processor, _ = load_model_processor(settings, size)
    whole = load_model(settings, TWO, size)
    assert processor.to_dict() == whole.processor.to_dict()


def test_the_processor_of_a_timm_model_that_is_not_here_is_timms_own():
    processor, (note,) = load_model_processor(ModelSettings("timm/mobilenetv2_100.ra_in1k"), 128)
    assert "mobilenetv2_100.ra_in1k is timm's: its files are not on this machine" in note
    assert list(processor.data_config["input_size"]) == [3, 128, 128]
    with pytest.raises(UserError, match="cannot be fetched from the Hub"):
        load_model_processor(ModelSettings("google/vit-base-patch16-224"))
