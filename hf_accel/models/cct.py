"""Compact Convolutional Transformer (Hassani et al. 2021) for 32-pixel images: a transformer that a CPU can train.

Convolutions with max-pooling make the tokens, attention pools them in place of a class token. The network is CCT-2/3x2 of
https://github.com/SHI-Labs/Compact-Transformers (Apache-2.0): two layers, tokens from two 3x3 convolutions. It is registered
with timm as `cifar_cct_2_3x2`; see `cifar_resnet`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers import DropPath, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from hf_accel.models.cifar_resnet import CIFAR_CFG

default_cfgs = generate_default_cfgs(  # timm's register_model looks this name up
    {"cifar_cct_2_3x2.untrained": {**CIFAR_CFG, "first_conv": "tokenizer.0", "classifier": "fc"}}
)


class Block(nn.Module):
    """Attention and a perceptron; as in the source, the second residual branch starts from normalised tokens."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, attn_drop: float, drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(drop), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.drop_path(self.drop(self.proj(self._attend(self.norm1(x)))))
        x = self.norm2(x)
        return x + self.drop_path(self.drop(self.mlp(x)))

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.attn_drop if self.training else 0.0
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).reshape(x.shape)


class CompactTransformer(nn.Module):
    """CCT with the methods that timm asks of a model.

    Args:
        img_size: side of the images in pixels, which sets the number of tokens.
        depth, embed_dim, num_heads, mlp_ratio: of the transformer.
        drop_rate, attn_drop_rate, drop_path_rate: of dropout in the layers, of attention, of the last residual branch.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        img_size: int = 32,
        depth: int = 2,
        embed_dim: int = 128,
        num_heads: int = 2,
        mlp_ratio: float = 1.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.1,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = embed_dim
        self.grad_checkpointing = False
        stages = []
        for inner, outer in ((in_chans, 64), (64, embed_dim)):
            stages += [nn.Conv2d(inner, outer, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        self.tokenizer = nn.Sequential(*stages)
        side = math.ceil(math.ceil(img_size / 2) / 2)
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, attn_drop_rate, drop_rate, rate) for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = nn.Linear(embed_dim, 1)
        self.fc = nn.Linear(embed_dim, num_classes)
        self.apply(_initialise)
        trunc_normal_(self.pos_embed, std=0.2)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, tokens, D)."""
        x = self.tokenizer(x).flatten(2).transpose(1, 2)
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        shares = self.pool(x).softmax(1)  # (B, tokens, 1): what each token contributes
        x = (shares.transpose(1, 2) @ x).squeeze(1)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


@register_model
def cifar_cct_2_3x2(pretrained: bool = False, **kwargs: Any) -> CompactTransformer:
    """CCT-2/3x2, 0.28 M parameters; published 0.8917 on CIFAR-10 and 0.6690 on CIFAR-100 after 200 epochs."""
    return build_model_with_cfg(CompactTransformer, "cifar_cct_2_3x2", pretrained, **kwargs)
