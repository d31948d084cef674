"""`training.optim: muon`: orthogonalised steps for the weights of the inner layers, SGD for everything else.

Both kinds of step live in one optimizer, as parameter groups, so that the Trainer's one scheduler multiplies all learning
rates alike and a checkpoint holds one state. torch.optim.Muon is not its base: that refuses every parameter that is not a
matrix (so it needs a second optimizer next to it, and has no convolutions), always computes in bfloat16, and has no place
for the normalisation of weights.

Source: Keller Jordan's airbench94_muon.py (https://github.com/KellerJordan/cifar10-airbench, MIT licence).
Recipe: `training: {optim: muon, learning_rate: 0.24, optim_args: "head_lr=..., bias_lr=..."}`, see `MuonSettings`. It is
refused under FSDP and DeepSpeed.
Measured: ResNet-20, one epoch of CIFAR-10, two seeds: +10.61 points of test accuracy (+6.93 to +14.29) at 1,169 instead of
1,277 images/s on 2 CPU cores (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TimmWrapperForImageClassification

from hf_accel.errors import UserError, did_you_mean
from hf_accel.machine.precision import native_bf16

# Keller Jordan's quintic: the slope at zero is as large as it can be, and singular values end between 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True)
class MuonSettings:
    """What `training.optim_args` may hold with `optim: muon`.

    `training.learning_rate` is that of the orthogonalised steps, which have the same size whatever the size of the
    gradient. The rates of SGD are for a loss that is the mean over the rows of a step: a rate published for a sum
    (airbench's are) is to be multiplied by the rows. `training.weight_decay` is the share of a weight that one step of
    SGD without momentum takes off at the full learning rate, so it need not be converted; orthogonalised weights do
    not decay.
    """

    momentum: float = 0.6  # Nesterov's, before the orthogonalisation
    head_lr: float | None = None  # SGD, weight of the classifier; None: learning_rate
    bias_lr: float | None = None  # SGD, biases, norms and embeddings; None: learning_rate
    sgd_momentum: float = 0.85  # Nesterov's
    ns_steps: int = 3  # Newton-Schulz iterations; 5 come closer to orthogonal
    # Before each step a convolution's weight is scaled to the norm sqrt(filters), so that the learning rate is the
    # angle of a step. It changes nothing where a batch norm follows, and everything where none does.
    normalize_weights: bool = True

    @classmethod
    def parse(cls, where: str, text: str | None) -> MuonSettings:
        """Read "momentum=0.6,head_lr=0.5", the Trainer's own format.

        Raises:
            UserError: an unknown name, or a value that is not in its range.
        """
        types = {f.name: f.type for f in fields(cls)}
        values: dict[str, Any] = {}
        for part in filter(None, (text or "").replace(" ", "").split(",")):
            name, _, value = part.partition("=")
            if name not in types:
                raise UserError(f"{where}: training.optim_args: muon takes no {name!r}. {did_you_mean(name, types)}")
            values[name] = _read_value(where, name, value, types[name])
        return cls(**values)


def _read_value(where: str, name: str, text: str, annotation: str) -> float | int | bool:
    if annotation == "bool":
        if text in ("true", "false"):
            return text == "true"
        expected = "true or false"
    else:
        expected = "a number from 0 to below 1" if name.endswith("momentum") else "a number from 0"
        expected = "a whole number from 1" if annotation == "int" else expected
        try:
            value = int(text) if annotation == "int" else float(text)
        except ValueError:
            value = -1
        if value >= 1 if annotation == "int" else 0 <= value < (1 if name.endswith("momentum") else float("inf")):
            return value
    raise UserError(f"{where}: training.optim_args: {name} is {text!r}, expected {expected}")


class Muon(torch.optim.Optimizer):
    """Nesterov momentum; in groups with `orthogonal`, of a step whose singular values are all near 1.

    Args:
        params: parameter groups. `orthogonal` (bool) says which kind of step a group takes; such a parameter has two or
            more dimensions and is reshaped to (first dimension, everything else). `normalize_weights` scales its 4-D
            weights, see `MuonSettings`.
        lr: of the groups that name none, as the next three are.
        momentum: Nesterov's.
        weight_decay: of groups that are not orthogonal: times the weight, added to the gradient, as torch.optim.SGD.
        ns_steps: Newton-Schulz iterations.
        compute_dtype: of the iterations.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        ns_steps: int = 3,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "ns_steps": ns_steps}
        defaults |= {"orthogonal": True, "normalize_weights": True}
        super().__init__(params, defaults)
        self.compute_dtype = compute_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if not group["orthogonal"] and group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        step = gradient.add(buffer, alpha=group["momentum"])
        if group["orthogonal"]:
            if group["normalize_weights"] and parameter.ndim == 4:
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(1e-12))
            matrix = orthogonalize(step.reshape(len(step), -1), group["ns_steps"], self.compute_dtype)
            step = matrix.view(step.shape).to(parameter.dtype)
        parameter.add_(step, alpha=-group["lr"])


def orthogonalize(matrix: Tensor, steps: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values of a matrix near 1 by Newton-Schulz iteration.

    Args:
        matrix: (rows, columns), of any scale.
        steps: iterations; small singular values need more of them.
        dtype: of the iterations.
    Returns:
        (rows, columns) in `dtype`: U S V with S near 1, where `matrix` is U S' V.
    """
    a, b, c = QUINTIC
    x = (matrix / matrix.norm().clamp_min(1e-12)).to(dtype)  # the largest singular value is at most 1
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.mT
    for _ in range(steps):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).contiguous()


def build_muon(model: PreTrainedModel, settings: MuonSettings, learning_rate: float, weight_decay: float) -> Muon:
    """The optimizer of a classifier: its parameters that learn, in three groups.

    Weights of linear layers and convolutions are orthogonalised, but for the classifier's. Embeddings and tables that
    happen to have two or more dimensions (position embeddings, class tokens) are not maps, and take SGD with the biases.
    """
    head = {id(p) for p in head_parameters(model)}
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    maps = {id(module.weight) for module in model.modules() if isinstance(module, layers)}
    groups: dict[str, list[nn.Parameter]] = {"inner": [], "head": [], "rest": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_map = id(parameter) in maps
            kind = "rest" if not is_map else "head" if id(parameter) in head else "inner"
            groups[kind].append(parameter)
    sgd = {"orthogonal": False, "momentum": settings.sgd_momentum}
    rates = {"head": settings.head_lr, "rest": settings.bias_lr}
    # the inner weights come first: the Trainer logs the learning rate of the first group
    params = [{"params": groups["inner"], "normalize_weights": settings.normalize_weights}]
    for kind, rate in rates.items():
        lr = learning_rate if rate is None else rate
        params.append({"params": groups[kind], **sgd, "lr": lr, "weight_decay": weight_decay / lr if lr else 0.0})
    native, _ = native_bf16(next(model.parameters()).device)
    return Muon(
        [group for group in params if group["params"]],
        lr=learning_rate,
        momentum=settings.momentum,
        ns_steps=settings.ns_steps,
        compute_dtype=torch.bfloat16 if native else torch.float32,
    )


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters of the classifier: in transformers, all that the base model does not hold."""
    if isinstance(model, TimmWrapperForImageClassification):
        classifier = model.timm_model.get_classifier()
        heads = classifier if isinstance(classifier, (tuple, list)) else [classifier]
        return [parameter for head in heads for parameter in head.parameters()]
    inner = {id(parameter) for parameter in model.base_model.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inner]
