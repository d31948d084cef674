"""Settings that must not change the result of a training run: accumulation, a resume, the choice of the best checkpoint."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.load import load_model
from hf_accel.training.build import build_trainer

pytestmark = pytest.mark.slow

SIZE = 32
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "swinv2": {"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
               "window_size": 4, "drop_path_rate": 0.0},
    "swin": {"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
             "window_size": 4, "drop_path_rate": 0.0},
    "efficientnet": {"image_size": SIZE, "width_coefficient": 0.25, "depth_coefficient": 0.1, "dropout_rate": 0.0,
                     "drop_connect_rate": 0.0, "hidden_dim": 320},
    "vit": {**SMALL, **NO_DROPOUT, "patch_size": 8},
    "dinov2": {**SMALL, **NO_DROPOUT, "patch_size": 8, "mlp_ratio": 2},
    "beit": {**SMALL, **NO_DROPOUT, "patch_size": 8, "drop_path_rate": 0.0},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4, "image_size": SIZE},
}  # fmt: skip
TIMM = {
    "timm_vit": ("timm/vit_tiny_patch16_224", {"img_size": SIZE, "patch_size": 8, "depth": 2, "embed_dim": 48}),
    "timm_resnet": ("timm/resnet10t", {"channels": [8, 8, 16, 16]}),
    "cifar_resnet": ("hf_accel/cifar_resnet20", {"depth": 8, "width": 4}),
    "airbench": ("hf_accel/cifar_airbench94", {"widths": [8, 8, 8]}),
}


@pytest.fixture
def model_patch(tmp_path):
    """The `model:` section of a tiny model; a Hub architecture is saved as a folder first, with a processor."""

    def make(name):
        if name in TIMM:
            architecture, args = TIMM[name]
            return {"name": architecture, "pretrained": False, "args": args}
        folder = tmp_path / f"{name}_hub"
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(name, **CONFIGS[name])
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
        return {"name": str(folder), "pretrained": True, "args": {}}

    return make


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize("name", ["resnet", "swinv2", "efficientnet", "vit", "timm_vit"])
def test_micro_batches_give_the_loss_and_gradients_of_one_big_batch(name, model_patch, tiny_recipe, tmp_path):
    model = {**model_patch(name), "freeze_batch_norm": True}

    def run(batch, steps, folder):
        training = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": steps,
            "logging_steps": 1,
            "learning_rate": 0.05,
            "optim": "sgd",
            "max_grad_norm": 1e9,  # no clipping, but the norm is logged
            "output_dir": str(tmp_path / folder),
        }
        # 24 train images less 5 held out: windows of 8, 8 and 3 images, the last of micro-batches of 2 and 1
        # no crop: resizing rounds differently in frames of different size, which is not what is tested here
        data = {"image_size": SIZE, "augment": {"crop": "none"}}
        recipe = tiny_recipe({"model": model, "data": data, "training": training})
        trainer = build_trainer(recipe)
        assert len(trainer.train_dataset) % 8 not in (0, 2, 4, 6)
        trainer.train()
        return trainer

    big, small = run(8, 1, "big"), run(2, 4, "small")
    assert len(logged(big, "loss")) == len(logged(small, "loss")) == 3
    torch.testing.assert_close(logged(small, "loss"), logged(big, "loss"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logged(small, "grad_norm"), logged(big, "grad_norm"), rtol=1e-3, atol=1e-4)
    for (key, a), b in zip(small.model.state_dict().items(), big.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["vit", "timm_resnet", "cifar_resnet", "airbench"])
def test_activations_computed_again_give_the_same_model(name, model_patch, tiny_recipe, tmp_path):
    def state(checkpointing):
        training = {"gradient_checkpointing": checkpointing, "gradient_accumulation_steps": 2, "optim": "sgd",
                    "output_dir": str(tmp_path / str(checkpointing))}  # fmt: skip
        recipe = tiny_recipe({"model": model_patch(name), "data": {"image_size": SIZE}, "training": training})
        trainer = build_trainer(recipe)
        trainer.train()
        return trainer.model.state_dict()

    # the statistics of batch norm, too, which upstream moves twice
    torch.testing.assert_close(state(True), state(False))


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_a_model_that_cannot_compute_activations_again_is_refused(name, model_patch, tiny_recipe, tmp_path):
    recipe = tiny_recipe({"model": model_patch(name), "training": {"gradient_checkpointing": True}})
    with pytest.raises(UserError, match=r"gradient_checkpointing is true, and \w+ForImageClassification"):
        build_trainer(recipe)
    assert not (tmp_path / "run").exists()


FAMILIES = ["vit", "swin", "dinov2", "beit", "convnext", "resnet", "timm_resnet"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_checkpoint_is_the_model_you_get(name, model_patch, tiny_recipe, tmp_path):
    training = {"num_train_epochs": 3, "learning_rate": 0.3, "optim": "sgd", "save_total_limit": 5}
    recipe = tiny_recipe({"model": model_patch(name), "data": {"image_size": SIZE}, "training": training})
    trainer = build_trainer(recipe)
    scores = iter([0.2, 0.9, 0.1])  # the best is not the last
    trainer.compute_metrics = lambda _: {"accuracy": next(scores)}
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert int(best.rsplit("-", 1)[1]) == trainer.state.global_step * 2 // 3
    trainer.save_model(str(tmp_path / "kept"))

    on_disk = AutoModelForImageClassification.from_pretrained(best).state_dict()
    last_checkpoint = Path(best).with_name(f"checkpoint-{trainer.state.global_step}")
    last = AutoModelForImageClassification.from_pretrained(last_checkpoint).state_dict()
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "kept").state_dict()
    in_memory = trainer.model.state_dict()
    assert any(not torch.equal(on_disk[key], last[key]) for key in on_disk), "the checkpoints must differ"
    for key, value in on_disk.items():
        assert torch.equal(in_memory[key], value), key
        assert torch.equal(saved[key], value), key


@pytest.mark.parametrize("name", ["vit", "timm_resnet"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(name, model_patch, tiny_recipe, tmp_path):
    model = model_patch(name)

    def recipe(folder):
        training = {"num_train_epochs": 2, "save_strategy": "steps", "eval_strategy": "steps", "eval_steps": 1,
                    "save_steps": 1, "save_total_limit": 20, "load_best_model_at_end": False, "logging_steps": 1,
                    "output_dir": str(tmp_path / folder)}  # fmt: skip
        data = {"image_size": SIZE, "augment": {"crop": "random_resized", "flip": True}}
        return tiny_recipe({"model": model, "data": data, "training": training})

    whole = build_trainer(recipe("whole"))
    whole.train()
    resumed = build_trainer(recipe("whole"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.state.global_step == whole.state.global_step > 3
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_recipe, tmp_path):
    def weights(seed, folder):
        trainer = build_trainer(tiny_recipe({"training": {"seed": seed, "output_dir": str(tmp_path / folder)}}))
        trainer.train()
        return trainer.model.state_dict()

    first, again, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        generator = torch.Generator().manual_seed(row)
        return {"pixel_values": torch.randn(3, SIZE, SIZE, generator=generator), "labels": row % 2}


def stock_trainer(folder, model, **training):
    args = TrainingArguments(str(folder), use_cpu=True, report_to="none", max_grad_norm=1e9, seed=0,
                             per_device_eval_batch_size=8, **training)  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=Images(), eval_dataset=Images())


def test_upstream_still_multiplies_the_loss_of_a_resnet_by_the_accumulation_steps(model_patch, tmp_path):
    """When this fails, https://github.com/huggingface/transformers/issues/47688 is fixed: see ImageTrainer.loss."""
    losses = []
    for batch, steps in ((8, 1), (2, 4)):
        model = AutoModelForImageClassification.from_pretrained(model_patch("resnet")["name"])
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        trainer = stock_trainer(
            tmp_path / "stock", model, max_steps=1, logging_steps=1, save_strategy="no",
            per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
        )  # fmt: skip
        trainer.train()
        losses.append(logged(trainer, "loss")[0])
    assert losses[1] > 3 * losses[0]


def test_upstream_still_drops_the_encoder_of_a_vit_when_it_loads_a_checkpoint(model_patch, tmp_path):
    """When this fails, https://github.com/huggingface/transformers/issues/48805 is fixed: see load_weights."""
    folder = model_patch("vit")["name"]
    model = AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    trainer = stock_trainer(tmp_path / "stock", model)
    trainer._load_from_checkpoint(folder)
    assert any(not parameter.any() for name, parameter in model.named_parameters() if name.endswith("weight"))


def test_a_loaded_model_trains_in_float32_whatever_the_file_holds(model_patch, tmp_path):
    patch = model_patch("vit")
    AutoModelForImageClassification.from_pretrained(patch["name"], dtype=torch.float16).save_pretrained(
        tmp_path / "half"
    )
    AutoImageProcessor.from_pretrained(patch["name"]).save_pretrained(tmp_path / "half")
    assert "F16" in (tmp_path / "half" / "model.safetensors").read_bytes()[:4000].decode("latin-1")
    loaded = load_model(ModelSettings(str(tmp_path / "half")), ["a", "b", "c"])
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
