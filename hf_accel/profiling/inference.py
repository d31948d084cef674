"""The trained model answers, one row at a time and in a large batch, as an evaluation would call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hf_accel.measure.turns import timed
from hf_accel.profiling.clock import PhaseClock

if TYPE_CHECKING:
    from hf_accel.training.trainer import ImageTrainer

SECONDS, MOST = 1.0, 30  # of each batch size


def time_inference(trainer: ImageTrainer, clock: PhaseClock) -> dict[str, int]:
    """Charge forward passes to `inference_one` and `inference_many`; returns the rows of a pass of each.

    The precision, the memory format and the kernels are those of the run. A first pass of each size is not timed.
    """
    model, example = trainer.model.eval(), trainer.example
    assert example is not None  # a Trainer that trains has one
    row = example(model)
    sizes = {"inference_one": 1, "inference_many": trainer.args.per_device_eval_batch_size}
    with torch.inference_mode(), trainer.step_methods():
        for phase, rows in sizes.items():
            batch = {name: value.repeat(rows, *[1] * (value.ndim - 1)) for name, value in row.items()}
            clock.pause()
            model(**batch)
            clock.resume()
            with clock.phase(phase):
                passes = timed(lambda batch=batch: model(**batch), SECONDS, MOST)  # type: ignore[misc]
            charged = clock.charged[phase]
            charged.calls, charged.rows = len(passes), rows * len(passes)
    return sizes
