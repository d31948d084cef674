"""The order of a network's layers, from the input to the classifier, and the layers that stay as they are.

timm says how the parameters of each architecture are grouped (`group_matcher`). In a transformers model the layers are the
elements of lists of modules of one class, in the order in which the model registers them.

Source: the grouping, and freezing by groups, is that of timm (https://github.com/huggingface/pytorch-image-models).
Recipe: `model: {freeze: backbone}`, or the number of layers to freeze.
Measured: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from transformers import PreTrainedModel, TimmWrapperForImageClassification

from hf_accel.errors import UserError
from hf_accel.models.head import head_parameters


def layer_numbers(model: PreTrainedModel) -> dict[str, int]:
    """Parameter name -> the number of its layer.

    0 is what comes before the first layer (stem, patch and position embeddings), the largest number is the classifier, and
    what lies between two layers counts to the one before.
    """
    head = {id(parameter) for parameter in head_parameters(model)}
    inner = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in head}
    groups = _timm_groups(model) or _list_groups(model, inner)
    used = sorted({groups[name] for name in inner})
    numbers = {name: used.index(groups[name]) for name in inner}
    return {name: numbers.get(name, len(used)) for name, _ in model.named_parameters()}


def _timm_groups(model: PreTrainedModel) -> dict[str, Any] | None:
    """Parameter name -> group, where the model is timm's and says how it is grouped."""
    network: Any = model.timm_model if isinstance(model, TimmWrapperForImageClassification) else None
    if not hasattr(network, "group_matcher"):
        return None
    groups = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    prefix = next(name for name, module in model.named_modules() if module is network)
    return {f"{prefix}.{name}": group for name, group in groups.items()}


def _list_groups(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, int]:
    """Elements of lists, and of lists in them (stages of blocks), are layers; lists within a block are not."""
    lists = _lists_of_layers(model)
    groups: dict[str, int] = {}
    layers: list[tuple[str, ...]] = []
    for name in parameters:
        parts = name.split(".")
        places = [".".join(parts[:end]) for end in range(1, len(parts))]
        layer = tuple(place for place in places if place.rpartition(".")[0] in lists)[:2]
        if layer and not any(known[: len(layer)] == layer for known in layers):
            layers.append(layer)
        groups[name] = len(layers)
    return groups


def _lists_of_layers(model: nn.Module) -> set[str]:
    """Names of the lists of modules whose elements are of one class, as the blocks of an encoder are."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len({type(child) for child in module}) == 1
    }


def freeze(model: PreTrainedModel, asked: str | int) -> str:
    """Keep layers as they are: their weights do not learn, and they act as in evaluation.

    A frozen layer has no dropout, and its batch norm keeps its statistics.

    Args:
        asked: "backbone" freezes all but the classifier; a number freezes the stem and that many layers.
    Returns:
        What was frozen, in words.
    Raises:
        UserError: the network has no more layers than are to be frozen.
    """
    numbers = layer_numbers(model)
    classifier = max(numbers.values())
    last = classifier - 1 if asked == "backbone" else int(asked)
    if last >= classifier:
        raise UserError(
            f"model.freeze is {asked}, but {model.config.model_type} has {classifier - 1} layers between its stem and its "
            "classifier. Expected a smaller number, or backbone, which leaves only the classifier to learn."
        )
    count = 0
    for name, parameter in model.named_parameters():
        if numbers[name] <= last:
            parameter.requires_grad_(False)
            count += parameter.numel()
    keep_in_evaluation(model).extend(frozen_modules(model))
    total = sum(parameter.numel() for parameter in model.parameters())
    where = "all layers but the classifier" if asked == "backbone" else f"the stem and the first {asked} layers"
    return f"freeze: {where} ({count:,} of {total:,} parameters) stay as they are"


def keep_in_evaluation(model: nn.Module) -> list[nn.Module]:
    """An empty list: the modules that are put into it act as in evaluation, whatever mode the model is in.

    A hook sees to it before each forward pass, because the Trainer calls `model.train()` at every step.
    """
    modules: list[nn.Module] = []

    def act_as_in_evaluation(*_: Any) -> None:
        for module in modules:
            module.eval()

    model.register_forward_pre_hook(act_as_in_evaluation)
    return modules


def frozen_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules of which no parameter learns."""
    for child in module.children():
        learns = [parameter.requires_grad for parameter in child.parameters()]
        if learns and not any(learns):
            yield child
        elif any(learns):
            yield from frozen_modules(child)
