"""What a loaded classifier has, whatever it classifies."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hf_accel.models import thresholds
from hf_accel.models.confidence import Answer, Confidence
from hf_accel.models.head import known_labels


def answer_of(config: Any, logits: np.ndarray) -> Answer:
    """What is said of the logits (C,) of one row; of labels that do not exclude each other, with the scores of `pipeline`.

    Args:
        config: of the model; None: it is a plain module.
    """
    if thresholds.is_multi_label(config) or len(logits) == 1:
        scores = thresholds.sigmoid(logits)
        return Answer(scores, None, scores >= thresholds.of_config(config, len(scores)))
    return Confidence.of_config(config).answer(logits)


class Loaded(ABC):
    """The base of a dataclass with these fields."""

    model: PreTrainedModel
    processor: Any  # an image processor or a tokenizer, which is saved with the model
    notes: list[str]  # what was done to the model, in words
    has_new_head: bool  # on pretrained weights
    is_given: bool  # by a Python caller: nothing is known of where its weights come from

    @abstractmethod
    def preprocessing(self) -> str:
        """The same for processors that prepare rows in the same way."""

    def content(self) -> str:
        """A hash of the classes, the preprocessing, the weights and what turns logits into answers."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        if self.confidence.is_learned:
            digest.update(json.dumps(self.confidence.to_dict()).encode())
        if thresholds.are_learned(getattr(self.model, "config", None)):
            digest.update(json.dumps(thresholds.of_config(self.model.config, len(self.label_names)).tolist()).encode())
        digest.update(self.preprocessing().encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def confidence(self) -> Confidence:
        """What the model has learned about its answers."""
        return Confidence.of_config(getattr(self.model, "config", None))

    def answer(self, logits: np.ndarray) -> Answer:
        """What is said of the logits (C,) of one row."""
        return answer_of(getattr(self.model, "config", None), logits)

    @property
    def label_names(self) -> list[str]:
        return known_labels(self.model.config)
