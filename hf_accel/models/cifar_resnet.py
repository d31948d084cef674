"""Networks for 32-pixel images that timm lacks: ResNet-20/32/44/56 (He et al. 2015, section 4.2), ImageNet ResNets with a
3x3 stem and no max-pool, and EfficientNet and MobileNetV2 that halve the image three times instead of five times.

They are registered with timm under `cifar_*`, so that they save, load and reach the Hub as every other timm model does;
a process that loads one of them must `import hf_accel.cifar_nets` first.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, create_model, generate_default_cfgs, register_model
from torch import Tensor, nn

CIFAR_CFG = {
    "input_size": (3, 32, 32),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "conv1",
    "classifier": "fc",
}
# timm's register_model looks this name up
default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": CIFAR_CFG
        for name in (
            "cifar_resnet20",
            "cifar_resnet44",
            "cifar_resnet18",
            "cifar_resnet34",
            "cifar_resnet50",
            "cifar_efficientnet_b0",
            "cifar_efficientnet_b1",
            "cifar_mobilenetv2",
        )
    }
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: average pooling plus a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet of 6n + 2 layers for 32-pixel images, with the methods that timm asks of a model.

    Args:
        depth: 20, 32, 44, 56...: 6n + 2.
        num_classes: outputs; 0 leaves the features.
        in_chans: channels of the image.
        width: channels of the first of the three stages.
        global_pool: timm's name of the pooling before the classifier.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_chans: int = 3,
        width: int = 16,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth is {depth}, expected 6n + 2, for example 20 or 44")
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 4 * width
        self.grad_checkpointing = False
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        blocks = (depth - 2) // 6
        channels, stages = width, []
        for stage in range(3):
            out, layers = width * 2**stage, []
            for block in range(blocks):
                layers.append(BasicBlock(channels, out, stride=2 if stage and not block else 1))
                channels = out
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3 = stages
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        self.drop = nn.Dropout(drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 4 * width, S / 4, S / 4)."""
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            if self.grad_checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(stage, x, use_reentrant=False)
            else:
                x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _cifar_resnet(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, variant, pretrained, **kwargs)


def _small_stem(architecture: str, **kwargs: Any) -> nn.Module:
    """A timm ResNet whose 7x7 stride-2 stem and max-pool become one 3x3 stride-1 convolution."""
    model = _of_timm(architecture, **kwargs)
    old = model.conv1
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _small_strides(architecture: str, **kwargs: Any) -> nn.Module:
    """A timm network of inverted residuals whose stem and first downsampling block keep the size of the image.

    Source of the strides: MobileNetV2 of https://github.com/kuangliu/pytorch-cifar.
    """
    model = _of_timm(architecture, **kwargs)
    model.conv_stem.stride = (1, 1)
    first = next(block for block in model.blocks.modules() if getattr(block, "conv_dw", None) is not None
                 and block.conv_dw.stride == (2, 2))  # fmt: skip
    first.conv_dw.stride = (1, 1)
    return model


def _of_timm(architecture: str, **kwargs: Any) -> Any:
    """A network of timm that says it is for 32-pixel images; nn.Module, which it is, does not know its attributes."""
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith("pretrained_cfg")}
    model: Any = create_model(architecture, pretrained=False, **kwargs)
    own = model.default_cfg
    names = {key: own[key] for key in ("first_conv", "classifier")}
    model.pretrained_cfg = model.default_cfg = {**CIFAR_CFG, **names}
    return model


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20, 0.27 M parameters, 41 MMAC at 32 px."""
    return _cifar_resnet("cifar_resnet20", pretrained, **{"depth": 20, **kwargs})


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44, 0.66 M parameters, 98 MMAC at 32 px."""
    return _cifar_resnet("cifar_resnet44", pretrained, **{"depth": 44, **kwargs})


@register_model
def cifar_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 with a 3x3 stem, 11.2 M parameters."""
    return _small_stem("resnet18", **kwargs)


@register_model
def cifar_resnet34(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-34 with a 3x3 stem, 21.3 M parameters."""
    return _small_stem("resnet34", **kwargs)


@register_model
def cifar_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with a 3x3 stem, 23.5 M parameters."""
    return _small_stem("resnet50", **kwargs)


@register_model
def cifar_efficientnet_b0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EfficientNet-B0 whose last feature map is 4 x 4 at 32 px, 4.0 M parameters."""
    return _small_strides("efficientnet_b0", **kwargs)


@register_model
def cifar_efficientnet_b1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EfficientNet-B1 whose last feature map is 4 x 4 at 32 px, 6.5 M parameters."""
    return _small_strides("efficientnet_b1", **kwargs)


@register_model
def cifar_mobilenetv2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """MobileNetV2 whose last feature map is 4 x 4 at 32 px, 2.2 M parameters."""
    return _small_strides("mobilenetv2_100", **kwargs)
