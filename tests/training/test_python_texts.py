"""`build_trainer` with texts and models of a Python caller: trained, scored, predicted, saved."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import hf_accel
from hf_accel import build_trainer
from hf_accel.errors import UserError
from tests.support.texts import LABELS, rows, save_text_model, text_recipe, word_tokenizer

ROWS = rows(24)
TEXTS = [row["text"] for row in ROWS]


def given_model(folder, kind="bert", labels=LABELS):
    return AutoModelForSequenceClassification.from_pretrained(save_text_model(folder, kind, labels))


def test_given_rows_train_the_recipes_model_and_new_ones_are_predicted(tmp_path):
    trainer = build_trainer(text_recipe(tmp_path), ROWS)
    trainer.train()
    output = trainer.predict(TEXTS)
    assert output.predictions.shape == (24, 2)
    assert output.label_ids is None
    scored = trainer.predict([(row["text"], row["label"]) for row in ROWS])
    assert scored.label_ids.tolist() == [0, 1] * 12
    assert trainer.splits.name == "given as list"


@pytest.mark.parametrize("kind", ["xlnet", "gpt2"])
def test_a_given_model_is_trained_in_place_with_its_own_tokenizer_and_saved_for_a_pipeline(tmp_path, kind):
    model = given_model(tmp_path / "given", kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = build_trainer(text_recipe(tmp_path), ROWS, model=model)
    assert trainer.model is model
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    answers = pipeline("text-classification", model=str(tmp_path / "saved"), truncation=True)(TEXTS)
    logits = torch.from_numpy(trainer.predict(TEXTS).predictions)
    assert [answer["label"] for answer in answers] == [LABELS[number] for number in logits.argmax(-1)]
    assert [answer["score"] for answer in answers] == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=1e-4)


def test_a_given_tokenizer_is_used_and_saved(tmp_path):
    model = given_model(tmp_path / "given")
    model.config._name_or_path = ""
    with pytest.raises(
        UserError, match=r"tokenizer of BertForSequenceClassification is not known\. Give it with processor="
    ):
        build_trainer(text_recipe(tmp_path), ROWS, model=model)
    tokenizer = word_tokenizer("left")
    trainer = build_trainer(text_recipe(tmp_path, {"data": {"max_length": 16}}), ROWS, model=model, processor=tokenizer)
    assert trainer.train_dataset.padding.pads_left
    trainer.save_model(str(tmp_path / "saved"))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").model_max_length == 16


def test_peft_around_a_given_model_is_trained(tmp_path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(given_model(tmp_path / "given"), peft.LoraConfig(task_type="SEQ_CLS", r=2))
    trainer = build_trainer(text_recipe(tmp_path), ROWS, model=adapted)
    trainer.train()
    assert trainer.predict(TEXTS).predictions.shape == (24, 2)


def test_what_is_not_a_classifier_of_these_texts_is_refused(tmp_path):
    recipe = text_recipe(tmp_path)
    with pytest.raises(UserError, match="is of the type Linear, expected a text classifier of transformers"):
        build_trainer(recipe, ROWS, model=torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="has 3 classes, and the data has 2"):
        build_trainer(recipe, ROWS, model=given_model(tmp_path / "given", labels=["a", "b", "c"]))
    with pytest.raises(UserError, match="processor: is of the type int, expected a tokenizer"):
        build_trainer(recipe, ROWS, model=given_model(tmp_path / "other"), processor=3)


def test_texts_are_predicted_by_a_folder_a_model_and_a_trainer(tmp_path):
    folder = save_text_model(tmp_path / "given", "bert", LABELS)
    file = tmp_path / "more.txt"
    file.write_text("\n".join(TEXTS[1:]), "utf-8")
    expected = pipeline("text-classification", model=str(folder))(TEXTS)
    model = AutoModelForSequenceClassification.from_pretrained(folder).train()
    for given in (folder, model, build_trainer(text_recipe(tmp_path), ROWS, model=model)):
        found = hf_accel.predict(given, [TEXTS[0], file], batch_size=5)
        assert [(answer.text, answer.file) for answer in found[:2]] == [(TEXTS[0], None), (TEXTS[1], str(file))]
        assert [answer.label for answer in found] == [answer["label"] for answer in expected]
        assert [answer.score for answer in found] == pytest.approx([answer["score"] for answer in expected], abs=1e-4)
    assert hf_accel.predict(folder, TEXTS[0], top_k=1)[0].top == [
        (expected[0]["label"], pytest.approx(expected[0]["score"], abs=1e-4))
    ]
    with pytest.raises(UserError, match="row 1 of the texts that are given: cannot be classified: it is blank"):
        hf_accel.predict(folder, ["good", " "])
    with pytest.raises(UserError, match="texts: row 0 is of the type int, expected a text"):
        hf_accel.predict(folder, [3])
    with pytest.raises(UserError, match="texts: there are none"):
        hf_accel.predict(folder, [])
