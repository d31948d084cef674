"""What a loaded classifier has, whatever it classifies."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from hf_accel.models.confidence import Confidence
from hf_accel.models.head import known_labels


class Loaded:
    """The base of a dataclass with these fields."""

    model: PreTrainedModel
    processor: Any  # an image processor or a tokenizer, which is saved with the model
    notes: list[str]  # what was done to the model, in words
    has_new_head: bool  # on pretrained weights
    is_given: bool  # by a Python caller: nothing is known of where its weights come from

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def confidence(self) -> Confidence:
        """What the model has learned about its answers."""
        return Confidence.of_config(getattr(self.model, "config", None))

    @property
    def label_names(self) -> list[str]:
        return known_labels(self.model.config)
