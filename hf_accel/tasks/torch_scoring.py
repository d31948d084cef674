"""Images are scored by a model of PyTorch, with its own image processor."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import MOST_ENLARGED, Preprocessing
from hf_accel.models.load import LoadedModel
from hf_accel.tasks.image_scoring import Inputs
from hf_accel.transforms.views import mean_logits


class TorchScorer:
    """See `tasks.image_scoring.Scorer`.

    Args:
        loaded: the model, which computes on the device that it is on.
        test_time_augmentation: as `data.test_time_augmentation`.
    """

    def __init__(self, loaded: LoadedModel, test_time_augmentation: str = "none") -> None:
        self.loaded = loaded
        self.views = test_time_augmentation
        self._reading: Preprocessing | None = None
        self._is_read = False
        self._lock = threading.Lock()

    def prepare(self, pixels: np.ndarray) -> Inputs:
        short, long = sorted(pixels.shape[:2])
        reading = self._preprocessing() if long > MOST_ENLARGED * short else None
        if reading is not None:
            return {"pixel_values": torch.from_numpy(reading.pixel_values(pixels))[None]}
        return dict(self.loaded.processor(images=[PIL.Image.fromarray(pixels)], return_tensors="pt"))

    def probabilities(self, images: list[Inputs]) -> np.ndarray:
        device = next(self.loaded.model.parameters()).device
        inputs = {name: torch.cat([image[name] for image in images]).to(device) for name in images[0]}
        forward = partial(self._logits, {name: inputs[name] for name in inputs if name != "pixel_values"})
        with torch.inference_mode():
            return mean_logits(forward, inputs["pixel_values"], self.views).float().softmax(-1).cpu().numpy()

    def _logits(self, others: dict[str, Any], pixel_values: Tensor) -> Tensor:
        return self.loaded.model(pixel_values=pixel_values, **others).logits

    def _preprocessing(self) -> Preprocessing | None:
        """How to make the crop of a strip alone, since the whole of it would take gigabytes; None: the processor must."""
        with self._lock:
            if not self._is_read:
                self._is_read = True
                with contextlib.suppress(UserError):  # it can classify, if not be fine-tuned
                    reading = Preprocessing.of(self.loaded.processor)
                    self._reading = reading if reading.processor is None else None
            return self._reading
