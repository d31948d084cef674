"""What a loaded classifier has, whatever it classifies."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

from transformers import PreTrainedModel

from hf_accel.models.head import known_labels


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
        """A hash of the classes, the preprocessing and the weights."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        digest.update(self.preprocessing().encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def label_names(self) -> list[str]:
        return known_labels(self.model.config)
