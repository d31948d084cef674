"""How a model's tensors lie in memory, and two kinds of layers on which oneDNN fails.

oneDNN's weight gradient of a strided 1x1 convolution in channels_last writes past its workspace when there are fewer
input channels than its block (8 with AVX2, 16 with AVX-512): a crash, a hang, or wrong gradients. Upstream:
https://github.com/uxlfoundation/oneDNN/issues/6035. Such a layer keeps the plain layout here; it is tiny, so it loses
nothing by that.

oneDNN's bf16 weight gradient of a strided convolution whose input is a single pixel reads memory that nobody wrote (AVX-512
with bf16, torch 2.14): NaN, or wrong numbers. A 16 px image is one pixel in the last stage of a ResNet. Such an input gets a
row and a column of zeros here, which the stride passes over. No report of it was found.

tests/models/test_layout.py says when a workaround can go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

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


def is_channels_last(model: nn.Module) -> bool:
    """Whether a model has convolutions in channels_last, and is fastest with images in it."""
    kernels = (layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return any(
        kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous() for kernel in kernels
    )


def pad_single_pixels(model: nn.Module) -> None:
    """Give strided convolutions an input of 2 x 2 pixels where it has one, in place; output and gradients are the same."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _passes_over_padding(module):
            module.register_forward_pre_hook(_padded_input)


def _passes_over_padding(layer: nn.Conv2d) -> bool:
    """Whether one more row and column of zeros leave the output as it is."""
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or min(layer.stride) < 2:
        return False
    spare = (
        1 + 2 * padding - dilation * (kernel - 1) - 1
        for kernel, padding, dilation in zip(layer.kernel_size, layer.padding, layer.dilation, strict=True)
    )
    return all(left >= 0 and left % stride < stride - 1 for left, stride in zip(spare, layer.stride, strict=True))


def _padded_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    is_single = inputs[0].shape[-2:] == (1, 1) and inputs[0].device.type == "cpu"
    return (functional.pad(inputs[0], (0, 1, 0, 1)), *inputs[1:]) if is_single else inputs


def _overruns_workspace(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.groups == 1 and layer.in_channels < ONEDNN_BLOCK
    )


def _plain_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # a copy: `contiguous()` leaves the strides of a one-channel image, which PyTorch still reads as channels_last
    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])
