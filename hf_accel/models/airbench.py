"""The networks of Keller Jordan's cifar10-airbench (https://github.com/KellerJordan/cifar10-airbench, MIT licence).

Built to reach 94 and 96 % on CIFAR-10 in the fewest operations: a 2x2 stem that `model.whiten_stem` fills and fixes,
three blocks that start near the identity, batch norm of fast statistics whose weight does not learn, and logits scaled
down. Registered with timm by `import hf_accel.cifar_nets`, which brings all networks named `cifar_*`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every PyTorch user knows
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hf_accel.models.cifar_resnet import CIFAR_CFG

AIRBENCH_CFG = CIFAR_CFG | {"first_conv": "stem", "classifier": "head"}
# timm's register_model looks this name up
default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": AIRBENCH_CFG for name in ("cifar_airbench94", "cifar_airbench96")}
)


class BiasBatchNorm(nn.BatchNorm2d):
    """Batch norm that learns its bias only.

    The weight is a buffer of ones and not a parameter with `requires_grad` off: it is saved as any other, no optimizer
    ever sees it, and loading a folder cannot make it learn.
    """

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__(channels, eps=1e-12, momentum=momentum)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


class DiracConv(nn.Conv2d):
    """A 3x3 convolution whose first filters pass their input on; the others start random."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        nn.init.dirac_(self.weight.data[:in_channels])


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose outputs are multiplied by a constant: the scale of the logits."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(x, self.weight)


class AirbenchBlock(nn.Module):
    """Convolutions with batch norm and GELU, pooled 2x2 after the first; the third, if any, closes a shortcut."""

    def __init__(self, in_channels: int, channels: int, depth: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = DiracConv(in_channels, channels)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = BiasBatchNorm(channels, momentum)
        self.conv2 = DiracConv(channels, channels)
        self.norm2 = BiasBatchNorm(channels, momentum)
        self.conv3 = DiracConv(channels, channels) if depth == 3 else None
        self.norm3 = BiasBatchNorm(channels, momentum) if depth == 3 else None
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, S, S) -> (B, channels, S / 2, S / 2)."""
        shortcut = self.act(self.norm1(self.pool(self.conv1(x))))
        x = self.act(self.norm2(self.conv2(shortcut)))
        if self.conv3 is None or self.norm3 is None:
            return x
        return self.act(self.norm3(self.conv3(x)) + shortcut)


class CifarAirbench(nn.Module):
    """The network of airbench, with the methods that timm asks of a model.

    Args:
        num_classes: outputs; 0 leaves the features.
        in_chans: channels of the image.
        widths: channels of the three blocks.
        depth: convolutions of a block, 2 or 3; 3 adds the shortcut.
        momentum: share of a new batch in the running statistics, PyTorch's meaning (airbench writes 1 - momentum).
        logit_scale: factor of the logits; None is 1 over the features, with weights of standard deviation 1.
        global_pool: timm's name of the pooling before the classifier.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        widths: tuple[int, ...] = (64, 256, 256),
        depth: int = 2,
        momentum: float = 0.4,
        logit_scale: float | None = None,
        global_pool: str = "max",
    ) -> None:
        super().__init__()
        if depth not in (2, 3):
            raise ValueError(f"depth is {depth}, expected 2 or 3 convolutions per block")
        self.num_features = self.head_hidden_size = widths[-1]
        self.logit_scale = logit_scale
        self.grad_checkpointing = False
        stem_width = 2 * in_chans * 2 * 2  # every direction of a 2x2 patch, and its opposite
        self.stem = nn.Conv2d(in_chans, stem_width, 2)
        self.act = nn.GELU()
        inputs = (stem_width, *widths[:-1])
        self.blocks = nn.ModuleList(
            AirbenchBlock(channels_in, channels, depth, momentum)
            for channels_in, channels in zip(inputs, widths, strict=True)
        )
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str = "max") -> None:
        self.num_classes = num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.head: nn.Module = nn.Identity()
        if num_classes == 0:
            return
        head = ScaledLinear(self.num_features, num_classes, self.logit_scale or 1 / self.num_features)
        if self.logit_scale is None:
            with torch.no_grad():
                head.weight.div_(head.weight.std())
        self.head = head

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, widths[-1], 3, 3)."""
        x = self.act(self.stem(x))
        for block in self.blocks:
            again = self.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _cifar_airbench(variant: str, pretrained: bool, **kwargs: Any) -> CifarAirbench:
    return build_model_with_cfg(CifarAirbench, variant, pretrained, **kwargs)


@register_model
def cifar_airbench94(pretrained: bool = False, **kwargs: Any) -> CifarAirbench:
    """The network of airbench94_muon.py, 1.97 M parameters."""
    return _cifar_airbench("cifar_airbench94", pretrained, **kwargs)


@register_model
def cifar_airbench96(pretrained: bool = False, **kwargs: Any) -> CifarAirbench:
    """The network of airbench96.py, 9.92 M parameters."""
    args = {"widths": (128, 384, 512), "depth": 3, "momentum": 0.1, "logit_scale": 1 / 9}
    return _cifar_airbench("cifar_airbench96", pretrained, **{**args, **kwargs})
