"""Batch norm under activation checkpointing.

Activation checkpointing repeats forward passes within the backward pass, and every repeat moves the running statistics
of batch-norm layers once more: a step then counts for 0.19 of them instead of 0.1. The gradients are right, and the saved
model is another one than without checkpointing. https://github.com/pytorch/pytorch/issues/96136
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


class UpdatedOnce(AbstractContextManager):
    """Context of a training step, in which `hold` ends the updates of running statistics.

    Args:
        model: its batch-norm layers are held; None holds none.
    """

    def __init__(self, model: nn.Module | None) -> None:
        modules = [] if model is None else model.modules()
        self.layers = [module for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self.held: list[tuple[nn.Module, float | None, Tensor | None]] = []
        self.entered = False

    def __enter__(self) -> UpdatedOnce:
        self.entered = True
        return self

    def hold(self) -> None:
        """The forward pass is over: until the end of the context layers that run again keep their statistics."""
        for layer in self.layers if self.entered else ():  # outside nothing would give the momentum back
            self.held.append((layer, layer.momentum, layer.num_batches_tracked))
            layer.momentum = 0.0  # the buffers themselves must stay: checkpointing counts the tensors that are saved
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked = torch.zeros_like(layer.num_batches_tracked)

    def __exit__(self, *_: Any) -> None:
        self.entered = False
        for layer, momentum, counter in reversed(self.held):
            layer.momentum, layer.num_batches_tracked = momentum, counter
        self.held.clear()
