"""Texts are tokenised once, wherever the tokens are kept, and a batch is padded to its longest row."""

import numpy as np
import pytest
import torch

from hf_accel.config.sections import DataSettings
from hf_accel.data.text import load_text_splits
from hf_accel.errors import UserError
from hf_accel.inputs import text
from hf_accel.inputs.text import TextBatches, Tokenising, open_tokens
from tests.support.texts import WORDS, word_tokenizer, write_reviews


@pytest.fixture
def split(tmp_path):
    return load_text_splits(DataSettings(name=str(write_reviews(tmp_path / "reviews"))), seed=0).train


def batches(split, cache="memory", max_length=16, side="right", folder=None):
    tokenising = Tokenising(word_tokenizer(side), max_length)
    data = DataSettings(name="x", cache=cache, cache_dir=None if folder is None else str(folder))
    return TextBatches(split, open_tokens(split, data, tokenising), tokenising)


def words_of(split, row, most):
    return [WORDS.index(word) for word in split.texts(row, row + 1)[0].split()][:most]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_batch_holds_the_words_of_its_rows_and_padding(cache, side, split, tmp_path):
    rows = [3, 0, 7]
    found = batches(split, cache, 16, side, tmp_path)
    batch = found.__getitems__([row + 2 * len(split) for row in rows])  # of the third epoch
    assert batch["rows"].tolist() == rows
    assert batch["labels"].tolist() == split.labels[rows].tolist()
    for row, ids, mask in zip(rows, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        expected = words_of(split, row, 16)
        padding = len(ids) - len(expected)
        assert (ids, mask) == (
            ([1] * padding + expected, [0] * padding + [1] * len(expected))
            if side == "left"
            else (expected + [1] * padding, [1] * len(expected) + [0] * padding)
        )
    assert set(found.complete(batch)) == {"input_ids", "attention_mask", "labels"}


def test_a_batch_is_as_long_as_its_longest_row_in_blocks_of_8(split):
    found = batches(split, max_length=18)
    shortest, longest = int(found.lengths.argmin()), int(found.lengths.argmax())
    assert found.__getitems__([shortest])["input_ids"].shape == (1, 8)
    assert found.lengths[longest] == 18
    assert found.__getitems__([shortest, longest])["input_ids"].shape == (
        2,
        18,
    )  # not 24: the model may have 18 positions


def test_lengths_are_those_of_the_texts_after_they_are_cut(split):
    expected = [min(len(words.split()), 10) for words in split.texts()]
    assert batches(split, max_length=10).lengths.tolist() == expected
    assert batches(split, "none").lengths is None


def test_tokens_in_many_portions_are_those_of_one(split, monkeypatch):
    whole = batches(split)
    monkeypatch.setattr(text, "_PORTION", 5)
    parts = batches(split)
    assert len(parts.tokens.starts) == 6
    rows = np.arange(len(split))[::-1].tolist()
    torch.testing.assert_close(parts.__getitems__(rows), whole.__getitems__(rows), rtol=0, atol=0)


def test_a_file_of_tokens_is_made_once_for_the_same_texts_and_tokens(split, tmp_path, monkeypatch):
    batches(split, "disk", folder=tmp_path / "cache")
    calls = []
    call = Tokenising.__call__
    monkeypatch.setattr(Tokenising, "__call__", lambda self, texts: calls.append(1) or call(self, texts))
    batches(split, "disk", folder=tmp_path / "cache")
    assert not calls
    batches(split, "disk", max_length=8, folder=tmp_path / "cache")
    batches(split.select(np.arange(5)), "disk", folder=tmp_path / "cache")
    assert len(calls) == 2


def test_tokens_that_do_not_fit_are_refused(split, monkeypatch, tmp_path):
    monkeypatch.setattr(text, "fits_in_memory", lambda nbytes: False)
    with pytest.raises(UserError, match=r"Set data.cache: disk, or lower data.max_length"):
        batches(split)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data.cache_dir .*Expected a folder that can be written"):
        batches(split, "disk", folder=tmp_path / "file")


def test_kinds_of_tokens_are_kept_only_where_a_model_would_not_guess_them(split):
    tokenizer = word_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert Tokenising(tokenizer, 16).names == ("input_ids",)
    typed = Tokenising(tokenizer, 16)
    call = type(tokenizer).__call__

    class Typed(type(tokenizer)):
        def __call__(self, *args, **kwargs):
            found = call(self, *args, **kwargs)
            found["token_type_ids"] = (
                [[2] * len(ids) for ids in found["input_ids"]] if isinstance(args[0], list) else [2]
            )
            return found

    tokenizer.__class__ = Typed
    tokens = open_tokens(split, DataSettings(name="x"), typed)
    batch = TextBatches(split, tokens, typed).__getitems__([0, 1])
    assert torch.equal(batch["token_type_ids"], 2 * batch["attention_mask"])
