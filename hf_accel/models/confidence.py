"""How far an answer can be trusted: what a run has learned about its model on the validation rows.

It is saved in the config of the model, where `predict`, the demo and an exported file find it; transformers keeps a key of
a config that it does not know, and leaves it alone. Nothing here needs PyTorch or SciPy, because an exported model is used
without them.

An image that is unlike those of the training is known by logits that are close together, whatever the classes: the norm of the
logits about their mean. Of the scores that need no more than the logits it told the photographs of `benchmarks.trust` apart
best; adding a number to all logits, which the loss does not see, does not change it.

Source: temperature scaling, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np

CONFIG_KEY = "hf_accel_confidence"
SURE, UNSURE, UNLIKE = "sure", "unsure", "unlike"
WORDS = {SURE: "", UNSURE: "unsure", UNLIKE: "unlike the training data"}


class Answer(NamedTuple):
    """What is said of one image."""

    probabilities: np.ndarray  # (C,) float64, calibrated where the model has learned how
    verdict: str | None  # sure, unsure or unlike; None: the model has not learned to say
    chosen: np.ndarray | None = None  # (C,) bool, the labels that the image has; None: it has the likeliest class


@dataclass(frozen=True)
class Confidence:
    """How logits become an answer.

    Attributes:
        temperature: divides the logits.
        unsure_below: the calibrated probability of the likeliest class below which an answer is unsure; None: not known.
        unlike_below: the spread of the logits below which an image is unlike those of the training; None: not known.
    """

    temperature: float = 1.0
    unsure_below: float | None = None
    unlike_below: float | None = None

    @classmethod
    def of_values(cls, values: Any) -> Self:
        """From a config or a file; without a temperature nothing was learned."""
        known = values if isinstance(values, dict) else {}
        numbers = {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
        if numbers.get("temperature", 0.0) <= 0:
            return cls()
        return cls(numbers["temperature"], numbers.get("unsure_below"), numbers.get("unlike_below"))

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """What a model has learned, by its config; a config of None, or without it, has nothing."""
        return cls.of_values(getattr(config, CONFIG_KEY, None))

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)

    @property
    def is_learned(self) -> bool:
        return self != Confidence()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(..., C) -> (..., C) float64"""
        return softmax(logits.astype(np.float64) / self.temperature)

    def answer(self, logits: np.ndarray) -> Answer:
        """Of the logits (C,) of one image."""
        probabilities = self.probabilities(logits)
        if not self.is_learned:
            return Answer(probabilities, None)
        if self.unlike_below is not None and spread(logits) < self.unlike_below:
            return Answer(probabilities, UNLIKE)
        is_unsure = self.unsure_below is not None and probabilities.max() < self.unsure_below
        return Answer(probabilities, UNSURE if is_unsure else SURE)


def remember(config: Any, confidence: Confidence | None) -> None:
    """Write into the config of a model what it has learned; None removes what it was loaded with."""
    vars(config).pop(CONFIG_KEY, None)
    if confidence is not None:
        setattr(config, CONFIG_KEY, confidence.to_dict())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64, whose logarithms are exact where float32 would have ones and zeros."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def spread(logits: np.ndarray) -> np.ndarray:
    """(..., C) -> (...,) float64: the Euclidean norm of the logits about their mean."""
    logits = logits.astype(np.float64)
    return np.linalg.norm(logits - logits.mean(-1, keepdims=True), axis=-1)
