"""A student with a teacher: what it learns, what is saved, and what is refused before any step."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from hf_accel.config.recipe import apply_patch
from hf_accel.errors import UserError
from hf_accel.training.build import build_trainer
from tests.support.saved_models import save_timm

LABELS = ["blue", "red"]
NO_SAVING = {"training": {"eval_strategy": "no", "save_strategy": "no"}}


@pytest.fixture
def untrained(tmp_path):
    """A teacher whose classes are in another order than those of the data, and whose images are larger."""
    return save_timm(tmp_path / "teacher", "cifar_resnet20", LABELS[::-1], depth=8, width=4)


def refusal(recipe, **given):
    with pytest.raises(UserError) as refused:
        build_trainer(recipe, **given)
    return str(refused.value)


def test_the_teacher_is_part_of_the_loss_and_not_of_the_model(tiny_recipe, untrained):
    alone = build_trainer(tiny_recipe())
    taught = build_trainer(tiny_recipe({"model": {"teacher": str(untrained)}}))
    assert list(taught.model.state_dict()) == list(alone.model.state_dict())
    assert any(
        note.startswith("teacher:") and "weight 0.5" in note and "temperature 2" in note for note in taught.notes
    )
    (method,) = taught.batch_losses
    assert method.order.tolist() == [1, 0]
    assert method.view(taught.example(taught.model))["pixel_values"].shape[-2:] == (32, 32)


def test_the_folder_of_a_run_stands_for_the_model_in_it(tiny_recipe, untrained, tmp_path):
    (tmp_path / "run_of_teacher").mkdir()
    untrained.rename(tmp_path / "run_of_teacher" / "model")
    recipe = tiny_recipe({"model": {"teacher": str(tmp_path / "run_of_teacher")}})
    assert len(build_trainer(recipe).batch_losses) == 1


def test_a_weight_of_zero_leaves_the_teacher_out(tiny_recipe, untrained):
    recipe = tiny_recipe({"model": {"teacher": str(untrained)}, "training": {"distillation_weight": 0}})
    assert build_trainer(recipe).batch_losses == []


def test_a_teacher_of_other_classes_is_refused_by_name(tiny_recipe, tmp_path):
    save_timm(tmp_path / "other", "cifar_resnet20", ["blue", "green"], depth=8, width=4)
    message = refusal(tiny_recipe({"model": {"teacher": str(tmp_path / "other")}}))
    assert "model.teacher is" in message
    assert "only the data has 'red' and only the teacher has 'green'" in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere/teacher", "model.teacher: ./nowhere/teacher: no such folder"),
        ("someone/teacher-of-cats", "model.teacher: someone/teacher-of-cats is not on this machine"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_refused(tiny_recipe, name, words):
    assert words in refusal(tiny_recipe({"model": {"teacher": name}}))


def test_a_teacher_with_weights_that_are_not_finite_is_refused(tiny_recipe, untrained):
    tensors = load_file(untrained / "model.safetensors")
    tensors["timm_model.conv1.weight"].fill_(float("nan"))
    save_file(tensors, untrained / "model.safetensors", {"format": "pt"})
    assert "holds values that are not finite" in refusal(tiny_recipe({"model": {"teacher": str(untrained)}}))


def test_tensors_of_an_unknown_normalisation_are_refused_and_own_images_are_not(tiny_recipe, untrained):
    recipe = tiny_recipe({"model": {"teacher": str(untrained)}, **NO_SAVING})
    message = refusal(recipe, train_transform=lambda image: torch.zeros(3, 16, 16))
    assert "model.teacher sees the images of the student with a normalisation of its own" in message
    build_trainer(recipe, train_transform=lambda image: image.transpose(0)).train()


@pytest.mark.parametrize("kind", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_a_teacher_is_refused_where_models_are_sharded(tiny_recipe, untrained, monkeypatch, kind):
    start = Trainer.create_accelerator_and_postprocess

    def start_sharded(trainer):
        start(trainer)
        setattr(trainer, kind, True)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", start_sharded)
    message = refusal(tiny_recipe({"model": {"teacher": str(untrained)}}))
    assert "model.teacher is a whole model in every process" in message


@pytest.mark.slow
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_student_of_weight_one_learns_what_the_teacher_says_and_not_what_the_labels_say(tiny_recipe, tmp_path, mixup):
    def trained(*patches):
        training = {"num_train_epochs": 8, "learning_rate": 1e-2, "eval_strategy": "no", "save_strategy": "no"}
        recipe = tiny_recipe({"training": training}, *patches)
        trainer = build_trainer(recipe)
        if patches:
            labels = trainer.train_dataset.labels
            labels[:] = 1 - labels
        trainer.train()
        return trainer

    teacher = trained()
    teacher.model.save_pretrained(tmp_path / "teacher")
    taught = {"model": {"teacher": str(tmp_path / "teacher")}, "data": {"augment": {"mixup": mixup}}}
    accuracies = []
    for weight in (None, 1.0, 0.0):
        patch = apply_patch(taught, {"training": {"distillation_weight": weight}})
        trainer = teacher if weight is None else trained(patch)
        accuracies.append(trainer.evaluate(trainer.test_dataset)["eval_accuracy"])
    of_teacher, of_student, of_control = accuracies
    assert of_teacher == of_student == 1.0
    assert of_control == 0.0  # it learns that blue is red


@pytest.mark.slow
def test_the_loss_that_is_logged_is_the_mean_over_the_rows_of_both_parts(tiny_recipe, untrained):
    training = {"distillation_weight": 0.5, "logging_steps": 1, "max_steps": 1, "optim": "sgd", "learning_rate": 0.0}

    def first_loss(weight):
        patch = {"training": training | {"distillation_weight": weight}, "model": {"teacher": str(untrained)}}
        trainer = build_trainer(tiny_recipe(NO_SAVING, patch))
        trainer.train()
        return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)

    label, both, teacher = (first_loss(weight) for weight in (0.0, 0.5, 1.0))
    assert both == pytest.approx((label + teacher) / 2, rel=1e-5)
    assert not np.isclose(label, teacher)
