"""Texts to the probabilities of classes: in their order, in batches of similar length, as the pipeline answers."""

import itertools

import numpy as np
import pytest
from transformers import pipeline

from hf_accel.data.text_files import TextSource
from hf_accel.errors import UserError
from hf_accel.models.text import load_trained_text
from hf_accel.tasks.text_scoring import TextScorer, score_texts
from tests.support.texts import LABELS, rows, save_text_model


def sources(texts):
    return [TextSource(text, row, "a.csv", "" if text else "it is blank") for row, text in enumerate(texts)]


@pytest.fixture(params=["xlnet", "bert", "gpt2"])
def folder(request, tmp_path):
    return save_text_model(tmp_path / "model", request.param, LABELS)


def test_the_answers_are_those_of_the_pipeline_in_the_order_of_the_texts(folder):
    texts = [row["text"] for row in rows(40)] + ["the " * 60]  # the last one is cut
    loaded = load_trained_text(folder)
    answers = list(score_texts(TextScorer(loaded), sources(texts), batch_size=7))
    assert [answer.source.text for answer in answers] == texts
    classify = pipeline("text-classification", model=str(folder), truncation=True, top_k=None)
    found = classify(texts, max_length=loaded.max_length)
    for answer, expected in zip(answers, found, strict=True):
        named = {row["label"]: row["score"] for row in expected}
        assert dict(zip(LABELS, loaded.answer(answer.logits).probabilities, strict=True)) == pytest.approx(
            named, abs=1e-5
        )


def test_a_text_that_cannot_be_classified_is_an_answer_and_changes_no_other(tmp_path):
    scorer = TextScorer(load_trained_text(save_text_model(tmp_path / "model", "bert", LABELS)))
    whole = list(score_texts(scorer, sources(["good", "bad thing", "it is fine"]), batch_size=2))
    with_blank = list(score_texts(scorer, sources(["good", "", "bad thing", "it is fine"]), batch_size=2))
    assert str(with_blank[1].error) == "row 1 of a.csv: cannot be classified: it is blank"
    assert with_blank[1].logits is None
    left = [answer.logits for answer in with_blank if answer.error is None]
    np.testing.assert_allclose(left, [answer.logits for answer in whole], atol=1e-6)


def test_texts_are_sorted_by_length_and_an_endless_list_is_read_as_it_is_needed(tmp_path, monkeypatch):
    scorer = TextScorer(load_trained_text(save_text_model(tmp_path / "model", "bert", LABELS)))
    lengths, forward = [], scorer._forward
    monkeypatch.setattr(
        scorer, "_forward", lambda columns: (lengths.append(len(columns["input_ids"][0])), forward(columns))[1]
    )
    texts = ("it " * (1 + number % 4) for number in itertools.count())
    endless = (TextSource(text.strip(), row) for row, text in enumerate(texts))
    answers = list(itertools.islice(score_texts(scorer, endless, batch_size=4), 64))
    assert len(answers) == 64
    assert lengths == sorted(lengths, reverse=True)
    assert next(endless).row == 64


def test_classes_that_do_not_exclude_each_other_have_probabilities_of_their_own_and_a_regression_has_none(tmp_path):
    loaded = load_trained_text(save_text_model(tmp_path / "model", "bert", LABELS))
    loaded.model.config.problem_type = "multi_label_classification"
    (answer,) = score_texts(TextScorer(loaded), sources(["good"]))
    np.testing.assert_allclose(loaded.answer(answer.logits).probabilities, 1 / (1 + np.exp(-answer.logits)), rtol=1e-6)
    loaded.model.config.problem_type = None
    assert loaded.answer(answer.logits).probabilities.sum() == pytest.approx(1)
    loaded.model.config.problem_type = "regression"
    with pytest.raises(UserError, match="is a regression"):
        TextScorer(loaded)
