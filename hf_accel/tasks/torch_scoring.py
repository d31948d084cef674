"""Images are scored by a model of PyTorch, with the preprocessing of its own image processor."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from hf_accel.data.arrays import MOST_OF_PILLOW
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing, as_pillow
from hf_accel.inputs.processors import channels_of
from hf_accel.models.layout import is_channels_last
from hf_accel.models.load import LoadedModel
from hf_accel.models.thresholds import is_multi_label
from hf_accel.tasks.image_scoring import Inputs
from hf_accel.transforms.pipeline import EvalTransform
from hf_accel.transforms.views import mean_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def processed_probabilities(
    model: PreTrainedModel, processor: BaseImageProcessor
) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels of an image, (H, W, channels) uint8 -> the probabilities of the classes, (C,), as a reader of the card gets them."""
    scores = Tensor.sigmoid if is_multi_label(getattr(model, "config", None)) else partial(Tensor.softmax, dim=-1)

    def pixel_values(image: np.ndarray) -> Tensor:
        if channels_of(processor) == 3:
            return processor(as_pillow(image), return_tensors="pt")["pixel_values"]
        return torch.from_numpy(Preprocessing.of(processor).pixel_values(image))[None]

    def probabilities(image: np.ndarray) -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            inputs = pixel_values(image).to(model.device, torch.float32)
            return scores(model(pixel_values=inputs).logits[0].float()).cpu().numpy()

    return probabilities


class TorchScorer:
    """See `tasks.image_scoring.Scorer`.

    Images are prepared as an evaluation prepares them: threads resize and crop, and the model's device normalises a batch.
    A processor that cannot be read is called for each image.

    Args:
        loaded: the model, which computes on the device that it is on.
        test_time_augmentation: as `data.test_time_augmentation`.
        bf16: compute in bf16 by autocast.
    """

    def __init__(self, loaded: LoadedModel, test_time_augmentation: str = "none", bf16: bool = False) -> None:
        self.loaded = loaded
        self.views = test_time_augmentation
        self.bf16 = bf16
        self._lock = threading.Lock()

    @property
    def target_side(self) -> int | None:
        reading = self._preprocessing()
        return None if reading is None else reading.target_side

    @cached_property
    def channels(self) -> int:
        processor = self.loaded.processor
        return channels_of(processor) if isinstance(processor, BaseImageProcessor) else 3

    def prepare(self, pixels: np.ndarray) -> Inputs:
        reading = self._preprocessing()
        if reading is None:
            return dict(self.loaded.processor(images=[as_pillow(pixels)], return_tensors="pt"))
        return {"pixels": torch.from_numpy(np.ascontiguousarray(reading.apply(pixels)))[None]}

    def inputs(self, images: list[Inputs]) -> dict[str, Tensor]:
        """What `prepare` made of B images -> what the model takes, on its device: pixel_values (B, 3, H, W) and others."""
        device = next(self.loaded.model.parameters()).device
        inputs = {name: torch.cat([image[name] for image in images]).to(device) for name in images[0]}
        return self._normalise(inputs) if "pixels" in inputs else inputs

    def score(self, images: list[Inputs]) -> np.ndarray:
        others = self.inputs(images)
        pixel_values = others.pop("pixel_values")
        forward = partial(self._logits, others)
        with torch.inference_mode(), torch.autocast(pixel_values.device.type, torch.bfloat16, enabled=self.bf16):
            return mean_logits(forward, pixel_values, self.views).float().cpu().numpy()

    def _logits(self, others: dict[str, Any], pixel_values: Tensor) -> Tensor:
        return self.loaded.model(pixel_values=pixel_values, **others).logits

    def _preprocessing(self) -> Preprocessing | None:
        with self._lock:  # several threads ask
            return self._reading

    @cached_property
    def _reading(self) -> Preprocessing | None:
        """What the processor does; None: it must be called."""
        processor = self.loaded.processor
        if self.channels <= MOST_OF_PILLOW:
            blank = as_pillow(np.zeros((64, 64, self.channels), np.uint8))
            made = processor(images=[blank], return_tensors="pt")
            if set(made) != {"pixel_values"} or made["pixel_values"].ndim != 4:
                return None
        with contextlib.suppress(UserError):  # it can classify, if not be fine-tuned
            reading = Preprocessing.of(processor)
            return reading if reading.processor is None else None
        return None

    @cached_property
    def _normalise(self) -> EvalTransform:
        reading = self._preprocessing()
        assert reading is not None, "there are no pixels without it"
        return EvalTransform(reading, is_channels_last(self.loaded.model))
