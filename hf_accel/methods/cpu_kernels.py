"""bf16 operations that PyTorch does slowly on a CPU, done with others of its own that are fast.

Measured with torch 2.15 on 2 cores with AVX512-bf16, batch 16: the backward pass of a strided depthwise convolution takes
10 to 100 times as long as its parts below, that of a 5x5 one 3 to 5 times, and fused attention over 197 tokens twice as
long as matrix products and a softmax. In fp32 none of this holds. Over a whole epoch of MobileNetV2 the technique alone
made no measurable difference to bf16 (1.15x and 1.17x of stock; 12 rounds), see benchmarks/README.md.

Source: ours; upstream https://github.com/pytorch/pytorch/issues/13716 (depthwise convolutions), 183815 (bf16 convolutions
since 2.13). `python -m benchmarks.ceiling` shows the whole step with `--model.kernels auto` and `library`: when the second is
not slower, this file can be deleted.
Recipe: `model: {kernels: auto}`, the default; it acts in bf16 on a CPU, without a compiler and gradient checkpointing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import TrainingArguments

# Above this the score matrix no longer fits the cache, and fused attention wins: even at 577 tokens, ahead at 1,025.
LONGEST_PLAIN_ATTENTION = 512
# The weight gradient of 3x3 kernels is fast in bf16.
SMALLEST_FP32_KERNEL = 5


def chosen_kernels(setting: str, args: TrainingArguments) -> CpuKernels | None:
    """The context of each step by `model.kernels`; None keeps PyTorch's own.

    A compiler finds kernels by itself. Gradient checkpointing repeats the forward pass without the replacements, and would end
    with a CheckpointError about tensors that are not the same.
    """
    is_plain = not (args.torch_compile or args.gradient_checkpointing)
    replaces = setting == "auto" and args.device.type == "cpu" and args.bf16 and is_plain
    return CpuKernels() if replaces else None


class CpuKernels(TorchFunctionMode):
    """Within this context slow bf16 operations on CPU tensors are replaced; all others run as they are.

    The gradients are those of the replaced operations, up to rounding.
    """

    note = "kernels: those of PyTorch that are slow in bf16 on a CPU are replaced"

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and _is_slow_depthwise(*args):
            return DepthwiseConv2d.apply(*args[:3], _pair(args[3]), _pair(args[4]))
        if func is functional.scaled_dot_product_attention and _is_plain_attention(*args, **kwargs):
            query, key, value = args[:3]
            return plain_attention(query, key, value, kwargs.get("scale"))
        return func(*args, **kwargs)


class DepthwiseConv2d(torch.autograd.Function):
    """Depthwise convolution in bf16 with a fast backward pass.

    x: (B, C, H, W); weight: (C, 1, K, K); bias: (C,) or None; stride and padding: (vertical, horizontal).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        x, narrow = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, narrow)
        ctx.stride, ctx.padding, ctx.dtypes = stride, padding, (weight.dtype, None if bias is None else bias.dtype)
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(x, narrow, None if bias is None else bias.bfloat16(), stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = _input_gradient(x, weight, grad, ctx.stride, ctx.padding)
            if ctx.needs_input_grad[1]:
                dtype = torch.float32 if weight.shape[-1] >= SMALLEST_FP32_KERNEL else torch.bfloat16
                grad_weight = torch.ops.aten.convolution_backward(
                    *(t.to(dtype) for t in (grad, x, weight)), None, ctx.stride, ctx.padding, (1, 1), False, (0, 0),
                    len(weight), (False, True, False),
                )[1].to(ctx.dtypes[0])  # fmt: skip
            if ctx.needs_input_grad[2]:
                grad_bias = grad.sum((0, 2, 3), dtype=torch.float32).to(ctx.dtypes[1])
        return grad_x, grad_weight, grad_bias, None, None


def _input_gradient(
    x: Tensor, weight: Tensor, grad: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient as a convolution with stride 1 of the gradient spread out with zeros, which is fast."""
    height, width = (x.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i] + 1 for i in range(2))
    if stride != (1, 1):
        spread = grad.new_zeros((len(grad), height, width, grad.shape[1])).permute(0, 3, 1, 2)
        spread[:, :, :: stride[0], :: stride[1]] = grad
        grad = spread
    around = [weight.shape[2 + i] - 1 - padding[i] for i in range(2)]
    return torch.conv2d(grad, weight.flip(2, 3), None, 1, around, 1, len(weight))


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Attention as two products and a softmax: (B, heads, N, D) each."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return ((query * scale) @ key.transpose(-2, -1)).softmax(-1) @ value


def _runs_in_bf16(tensor: Tensor) -> bool:
    if tensor.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and tensor.is_floating_point()
    return tensor.dtype == torch.bfloat16


def _is_slow_depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    return (
        groups == len(weight) == x.shape[1] > 1
        and x.ndim == 4
        and not isinstance(padding, str)
        and _pair(dilation) == (1, 1)
        and (max(_pair(stride)) > 1 or max(weight.shape[2:]) >= SMALLEST_FP32_KERNEL)
        and all(p < k for p, k in zip(_pair(padding), weight.shape[2:], strict=True))
        and torch.is_grad_enabled()
        and _runs_in_bf16(x)
    )


def _is_plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    return (
        attn_mask is None
        and not (dropout_p or is_causal or enable_gqa)
        and max(query.shape[-2], key.shape[-2]) <= LONGEST_PLAIN_ATTENTION
        and _runs_in_bf16(query)
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
