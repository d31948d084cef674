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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.machine.precision import native_bf16
from hf_accel.models.head import head_parameters

# Keller Jordan's quintic: the slope at zero is as large as it can be, and singular values end between 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum; in groups with `orthogonal`, of a step whose singular values are all near 1.

    Args:
        params: parameter groups. `orthogonal` (bool) says which kind of step a group takes; such a parameter has two or
            more dimensions and is reshaped to (first dimension, everything else). `normalize_weights` scales its 4-D
            weights, see `MuonSettings`.
        lr: learning rate of the groups that do not name their own; the same holds for the next three.
        momentum: Nesterov's.
        weight_decay: for groups that are not orthogonal: times the weight, added to the gradient, as torch.optim.SGD.
        ns_steps: Newton-Schulz iterations.
        compute_dtype: data type of the iterations.
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
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
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
        dtype: data type of the iterations.
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
