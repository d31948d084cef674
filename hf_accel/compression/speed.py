"""The speed of the forms of a model on this machine, in turns and with the same number of threads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hf_accel import terminal
from hf_accel.compression.answers import Form, torch_logits
from hf_accel.machine.precision import native_bf16
from hf_accel.measure import turns
from hf_accel.measure.paired import PairedRatio, paired_ratio
from hf_accel.measure.turns import Turns, take_turns
from hf_accel.models.exported import Exported

BATCH = 64
SECONDS = 0.5  # of a turn with batches; slow networks take one batch
MOST_BATCHES = 5
LATENCY_SECONDS, MOST_IMAGES = 1.0, 50  # of a turn with single images


@dataclass(frozen=True)
class Speed:
    """One form; both lists go round by round."""

    images: Turns
    batches: Turns

    @property
    def images_per_second(self) -> float:
        return BATCH / float(np.median(self.batches.medians))

    def speedup_over(self, other: Speed) -> tuple[PairedRatio, PairedRatio]:
        """In batches, and for one image: above 1 where this one is faster."""
        return (
            paired_ratio(other.batches.medians, self.batches.medians),
            paired_ratio(other.images.medians, self.images.medians),
        )


def measure_speed(
    torch_forms: dict[Form, nn.Module], exported_forms: dict[Form, Exported], pixel_values: np.ndarray
) -> dict[Form, Speed]:
    """Time the forward passes of each form, for one image and for batches.

    Args:
        pixel_values: (N, 3, H, W) float32; repeated to a batch.
    """
    images = np.resize(pixel_values, (BATCH, *pixel_values.shape[1:]))
    with terminal.bar(2 * turns.ROUNDS * (len(torch_forms) + len(exported_forms)), "timed", "turn") as bar:
        single = take_turns(_passes(torch_forms, exported_forms, images[:1]), LATENCY_SECONDS, MOST_IMAGES, bar.update)
        batches = take_turns(_passes(torch_forms, exported_forms, images), SECONDS, MOST_BATCHES, bar.update)
    return {name: Speed(single[name], batches[name]) for name in single}


def bf16_copy(model: nn.Module, pixel_values: Tensor) -> nn.Module | None:
    """The network in bf16, if this CPU multiplies it natively and the network computes in it; else None.

    Args:
        pixel_values: (B, 3, H, W) float32, to try it on.
    """
    if not native_bf16("cpu")[0]:
        return None
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    try:
        torch_logits(narrow, pixel_values)
    except RuntimeError:  # a layer that makes float32 tensors of its own
        return None
    return narrow


def _passes(
    torch_forms: dict[Form, nn.Module], exported_forms: dict[Form, Exported], images: np.ndarray
) -> dict[Form, Callable[[], object]]:
    tensor = torch.from_numpy(images)
    return {
        **{name: partial(torch_logits, network, tensor) for name, network in torch_forms.items()},
        **{name: partial(exported.logits, images) for name, exported in exported_forms.items()},
    }
