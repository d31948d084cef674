"""Texts -> the logits of the classes, one by one and in their order.

Some batches of texts are read at a time and sorted by length before they are divided, so that a batch needs little padding.
No more than these are held, however many texts there are, and a text that cannot be classified is a result like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hf_accel.data.text_files import TextSource, UnusableTextError
from hf_accel.errors import UserError
from hf_accel.inputs.text import IDS, Padding, Tokenising
from hf_accel.models.text import LoadedText

BATCHES_SORTED = 16  # together


@dataclass(frozen=True)
class ScoredText:
    """The answer for one text."""

    position: int  # among the texts that were given, from 0
    source: TextSource
    logits: np.ndarray | None = None  # (C,) float, in the order of the model's classes; None: not classified
    error: UnusableTextError | None = None  # why there are none


class TextScorer:
    """A text classifier that answers as `pipeline("text-classification", truncation=True)` does.

    Args:
        loaded: the model, which computes on the device that it is on.
        bf16: compute in bf16 by autocast.
    Raises:
        UserError: it is a regression, which has no classes.
    """

    def __init__(self, loaded: LoadedText, bf16: bool = False) -> None:
        config = loaded.model.config
        if config.problem_type == "regression":
            raise UserError(
                "model.name: the model is a regression, whose answers are not probabilities. Expected a classifier."
            )
        self.model, self.bf16 = loaded.model, bf16
        self.tokenising = Tokenising(loaded.processor, loaded.max_length)
        self.padding = Padding(self.tokenising)

    def score(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Logits (N, C) float32, in the order of the model's classes; the texts are sorted by length into batches."""
        columns = self.tokenising(texts)
        order = np.argsort([-len(numbers) for numbers in columns[IDS]], kind="stable")
        answers: list[np.ndarray] = []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            answers.append(
                self._forward({name: [np.array(column[row]) for row in rows] for name, column in columns.items()})
            )
        found = np.concatenate(answers)
        found[order] = found.copy()
        return found

    def _forward(self, columns: dict[str, list[np.ndarray]]) -> np.ndarray:
        device = next(self.model.parameters()).device
        inputs = {name: tensor.to(device) for name, tensor in self.padding(columns).items()}
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(**inputs).logits.float().cpu().numpy()


def score_texts(
    scorer: TextScorer, sources: Iterable[TextSource], batch_size: int = 32
) -> Generator[ScoredText, None, None]:
    """Classify texts.

    Args:
        sources: may be endless: they are taken as they are needed, 16 batches at a time.
        batch_size: the most texts in a forward pass.
    Yields:
        One answer for each source, in their order.
    """
    numbered = enumerate(sources)
    while window := list(itertools.islice(numbered, BATCHES_SORTED * batch_size)):
        yield from _answers(scorer, window, batch_size)


def _answers(scorer: TextScorer, window: list[tuple[int, TextSource]], batch_size: int) -> Iterator[ScoredText]:
    texts = [source.text for _, source in window if not source.problem]
    scores = iter(scorer.score(texts, batch_size) if texts else ())
    for position, source in window:
        try:
            source.require_text()
        except UnusableTextError as error:
            yield ScoredText(position, source, None, error)
        else:
            yield ScoredText(position, source, next(scores))
