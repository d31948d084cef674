"""A teacher of texts reads the tokens of its student, so it must have the same tokenizer."""

import shutil

import pytest

from hf_accel.errors import UserError
from hf_accel.training.build import build_trainer
from tests.support.texts import LABELS, save_text_model, text_recipe, word_tokenizer

NO_DROPOUT = {"dropout": 0.0, "summary_last_dropout": 0.0}


def first_loss(place, **patch):
    training = {"distillation_weight": 1.0, "logging_steps": 1, "max_steps": 1}
    trainer = build_trainer(text_recipe(place, {"model": {"args": NO_DROPOUT}, "training": training}, patch))
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_and_another_has(tmp_path):
    student = save_text_model(tmp_path / "xlnet", "xlnet", LABELS)
    teacher = shutil.copytree(student, tmp_path / "teacher")
    assert first_loss(tmp_path, model={"teacher": str(teacher)}) == pytest.approx(0, abs=1e-5)
    assert first_loss(tmp_path, model={"teacher": str(teacher), "pretrained": False}) > 1e-3


def test_a_teacher_with_another_tokenizer_or_for_shorter_texts_is_refused(tmp_path):
    teacher = save_text_model(tmp_path / "teacher", "bert", LABELS)
    with pytest.raises(
        UserError, match=r"tiny: model\.teacher is .*teacher, which has another tokenizer than the model"
    ):
        build_trainer(text_recipe(tmp_path, {"model": {"teacher": str(teacher)}}))
    word_tokenizer("left").save_pretrained(teacher)
    with pytest.raises(UserError, match=r"which takes 32 tokens\. Set data\.max_length to at most as many; it is 64"):
        build_trainer(text_recipe(tmp_path, {"model": {"teacher": str(teacher)}, "data": {"max_length": 64}}))
