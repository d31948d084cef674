import numpy as np
import pytest
import torch

from hf_accel.config.sections import AugmentSettings
from hf_accel.inputs import cache
from hf_accel.inputs.features import FeatureBatches
from hf_accel.methods.linear_probe import LinearProbe, random_changes
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.training.search import of_recipe
from tests.support.two_processes import train_in_two_processes

PROBE = {
    "model": {"freeze": "backbone"},
    "data": {"augment": {"crop": "none", "flip": False}},
    "training": {"num_train_epochs": 3, "logging_steps": 1},
}
WHOLE = {"data": {"cache": "none"}}
RESNET18 = {"name": "timm/resnet18", "pretrained": False}


def probes(trainer):
    return [method for method in trainer.methods if isinstance(method, LinearProbe)]


def figures(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def note_of(trainer):
    return next(note for note in trainer.notes if note.startswith("linear probe: "))


@pytest.mark.parametrize(
    "patch",
    [
        {},
        pytest.param({"model": {**RESNET18, "dropout": 0.4}}, marks=pytest.mark.slow),
        {"training": {"bf16": True}},
        {"training": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}},
        {"training": {"ema_decay": 0.9, "label_smoothing_factor": 0.1}, "data": {"class_weights": [0.5, 2.0]}},
        {"training": {"focal_gamma": 2.0, "optim": "sgd", "early_stopping_patience": 1}},
        {"data": {"test_time_augmentation": "flip"}},
        {"data": {"transforms": "loader"}},
        {"data": {"cache": "device"}},
        {"training": {"dataloader_num_workers": 1}},
        pytest.param({"training": {"torch_compile": True, "torch_compile_backend": "eager"}}, marks=pytest.mark.slow),
    ],
    ids=[
        "plain",
        "dropout",
        "bf16",
        "accumulation",
        "ema",
        "early stopping",
        "views",
        "loader",
        "device",
        "worker",
        "compiled",
    ],
)
def test_a_run_on_features_takes_the_steps_of_the_whole_network(patch, tiny_recipe):
    stored = build_trainer(tiny_recipe(PROBE, patch))
    stored.train()
    whole = build_trainer(tiny_recipe(PROBE, patch, WHOLE))  # seeds the random numbers again, those of dropout
    whole.train()
    assert len(probes(stored)) == 1
    assert not probes(whole)
    for name in ("loss", "eval_loss", "eval_accuracy", "grad_norm"):
        assert figures(stored, name) == pytest.approx(figures(whole, name), rel=1e-4), name
    assert len(figures(stored, "loss")) == stored.state.global_step > 3
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(stored.model.state_dict()[name], value, msg=name)
    first, second = (trainer.score(trainer.test_dataset).metrics["test_loss"] for trainer in (stored, whole))
    assert first == pytest.approx(second, rel=1e-4)


def test_the_backbone_sees_each_row_once(tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE))
    rows = []
    trainer.model.timm_model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    trainer.train()
    assert sum(rows) == len(trainer.splits.train) + len(trainer.splits.validation)
    assert isinstance(trainer.train_dataset, FeatureBatches)
    assert (
        trainer.train_dataset.features is None
    )  # afterwards an evaluation asks the network, whatever it holds by then
    before = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(figures(trainer, "eval_loss")[-1])
    with torch.no_grad():
        next(trainer.model.parameters()).zero_()
    assert trainer.evaluate()["eval_loss"] != pytest.approx(before)


def test_the_report_says_that_the_pass_over_the_images_counts(tiny_recipe):
    folder = train(tiny_recipe(PROBE, {"training": {"num_train_epochs": 4}}))
    report = RunReport.load(folder)
    assert 0 < report.train.feature_seconds < report.train.seconds
    assert any("linear probe: the classifier trains on its input (16 numbers per image)" in n for n in report.notes)
    assert report.history[0]["seconds"] >= report.train.feature_seconds
    assert "for the features" in report.table()
    assert "Of it, the classifier's inputs, computed once" in (folder / "model" / "README.md").read_text()
    assert (folder / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"data": {"augment": {"flip": True}}}, "data.augment.flip changes training images at random"),
        ({"data": {"augment": {"mixup": 0.2}}}, "data.augment.mixup"),
        ({"data": {"progressive_resizing": {"start": 8}}}, "data.progressive_resizing"),
        (WHOLE, "data.cache is none"),
        ({"training": {"num_train_epochs": 1}}, "no image is read twice"),
        ({"training": {"max_steps": 2}}, "no image is read twice"),
        ({"model": {"name": "timm/levit_128s", "pretrained": False}, "data": {"image_size": 224}}, "not one module"),
    ],
)
def test_otherwise_the_whole_network_is_trained_and_a_note_says_why(patch, reason, tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE, patch))
    assert not probes(trainer)
    assert reason in note_of(trainer)


def test_features_that_do_not_fit_into_memory_are_not_stored(tiny_recipe, monkeypatch):
    monkeypatch.setattr(cache.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    trainer = build_trainer(tiny_recipe(PROBE, {"data": {"cache": "disk"}}))
    assert "its inputs take 1.5 KiB" in note_of(trainer)
    assert not probes(trainer)


def test_a_run_that_trains_more_than_the_classifier_has_no_note(tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE, {"model": {"freeze": "none"}}))
    assert not probes(trainer)
    assert not [note for note in trainer.notes if "linear probe" in note]


def test_a_caller_who_lets_more_of_the_network_learn_trains_it(tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE))
    trainer.model.requires_grad_(True)
    before = next(trainer.model.parameters()).clone()
    trainer.train()
    assert not torch.equal(before, next(trainer.model.parameters()))


def test_a_run_that_begins_again_with_new_weights_computes_the_whole_network(tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE))
    trainer.model_init = of_recipe  # as each trial of a search
    trainer.train()
    assert not probes(trainer)
    assert len(figures(trainer, "eval_loss")) == 3


def test_rows_that_are_tensors_are_probed(tiny_recipe):
    images = torch.randn(20, 3, 16, 16)
    rows = [(image, number % 2) for number, image in enumerate(images)]
    trainer = build_trainer(tiny_recipe(PROBE), {"train": rows[:12], "validation": rows[12:16], "test": rows[16:]})
    assert probes(trainer)
    trainer.train()
    assert np.isfinite(figures(trainer, "eval_loss")).all()


def test_images_that_a_caller_changes_are_not_probed(tiny_recipe):
    trainer = build_trainer(tiny_recipe(PROBE), train_transform=lambda image: image)
    assert "train_transform" in note_of(trainer)


PARAMETERS_OF_CROP = {"pad", "pad_mode", "scale", "ratio"}
NOT_A_SECTION = {"crop": "pad", "flip": "alternating", "random_erasing": 0.5, "mixup": 0.5, "cutmix": 0.5}
WITH_ARGUMENTS = {"rotation": {"degrees": 9}, "chain": {"operations": [{"invert": {}}]}}


@pytest.mark.parametrize("name", sorted(AugmentSettings.__dataclass_fields__.keys() - PARAMETERS_OF_CROP))
def test_every_random_change_is_found(name):
    assert random_changes(AugmentSettings(**{name: (NOT_A_SECTION | WITH_ARGUMENTS).get(name, {})})) == [name]


@pytest.mark.slow
def test_two_processes_train_on_the_features_of_one(tiny_recipe, tmp_path):
    def recipe(folder, batch, size):
        training = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": size,
                    "output_dir": str(tmp_path / folder)}  # fmt: skip
        return tiny_recipe(PROBE, {"data": {"validation": 0.33}, "training": training})  # 16 rows: whole batches

    one = RunReport.load(train(recipe("one", 8, 7)))
    two = train_in_two_processes(recipe("two", 4, 3), tmp_path / "two.yaml")
    assert one.train.world_size == 1
    assert two.train.feature_seconds > 0
    assert [row["loss"] for row in two.history] == pytest.approx([row["loss"] for row in one.history], rel=1e-4)
    assert two.validation.loss == pytest.approx(one.validation.loss, rel=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)
