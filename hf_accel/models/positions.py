"""Weights of one image size carried over to a model of another: position tensors are resampled, all others are copied.

timm's models are resized by timm's own checkpoint filters, plus `resample_abs_pos_embed` for absolute embeddings that a
filter leaves alone (CaiT). Models of transformers are treated as by their `interpolate_pos_encoding` in a forward
pass: absolute embeddings bicubic (PVT's bilinear), BEiT's tables of relative positions bilinear. Tensors that cannot be
carried over are refused by name; nothing but the classifier is ever left with random values.
"""

from __future__ import annotations

import math
import re
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperForImageClassification

from hf_accel.errors import UserError

ABSOLUTE = re.compile(r"(^|\.)position_embedding(s|\.weight)$")  # the second: CLIP's and SigLIP's, an nn.Embedding
BILINEAR = re.compile(r"(^|\.)patch_embeddings\.\d+\.position_embeddings$")  # PVT's, one for each stage
RELATIVE = re.compile(r"(^|\.)relative_position_bias_table$")
# Made by the architecture from its sizes, not learned.
DERIVED = re.compile(r"(^|\.)(relative_position_index|relative_coords_table)$")
MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens, which have no place in the image


def resized_copy(source: PreTrainedModel, config: PreTrainedConfig) -> tuple[PreTrainedModel, list[str]]:
    """A model of `config` with the weights of `source`, which has another image size.

    Args:
        source: a fully loaded model, with the head that the result keeps.
        config: the config of the result, with the labels of the source.
    Returns:
        The model, and the names of the tensors that were resampled.
    Raises:
        UserError: a tensor has another shape and is not a position tensor of an image of another size.
    """
    model = type(source)(config)
    before = source.state_dict()
    if isinstance(model, TimmWrapperForImageClassification) and isinstance(source, TimmWrapperForImageClassification):
        model.timm_model.load_state_dict(_timm_network(source.timm_model, config).state_dict())
    else:
        model.load_state_dict(_transformers_tensors(before, model, source.config, config))
    after = model.state_dict()
    learned = {name for name, _ in model.named_parameters()}
    changed = [name for name in sorted(learned) if name not in before or not _equal(before[name], after[name])]
    lost = [name for name in changed if name not in before or before[name].shape == after[name].shape]
    if lost:
        raise _refusal(lost[0], before.get(lost[0]), after[lost[0]])
    return model, changed


def _timm_network(source: Any, config: PreTrainedConfig) -> nn.Module:
    """Any, because the type of a timm network is nn.Module, which does not know its attributes."""
    arguments = config.model_args or {}
    target: Any = timm.create_model(config.architecture, num_classes=config.num_labels, **arguments)
    state = dict(source.state_dict())
    embedding = state.get("pos_embed")
    if embedding is not None and embedding.ndim == 3 and embedding.shape != target.pos_embed.shape:
        old, new = (tuple(model.patch_embed.grid_size) for model in (source, target))
        prefix = embedding.shape[1] - old[0] * old[1]
        state["pos_embed"] = resample_abs_pos_embed(embedding, list(new), list(old), num_prefix_tokens=prefix)
    where = {"state_dict": state, "num_classes": config.num_labels, "label_offset": 0, "custom_load": False}
    try:
        return timm.create_model(
            config.architecture,
            pretrained=True,
            pretrained_cfg_overlay={**where, "source": ""},
            num_classes=config.num_labels,
            **arguments,
        )
    except RuntimeError as error:  # load_state_dict lists every tensor of another shape, one per line
        first = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line or "key(s)" in line)
        raise UserError(
            f"model.args: {arguments} changes weights of {config.architecture} that cannot be resampled: {first} "
            "Expected arguments that change nothing but the image size."
        ) from None


def _transformers_tensors(
    source: dict[str, Tensor], model: nn.Module, old: PreTrainedConfig, new: PreTrainedConfig
) -> dict[str, Tensor]:
    tensors = {}
    for name, target in model.state_dict().items():
        tensor = source.get(name)
        if tensor is not None and tensor.shape == target.shape:
            tensors[name] = tensor
        elif DERIVED.search(name):
            tensors[name] = target
        elif tensor is not None and ABSOLUTE.search(name) and tensor.ndim == target.ndim == 3:
            tensors[name] = _absolute(name, tensor, target, _grid(old), _grid(new))
        elif tensor is not None and ABSOLUTE.search(name) and tensor.ndim == target.ndim == 2:
            tensors[name] = _absolute(name, tensor[None], target[None], _grid(old), _grid(new))[0]
        elif tensor is not None and RELATIVE.search(name) and tensor.shape[1] == target.shape[1]:
            tensors[name] = _relative(name, tensor, target, _grid(old), _grid(new))
        else:
            raise _refusal(name, tensor, target)
    return tensors


def _absolute(name: str, tensor: Tensor, target: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(1, P + H * W, D) -> (1, P + H' * W', D): the P tokens without a place in the image come first and stay."""
    prefix = tensor.shape[1] - old[0] * old[1]
    if not 0 <= prefix <= MOST_PREFIX_TOKENS or prefix + new[0] * new[1] != target.shape[1]:
        prefix, old, new = _squares(tensor.shape[1], target.shape[1])  # of a stage whose patches are of another size
    if not old[0] or tensor.shape[2] != target.shape[2]:
        raise _refusal(name, tensor, target)
    grid = tensor[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    mode = "bilinear" if BILINEAR.search(name) else "bicubic"
    grid = functional.interpolate(grid, size=new, mode=mode, align_corners=False)
    return torch.cat([tensor[:, :prefix], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _squares(old: int, new: int) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Prefix tokens and the two grids of so many positions, if both are squares; grids (0, 0) if they are not.

    >>> _squares(17, 37)
    (1, (4, 4), (6, 6))
    """
    for prefix in range(min(MOST_PREFIX_TOKENS, old - 1, new - 1) + 1):
        sides = math.isqrt(old - prefix), math.isqrt(new - prefix)
        if sides[0] ** 2 == old - prefix and sides[1] ** 2 == new - prefix:
            return prefix, (sides[0], sides[0]), (sides[1], sides[1])
    return 0, (0, 0), (0, 0)


def _relative(name: str, tensor: Tensor, target: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """((2H - 1)(2W - 1) + P, heads) -> ((2H' - 1)(2W' - 1) + P, heads): the P rows of the class token come last."""
    old, new = (2 * old[0] - 1, 2 * old[1] - 1), (2 * new[0] - 1, 2 * new[1] - 1)
    places = old[0] * old[1]
    if not 0 <= len(tensor) - places <= MOST_PREFIX_TOKENS or len(tensor) - places + new[0] * new[1] != len(target):
        raise _refusal(name, tensor, target)
    table = tensor[:places].reshape(1, *old, -1).permute(0, 3, 1, 2)
    table = functional.interpolate(table, size=new, mode="bilinear")
    return torch.cat([table.permute(0, 2, 3, 1).flatten(0, 2), tensor[places:]])


def _grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Patches of an image, vertically and horizontally; (0, 0) for a config that does not say."""
    settings = config.to_dict()
    settings = settings.get("vision_config") or settings
    image, patch = (_pair(settings.get(key)) for key in ("image_size", "patch_size"))
    return (image[0] // patch[0], image[1] // patch[1]) if image and patch else (0, 0)


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, (list, tuple)) and len(value) == 2 else None


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _refusal(name: str, got: Tensor | None, expected: Tensor) -> UserError:
    has = "is not in the file" if got is None else f"has the shape {list(got.shape)} in the file"
    return UserError(
        f"model.args: {name} {has}, and these arguments make it {list(expected.shape)}. Only the classifier and position "
        "tensors of another image size may differ from the file. Leave the arguments out that change the network, or set "
        "model.pretrained to false to train it from scratch."
    )
