"""Text classifiers are loaded for other labels, with a tokenizer that fits them."""

import pytest
import torch

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.text import load_text_model, load_trained_text, text_flops
from tests.support.saved_models import save_timm
from tests.support.texts import CONFIGS, LABELS, save_text_model, word_tokenizer


def settings(folder, **others):
    return ModelSettings(name=str(folder), task="text-classification", **others)


def example(length):
    return {
        "input_ids": torch.zeros(1, length, dtype=torch.int64),
        "attention_mask": torch.ones(1, length, dtype=torch.int64),
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_gets_a_new_classifier_for_other_labels_and_keeps_the_rest(kind, tmp_path):
    folder = save_text_model(tmp_path / kind, kind)
    before = load_trained_text(folder).model.state_dict()
    loaded = load_text_model(settings(folder), ["a", "b", "c"])
    after = loaded.model.state_dict()
    changed = {
        name for name in before if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])
    }
    assert changed
    assert all(len(after[name]) == 3 for name in changed)
    assert loaded.label_names == ["a", "b", "c"]
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters())
    assert loaded.model(**example(5)).logits.shape == (1, 3)


def test_the_classifier_is_kept_for_the_same_labels_only(tmp_path):
    folder = save_text_model(tmp_path / "bert", "bert", LABELS)
    assert any("the classifier is kept" in note for note in load_text_model(settings(folder), LABELS).notes)
    notes = load_text_model(settings(folder), LABELS[::-1]).notes
    assert any("new classifier, from random weights" in note for note in notes)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"d_head": 64}, r"`d_head` \(64\) should be equal to `d_model // n_head`"),
        ({"n_layer": "two"}, "expected int, got str"),
        ({"n_head": 0}, "by zero"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_the_first_step(args, message, tmp_path):
    """The config is checked when it is saved, after the first epoch, and not when it is changed."""
    folder = save_text_model(tmp_path / "xlnet")
    with pytest.raises(UserError, match=rf"model\.args: XLNetConfig: .*{message}"):
        load_text_model(settings(folder, pretrained=False, args=args), LABELS)


def test_a_model_from_random_weights_has_the_shape_that_is_asked_for(tmp_path):
    folder = save_text_model(tmp_path / "xlnet")
    loaded = load_text_model(settings(folder, pretrained=False, args={"n_layer": 1, "d_inner": 24}), LABELS)
    assert (loaded.model.config.n_layer, loaded.model.config.d_inner) == (1, 24)
    with pytest.raises(UserError, match="XLNetConfig has no n_layers"):
        load_text_model(settings(folder, args={"n_layers": 1}), LABELS)
    with pytest.raises(
        UserError, match=r"has another shape in the weights of .* than its config.json and model.args say"
    ):
        load_text_model(settings(folder, args={"d_inner": 24}), LABELS)


@pytest.mark.parametrize(("kind", "asked", "expected"), [("xlnet", None, 512), ("xlnet", 700, 700), ("bert", None, 32)])
def test_texts_are_as_long_as_the_model_takes_or_as_is_asked(kind, asked, expected, tmp_path):
    loaded = load_text_model(settings(save_text_model(tmp_path / kind, kind)), LABELS, asked)
    assert loaded.max_length == loaded.processor.model_max_length == expected


def test_a_trained_model_keeps_the_length_of_its_training(tmp_path):
    loaded = load_text_model(settings(save_text_model(tmp_path / "xlnet")), LABELS, 700)
    loaded.model.save_pretrained(tmp_path / "trained")
    loaded.processor.save_pretrained(tmp_path / "trained")
    assert load_trained_text(tmp_path / "trained").max_length == 700
    assert load_trained_text(tmp_path / "xlnet").max_length == 512


def test_a_tokenizer_without_padding_gets_some_that_the_model_knows(tmp_path):
    loaded = load_text_model(settings(save_text_model(tmp_path / "gpt2", "gpt2")), LABELS)
    assert loaded.processor.pad_token == "</s>"
    assert loaded.model.config.pad_token_id == loaded.processor.pad_token_id == 3
    assert "the tokenizer has no padding token: </s> is used" in loaded.notes


def test_xlnet_gives_no_memory_that_nobody_reads(tmp_path):
    loaded = load_text_model(settings(save_text_model(tmp_path / "xlnet")), LABELS)
    assert loaded.model.eval()(**example(6)).mems is None


def test_padding_does_not_change_the_answer_of_xlnet(tmp_path):
    model = load_text_model(settings(save_text_model(tmp_path / "xlnet")), LABELS).model.eval()
    plain = example(6)
    padded = {"input_ids": torch.tensor([[1] * 10 + [0] * 6]), "attention_mask": torch.tensor([[0] * 10 + [1] * 6])}
    torch.testing.assert_close(model(**plain).logits, model(**padded).logits)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: save_timm(f, "cifar_resnet20", ["a", "b"], depth=8, width=4), "timm_wrapper, which has no classifier of"),
        (lambda f: [save_text_model(f), *[p.unlink() for p in f.glob("tokenizer*")]], "has no tokenizer: expected files such as"),
        (lambda f: [save_text_model(f), (f / "model.safetensors").unlink()], "pickle"),
        (lambda f: f.mkdir(), "holds no model that can be loaded"),
    ],
)  # fmt: skip
def test_a_folder_without_a_text_classifier_is_refused(make, message, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(UserError, match=message):
        load_text_model(settings(tmp_path / "model"), LABELS)


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    folder = save_text_model(tmp_path / "bert", "bert")
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"has 21 tokens and the model 20 embeddings"):
        load_text_model(settings(folder), LABELS)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_operations_of_any_length_follow_from_those_of_three(kind, tmp_path):
    model = load_text_model(settings(save_text_model(tmp_path / kind, kind)), LABELS).model
    flops = text_flops(model, example, 32)
    for length in (5, 8, 24):
        assert flops(length) == text_flops(model, example, length)(length)
    assert flops(24) - flops(16) > flops(16) - flops(8)  # attention grows with the square of the length


def test_a_text_that_is_too_long_for_the_model_is_refused_before_training(tmp_path):
    model = load_text_model(settings(save_text_model(tmp_path / "bert", "bert")), LABELS, 40).model
    with pytest.raises(
        UserError, match=r"data.max_length: BertForSequenceClassification cannot process a text of 40 tokens"
    ):
        text_flops(model, example, 40)
