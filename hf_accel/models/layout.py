"""How a model's tensors lie in memory, and the one layer that must not follow.

oneDNN's weight gradient of a strided 1x1 convolution in channels_last writes past its workspace when there are fewer
input channels than its block (8 with AVX2, 16 with AVX-512): a crash, a hang, or wrong gradients. Upstream:
https://github.com/uxlfoundation/oneDNN/issues/6035. Such a layer keeps the plain layout here; it is tiny, so it loses
nothing by that. tests/models/test_layout.py says when the workaround can go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ONEDNN_BLOCK = 16  # input channels from which oneDNN's kernel is right


def use_channels_last(model: nn.Module) -> None:
    """Store the weights in channels_last, in place, but for layers on which oneDNN fails."""
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _overruns_workspace(module):
            module.to(memory_format=torch.contiguous_format)
            module.register_forward_pre_hook(_plain_input)


def use_layout_for_prediction(model: nn.Module) -> None:
    """channels_last for a network of convolutions, where it is faster; a transformer, which has one, stays as it is.

    Measured: EfficientNet-Lite0 at 224 px, batches of 32, fp32 on 2 cores with AVX-512: 35.0 -> 63.1 images/s; 101.7 -> 144.3
    where freed memory is kept (n = 2).
    """
    spatial = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1]
    if len(spatial) > 1:
        use_channels_last(model)


def _overruns_workspace(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.groups == 1 and layer.in_channels < ONEDNN_BLOCK
    )


def _plain_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # a copy: `contiguous()` leaves the strides of a one-channel image, which PyTorch still reads as channels_last
    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])
