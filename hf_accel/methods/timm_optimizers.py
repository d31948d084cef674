"""`training.optim: timm/NAME`: one of timm's optimizers, for example `timm/lamb`, or `timm/lookahead_lamb`.

The prefix tells timm's names from those of TrainingArguments and from `optim: muon`, which is the optimizer of methods/muon.py;
`timm/muon` orthogonalises the steps of every weight with two or more dimensions, the classifier's too, and takes AdamW for
the rest. Weight decay acts on the parameters on which it acts in the Trainer: neither on biases nor on norms. Momentum is 0.9
where an optimizer has one and `optim_args` has no other, as in timm.

Source: timm.optim (https://github.com/huggingface/pytorch-image-models); `timm.optim.list_optimizers(with_description=True)`.
Recipe: `training: {optim: timm/lamb, optim_args: "beta1=0.9,beta2=0.99"}`. It is refused under FSDP and DeepSpeed, which shard
the weights whose norms and matrices many of these optimizers need whole.
Measured: ResNet-20, 5,000 images of CIFAR-10, 8 epochs, two seeds, against SGD with rate 0.2: timm/lamb (1e-2) +11.7
points of test accuracy (+9.8 to +13.5) at 0.95 times the images/s (0.85 to 1.07), timm/muon (1e-2) +20.1 (+17.3 to +22.9) at 0.89
(0.51 to 1.56); adamw_torch (3e-3) +10.3 (+6.5 to +14.0).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn

from hf_accel.config.optimizers import INSTEAD, LOOKAHEAD, TimmOptimizer
from hf_accel.errors import UserError, did_you_mean

BETAS = ["beta1", "beta2", "beta3"]  # as upstream calls them in optim_args


def build_timm_optimizer(
    model: nn.Module, settings: TimmOptimizer, learning_rate: float, weight_decay: float, decayed: Collection[str]
) -> torch.optim.Optimizer:
    """The optimizer of the parameters of a model that learn.

    Args:
        decayed: names of the parameters on which weight decay acts.
    """
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for name, parameter in learning if (name in decayed) == decays], "weight_decay": decay}
        for decays, decay in ((True, weight_decay), (False, 0.0))
    ]
    filled = [group for group in groups if group["params"]]
    return create_optimizer_v2(filled, settings.name, lr=learning_rate, **_arguments(settings))


def _arguments(settings: TimmOptimizer) -> dict[str, Any]:
    """The arguments of timm's class: `betas` is its default, but for those that are given."""
    given = dict(settings.arguments)
    usual = _parameters(settings).get("betas")
    if usual is not None and (places := [place for place in BETAS if place in given]):
        betas = list(usual.default)
        for place in places:
            betas[BETAS.index(place)] = given.pop(place)  # an IndexError: it has fewer
        given["betas"] = tuple(betas)
    return given


def _parameters(settings: TimmOptimizer) -> Mapping[str, inspect.Parameter]:
    """Those of timm's class; of Lookahead, of the one that it wraps."""
    kind = get_optimizer_class(settings.name.removeprefix(LOOKAHEAD), bind_defaults=False)
    return inspect.signature(kind).parameters


def refuse_unbuildable_optimizer(where: str, settings: TimmOptimizer) -> None:
    """Build it for a layer that nobody trains: its package may be missing, or an argument be unknown.

    Raises:
        UserError: timm cannot make this optimizer here.
    """
    layer = nn.Linear(2, 2, bias=False)
    try:
        build_timm_optimizer(layer, settings, 0.1, 0.0, ["weight"])
    except (ImportError, AssertionError) as error:  # of apex and bitsandbytes, which timm loads by name
        raise UserError(f"{where}: training.optim: timm/{settings.name}: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(f"{where}: training.optim_args: {_what_fails(settings, error)}") from None


def _what_fails(settings: TimmOptimizer, error: Exception) -> str:
    known = _parameters(settings)
    betas = BETAS[: len(known["betas"].default)] if "betas" in known else []
    for name in settings.arguments:
        if name not in known and name not in betas:
            others = [other for other in known if other not in ("params", *INSTEAD)]
            return f"timm/{settings.name} takes no {name!r}. {did_you_mean(name, betas + others)}"
    return f"timm/{settings.name}: {' '.join(str(error).split())}"
