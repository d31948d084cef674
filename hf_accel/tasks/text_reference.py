"""TF-IDF and logistic regression: what words alone, without a network, can tell of a text.

It is trained on the training rows and scored on the test rows of every run, next to the network. Words and pairs of words are
weighted by their frequency (sublinear), the classes by their rows, and the inverse strength of the regularisation is 10. The
validation rows are not used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from hf_accel.data.holding_out import subset
from hf_accel.data.splits import Splits
from hf_accel.data.text import TextSplit
from hf_accel.formatting import format_count

MOST_ROWS = 100_000  # to learn from: a minute; more rows change little
NAME = "TF-IDF + logistic regression"


@dataclass(frozen=True)
class Reference:
    """The scores of a plain method on the test rows of a run."""

    name: str
    accuracy: float
    f1_macro: float
    seconds: float  # to learn and to score
    train_rows: int  # that it learned from

    def __str__(self) -> str:
        rows = format_count(self.train_rows)
        return f"{self.name}: accuracy {self.accuracy:.4f}, F1 (macro) {self.f1_macro:.4f}, from {rows} training texts"


def tfidf_reference(splits: Splits[TextSplit], seed: int = 0) -> Reference:
    """Train and score it.

    Args:
        seed: draws the rows to learn from, where there are more than `MOST_ROWS`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    train = subset(splits.train, MOST_ROWS, seed)
    start = time.perf_counter()
    model = make_pipeline(
        # every word counts, those of one letter too
        TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(train) < 1000 else 2, token_pattern=r"\w+"
        ),
        LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
    )
    model.fit([text for texts in train.portions() for text in texts], train.labels)
    predicted = np.concatenate([model.predict(texts) for texts in splits.test.portions()])
    seconds, labels = time.perf_counter() - start, splits.test.labels
    every = np.arange(len(splits.label_names))
    return Reference(
        NAME,
        float(accuracy_score(labels, predicted)),
        float(f1_score(labels, predicted, average="macro", labels=every, zero_division=0)),
        seconds,
        len(train),
    )
