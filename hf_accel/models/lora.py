"""Low-rank adapters (LoRA): pretrained weights stay as they are, and a small product of two matrices is added to each.

PEFT puts the adapters into the network. The classifier learns in full, batch norm keeps its statistics, and everything else is
frozen. When training ends, the adapters are added to the weights, so that the saved model is a plain one that loads
without PEFT, and so does the model of a checkpoint; next to that, a checkpoint has what learns, for a resume.

Source: https://arxiv.org/abs/2106.09685, through PEFT (https://github.com/huggingface/peft).
Recipe: `model: {lora: {rank: 8, alpha: 16}}`; `pip install "hf_accel[lora]"`. It is refused under FSDP and DeepSpeed.
Measured: EfficientNet-Lite0 on 600 photographs, 10 epochs, rank 8, learning rate 2e-3, three seeds: -2.6 points of
test accuracy (-3.4 to -1.8), 0.94 times the time (0.86 to 1.03).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_accel.config.sections import LoraSettings, ModelSettings
from hf_accel.errors import UserError, did_you_mean
from hf_accel.models.given import is_peft
from hf_accel.models.head import head_parameters
from hf_accel.models.layout import use_channels_last
from hf_accel.models.load import freeze_batch_norm
from hf_accel.models.plain import PlainClassifier
from hf_accel.models.probe import unused_parameters

FILE = "lora.safetensors"  # in a checkpoint: the adapters and the classifier
ADAPTER = re.compile(r"\.lora_[AB]\.")
BASE = ".base_layer."


def require_peft(settings: ModelSettings) -> None:
    """Raises UserError: `model.lora` is set, and PEFT is not installed."""
    if settings.lora is not None and importlib.util.find_spec("peft") is None:
        raise UserError('model.lora needs PEFT, which is not installed: pip install "hf_accel[lora]"')


def add_adapters(model: PreTrainedModel, settings: ModelSettings, example: dict[str, Tensor]) -> str:
    """Put adapters into a classifier, in place; they, and the classifier's own weights, are what learns.

    Args:
        settings: with `lora`; of the layers that `freeze` freezes, none gets an adapter.
        example: arguments of a forward pass, on the model's device.
    Returns:
        What was done, in words.
    Raises:
        UserError: the layers of this model are not known, or a layer that is named cannot have an adapter.
    """
    from peft import LoraConfig, inject_adapter_in_model

    lora = settings.lora
    assert lora is not None
    if isinstance(model, PlainClassifier) or next(_adapted(model), None) is not None:
        raise UserError(
            "model.lora: adapters are put into a classifier of transformers or timm that has none yet. Leave lora out, or give "
            "such a model."
        )
    head = head_parameters(model)
    targets = _targets(model, lora)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=lora.dropout,
        target_modules="|".join(re.escape(name) for name in targets),
    )
    inject_adapter_in_model(config, model)
    for parameter in head:
        parameter.requires_grad_(True)
    frozen = freeze_batch_norm(model)
    _leave_out_unused(model, lora, example)
    if settings.channels_last:
        use_channels_last(model)
    counts = [
        sum(p.numel() for p in model.parameters() if p.requires_grad or not learning) for learning in (True, False)
    ]
    layers = len(list(_adapted(model)))
    note = (
        f"lora: rank {lora.rank}, alpha {lora.alpha:g} in {layers} layers; {counts[0]:,} of {counts[1]:,} parameters learn, the "
        "classifier's among them"
    )
    return note + (f", and {frozen} batch-norm layers keep their statistics" if frozen else "")


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` has put adapters into this model, which are not merged yet; those of a caller are PEFT's to save."""
    is_of_caller = is_peft(model) or getattr(model, "_hf_peft_config_loaded", False)  # by PEFT, or by `add_adapter`
    return not is_of_caller and next(_adapted(model), None) is not None


@torch.no_grad()
def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights, and leave the plain model, in place; without any, nothing changes."""
    for name, layer in list(_adapted(model)) if has_adapters(model) else []:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the model that `merge_adapters` would leave, which itself stays as it is."""
    state = {name.replace(BASE, "."): value for name, value in model.state_dict().items() if not ADAPTER.search(name)}
    for name, layer in _adapted(model):
        state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight("default")
    return state


def save_adapters(model: PreTrainedModel, folder: str | Path) -> None:
    """Write what learns to a checkpoint, with a checksum of what does not."""
    state = {name: value.contiguous() for name, value in _learned(model).items()}
    save_file(state, Path(folder) / FILE, metadata={"base": base_checksum(model)})


def load_adapters(model: PreTrainedModel, folder: str | Path) -> None:
    """Load what `save_adapters` has written into a model with the same adapters, every tensor or an error.

    Raises:
        UserError: it was trained on other weights, or with other adapters.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise UserError(f"{folder}: has no {FILE}, so it is not a checkpoint of a run with model.lora.")
    with safe_open(file, framework="pt") as opened:
        base = (opened.metadata() or {}).get("base")
    saved = load_file(file)
    ours = _learned(model)
    if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in ours.items()}:
        raise UserError(f"{file}: is of other adapters than model.lora asks for. Expected the settings of that run.")
    if base != base_checksum(model):
        raise UserError(
            f"{file}: its adapters were trained on other weights than those that model.name gives now. Expected the same model "
            "and revision."
        )
    with torch.no_grad():
        for name, value in saved.items():
            ours[name].copy_(value)


def base_checksum(model: PreTrainedModel) -> str:
    """Of every tensor that does not learn: sums of bytes, which are the same on every device and change with the weights."""
    learned, digest = _learned(model), hashlib.sha256()
    for name, value in model.state_dict().items():
        if name not in learned:
            total = value.detach().contiguous().reshape(-1).view(torch.uint8).sum(dtype=torch.int64).item()
            digest.update(f"{name} {tuple(value.shape)} {total}\n".encode())
    return digest.hexdigest()


def _learned(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapters and the parameters of the classifier, whether they learn at the moment or not."""
    head = {id(parameter) for parameter in head_parameters(model)}
    return {
        name: value.detach() for name, value in model.named_parameters() if ADAPTER.search(name) or id(value) in head
    }


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of PEFT; PEFT need not be installed."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("peft.tuners.lora"):
            yield name, module


def _targets(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Names of the layers that get an adapter."""
    head = {id(parameter) for parameter in head_parameters(model)}
    possible = {
        name: module
        for name, module in model.named_modules()
        if _takes_adapter(module) and id(module.weight) not in head and module.weight.requires_grad
    }
    if lora.targets != "auto":
        return _named(possible, model, lora.targets)
    linear = [name for name, module in possible.items() if isinstance(module, nn.Linear)]
    weights = {name: module.weight.numel() for name, module in possible.items()}
    if 2 * sum(weights[name] for name in linear) >= sum(weights.values()):
        possible = {name: possible[name] for name in linear}
    if not possible:
        raise UserError(
            f"model.lora: {type(model).__name__} has neither linear layers nor convolutions that can have an adapter. Leave lora "
            "out, or a smaller model.freeze."
        )
    return list(possible)


def _takes_adapter(module: nn.Module) -> bool:
    """Plain linear layers and convolutions: PEFT's adapters know neither groups nor dilation, and no changed weights."""
    if type(module) is nn.Conv2d:
        return module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _named(possible: dict[str, nn.Module], model: nn.Module, targets: list[str]) -> list[str]:
    """The layers whose names are, or end in, one of `targets`."""

    def matches(name: str, target: str) -> bool:
        return name == target or name.endswith(f".{target}")

    for target in targets:
        if any(matches(name, target) for name in possible):
            continue
        found = next((module for name, module in model.named_modules() if matches(name, target)), None)
        if found is not None:
            raise UserError(
                f"model.lora.targets: {target} is a {type(found).__name__} that cannot have an adapter. Expected linear layers "
                "and convolutions without groups or dilation, which are neither the classifier nor frozen."
            )
        near = did_you_mean(target, sorted({name.rpartition(".")[2] for name in possible}))
        raise UserError(f"model.lora.targets: there is no layer {target}. {near}")
    return [name for name in possible if any(matches(name, target) for target in targets)]


def _leave_out_unused(model: PreTrainedModel, lora: LoraSettings, example: dict[str, Tensor]) -> None:
    """Take out the adapters of layers whose weights the network reads itself: what is added to their outputs is never seen.

    Raises:
        UserError: such a layer is named in `targets`.
    """
    unused = {ADAPTER.split(name)[0] for name in unused_parameters(model, example) if ADAPTER.search(name)}
    if unused and lora.targets != "auto":
        raise UserError(
            f"model.lora.targets: {min(unused)} has no effect with an adapter, because the network reads its weight itself or "
            "does not use it. Leave it out."
        )
    for name, layer in list(_adapted(model)):
        if name in unused:
            model.set_submodule(name, layer.get_base_layer())
    if not has_adapters(model):
        raise UserError(f"model.lora: no adapter has an effect in {type(model).__name__}. Leave lora out.")
