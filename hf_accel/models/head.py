"""The classifier of a model: which tensors belong to it, and how it is initialised again.

The architecture is asked which they are, not their names: two models of the meta device that differ in nothing but the
number of classes differ in the shapes of the classifier alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig, TimmWrapperForImageClassification

from hf_accel.errors import UserError


def set_labels(config: PreTrainedConfig, label_names: list[str]) -> None:
    """Make a config describe these classes, whatever it described before."""
    config.num_labels = len(label_names)  # PVT's config does not count its labels
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    if isinstance(config, TimmWrapperConfig):
        config.label_names = list(label_names)  # saved as it is, so it would keep the names of the classes before


def known_labels(config: PreTrainedConfig) -> list[str]:
    """Class names of a loaded config, in the order of the logits."""
    assert config.id2label is not None  # upstream sets it, with numbers for keys, whenever a config is made
    names: dict[Any, str] = config.id2label
    return [names[number] for number in sorted(names)]


def head_tensors(model: PreTrainedModel) -> set[str]:
    """Names of the tensors whose shape follows the number of classes.

    Raises:
        UserError: there is none, so the model cannot be given other classes.
    """
    few, more = ({k: v.shape for k, v in _on_meta(model, count).state_dict().items()} for count in (2, 3))
    head = {name for name, shape in few.items() if more[name] != shape}
    if not head:
        raise UserError(
            f"model.name: the classifier of {type(model).__name__} does not follow the number of classes, so it cannot be "
            "trained for other classes. Choose another model."
        )
    return head


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters of the classifier: in transformers, all that the base model does not hold, where there is one."""
    if isinstance(model, TimmWrapperForImageClassification):
        classifier = model.timm_model.get_classifier()
        heads = classifier if isinstance(classifier, (tuple, list)) else [classifier]
        return [parameter for head in heads for parameter in head.parameters()]
    if model.base_model is model:  # CLIP and SigLIP keep their encoder under another name
        return [model.get_parameter(name) for name in sorted(head_tensors(model))]
    inner = {id(parameter) for parameter in model.base_model.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inner]


def renew_head(model: PreTrainedModel, names: set[str]) -> None:
    """Give the tensors `names` the values with which transformers starts a new classifier, in place."""
    fresh = _on_meta(model, len(known_labels(model.config)))
    for parent in sorted({name.rpartition(".")[0] for name in names}):
        module = fresh.get_submodule(parent).to_empty(device="cpu", recurse=False)
        fresh._init_weights(module)
    fresh._init_weights(fresh)  # CLIP and SigLIP initialise their classifier as a part of the whole
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).copy_(fresh.get_parameter(name))


def _on_meta(model: PreTrainedModel, num_labels: int) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    config.num_labels = num_labels
    with torch.device("meta"):
        return type(model)(config)
