"""`training.sparsity`: the weights of smallest magnitude become zero while the model trains.

Pruned are weights of linear layers and convolutions that learn, except for the excluded layers; biases, norms, embeddings
and other parameters stay dense. After every optimizer step the pruned weights are set to zero again, so neither momentum
nor weight decay moves them, and the average of `ema_decay` is masked in the same way. The number of zeros is the asked
share of the prunable weights, rounded to a whole weight; of equal magnitudes the first in the order of the parameters goes.

Three schedules say which share of the final sparsity a step has, with p from 0 at `begin` to 1 at `end`:

- `constant`: 1 from `begin` on. The weights are chosen once.
- `polynomial`: 1 - (1 - p)^3.
- `one_cycle`: (1 - cos(pi p)) / 2, by default over the whole run, so that it takes no more steps than the dense run.

While the sparsity rises, the weights are chosen again `updates` times. Gradients are not masked: at these steps a pruned
weight that its one step from zero makes larger than others comes back. From `end` on the choice is fixed. The clipping of
gradients counts those of pruned weights.

With `pattern: "2:4"` the two smallest of each four consecutive input weights are pruned. Under a rising schedule whole
groups follow one after the other, those first whose pruned weights have the smallest sum of magnitudes, so that at the end
every group has the pattern. Layers whose input channels are not a multiple of the group stay dense.

`torch.nn.utils.prune` and the sparsifiers of torchao put a second tensor in the place of each weight, which changes the
names of the tensors in every checkpoint; so the masks are applied here.

Source: magnitude pruning with the cubic schedule, https://arxiv.org/abs/1710.01878. The cosine curve is ours, after one-cycle
pruning over the length of the dense run (https://arxiv.org/abs/2606.12278, published with ResNet-18: 95.12 % at a sparsity of
72.9 %).
Recipe: `training: {sparsity: {final: 0.6}}`, see `SparsitySettings`. It is refused under FSDP and DeepSpeed, and with PEFT.
Measured: nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.config.sparsity_settings import FIRST, LAST, SparsitySettings
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_percent
from hf_accel.methods.ema import WeightAverage
from hf_accel.models.given import is_peft
from hf_accel.models.head import head_parameters

Layer = nn.Linear | nn.modules.conv._ConvNd
Layers = dict[str, Layer]  # by name in the model, in its order
Masks = dict[str, Tensor]  # layer -> (shape of its weight) bool, True = pruned


class MagnitudePruning(TrainerCallback):
    """Keeps the pruned weights of a model at zero, and chooses them as the schedule says.

    Args:
        model: whose weights train.
        settings: of the recipe.
        average: the moving average of the weights, if there is one; its callback runs before this one.
    Raises:
        UserError: the model has no layer that can be pruned, or none of the name that is excluded.
    """

    def __init__(
        self, model: PreTrainedModel, settings: SparsitySettings, average: WeightAverage | None = None
    ) -> None:
        if is_peft(model):
            raise UserError(
                "training.sparsity cannot be combined with a PEFT model, whose own weights do not learn. Merge the adapters "
                "first (merge_and_unload), or leave sparsity out."
            )
        self.settings = settings
        self.average = average
        self.layers, dense = prunable_layers(model, settings)
        self.note = _note(settings, self.layers, dense)
        self.masks: Masks = {}
        self.share = 0.0  # of the final sparsity

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:  # also where a run begins again with smaller batches
            self.masks, self.share = {}, 0.0
        self._choose(state.global_step, state.max_steps)
        self._apply()
        self._apply_to_average()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._choose(state.global_step + 1, state.max_steps)
        self._apply()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._apply_to_average()

    @torch.no_grad()
    def _choose(self, step: int, steps: int) -> None:
        """Choose the weights again where the schedule has risen; a run that is made longer does not become denser."""
        share = share_at(self.settings, step, steps)
        if share > self.share:
            self.share = share
            weights = {name: layer.weight for name, layer in self.layers.items()}
            self.masks = masks_of(weights, self.settings, share)

    @torch.no_grad()
    def _apply(self) -> None:
        for name, mask in self.masks.items():
            self.layers[name].weight.masked_fill_(mask, 0)

    @torch.no_grad()
    def _apply_to_average(self) -> None:
        if self.average is not None:
            for name, mask in self.masks.items():
                self.average.average[f"{name}.weight"].masked_fill_(mask, 0)

    def may_be_kept(self) -> bool:
        """Only a checkpoint with the final sparsity may be the model that a run leaves."""
        return self.share == 1

    def figures(self) -> dict[str, float]:
        """The share of the prunable weights that is zero, for the log."""
        weights = sum(layer.weight.numel() for layer in self.layers.values())
        return {"sparsity": sum(int(mask.sum()) for mask in self.masks.values()) / weights}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "share": self.share}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks, self.share = state["masks"], state["share"]


def share_at(settings: SparsitySettings, step: int, steps: int) -> float:
    """The share of the final sparsity, 0 to 1, that the weights have after a step.

    Args:
        step: from 1; 0 is before the first one.
        steps: of the whole run.

    >>> [round(share_at(SparsitySettings(final=0.8, end=1.0), step, 100), 3) for step in (0, 25, 50, 100)]
    [0.0, 0.578, 0.875, 1.0]
    """
    begin, end = settings.begin * steps, settings.last_update * steps
    if settings.schedule == "constant":
        return float(step >= begin)
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    progress = math.floor(progress * settings.updates) / settings.updates
    return 1 - (1 - progress) ** 3 if settings.schedule == "polynomial" else (1 - math.cos(math.pi * progress)) / 2


def masks_of(weights: dict[str, Tensor], settings: SparsitySettings, share: float) -> Masks:
    """Which weights are pruned.

    Args:
        weights: layer -> its weight; of a convolution (filters, input channels, ...), of a linear layer (outputs, inputs).
        settings: final sparsity or pattern, and scope.
        share: of the final sparsity; of a pattern, the share of the groups that have it.
    Returns:
        Layer -> mask of the weight's shape and memory layout; True = pruned.
    """
    if settings.pattern is None:
        scores = {name: weight.abs().flatten().float() for name, weight in weights.items()}
        chosen = _smallest_of(scores, share * settings.share, settings.scope)
    else:
        kept, size = map(int, settings.pattern.split(":"))
        within = {name: _smallest_in_groups(weight, size - kept, size) for name, weight in weights.items()}
        losses = {name: (_groups(weights[name], size).abs().float() * mask).sum(1) for name, mask in within.items()}
        groups = _smallest_of(losses, share, settings.scope)
        chosen = {name: _from_groups(groups[name][:, None] & mask, weights[name]) for name, mask in within.items()}
    # in the layout of the weight, which may be channels_last
    return {
        name: torch.empty_like(weight, dtype=torch.bool).copy_(chosen[name].view(weight.shape))
        for name, weight in weights.items()
    }


def smallest(scores: Tensor, count: int) -> Tensor:
    """The `count` smallest of (N,) scores as an (N,) bool mask; of equal ones the first.

    >>> smallest(torch.tensor([2.0, 1.0, 1.0, 1.0]), 2).tolist()
    [False, True, True, False]
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.topk(count, largest=False, sorted=False).values.max()
    below, ties = scores < threshold, scores == threshold
    return below | (ties & (ties.cumsum(0) <= count - below.sum()))


def _smallest_of(scores: dict[str, Tensor], share: float, scope: str) -> dict[str, Tensor]:
    """The smallest scores of all layers together, or of each; their number is the share, rounded."""
    if scope == "layer":
        return {name: smallest(values, round(share * len(values))) for name, values in scores.items()}
    together = torch.cat(list(scores.values()))
    parts = smallest(together, round(share * len(together))).split([len(values) for values in scores.values()])
    return dict(zip(scores, parts, strict=True))


def _groups(weight: Tensor, size: int) -> Tensor:
    """(outputs, inputs, ...) -> (groups, size): each has consecutive inputs of one output at one place of the kernel."""
    return weight.movedim(1, -1).reshape(-1, size)


def _from_groups(groups: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_groups`, in the shape of the weight, contiguous."""
    return groups.view(weight.movedim(1, -1).shape).movedim(-1, 1).contiguous()


def _smallest_in_groups(weight: Tensor, count: int, size: int) -> Tensor:
    """(groups, size) bool: the `count` smallest magnitudes of each group."""
    groups = _groups(weight, size).abs()
    order = groups.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order, True)


def prunable_layers(model: PreTrainedModel, settings: SparsitySettings) -> tuple[Layers, list[str]]:
    """The layers that are pruned, by name, and the names of those that stay dense.

    Raises:
        UserError: an excluded name is not one of a layer, or no layer is left.
    """
    weights: dict[int, str] = {}  # a weight that two layers share counts once
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer) and weights.setdefault(id(module.weight), name) == name
    }
    dense = set()
    for excluded in settings.exclude:
        found = _named(excluded, model, layers)
        if not found:
            words = {part for name in layers for part in name.split(".") if not part.isdigit()}
            raise UserError(
                f"training.sparsity.exclude: the model has no linear layer or convolution called {excluded!r}. "
                f"{did_you_mean(excluded, [FIRST, LAST, *sorted(words)])}"
            )
        dense |= found
    dense |= {name for name, layer in layers.items() if not layer.weight.requires_grad}
    if settings.pattern is not None:
        size = int(settings.pattern.split(":")[1])
        dense |= {name for name, layer in layers.items() if not _has_groups(layer, size)}
    pruned = {name: layer for name, layer in layers.items() if name not in dense}
    if not pruned:
        raise UserError(
            "training.sparsity has nothing to prune: every linear layer and convolution of the model is frozen, excluded, or "
            "does not fit the pattern. Expected one that is not: change exclude, pattern or model.freeze."
        )
    return pruned, [name for name in layers if name in dense]


def _named(excluded: str, model: PreTrainedModel, layers: Layers) -> set[str]:
    """The layers that a word of `exclude` means: a name, or a part of one between dots."""
    if excluded == FIRST:
        return set(list(layers)[:1])
    if excluded == LAST:
        head = {id(parameter) for parameter in head_parameters(model)}
        return {name for name, layer in layers.items() if id(layer.weight) in head} or set(list(layers)[-1:])
    return {name for name in layers if f".{excluded}." in f".{name}."}


def _has_groups(layer: Layer, size: int) -> bool:
    is_transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)  # its first dimension is the input
    return not is_transposed and layer.weight.shape[1] % size == 0


def layer_figures(layers: Layers) -> list[dict[str, Any]]:
    """Per pruned layer its name, the shape of its weight, the number of weights, and that of zeros."""
    return [
        {
            "name": name,
            "shape": list(layer.weight.shape),
            "weights": layer.weight.numel(),
            "zeros": int((layer.weight == 0).sum()),
        }
        for name, layer in layers.items()
    ]


def _note(settings: SparsitySettings, layers: Layers, dense: list[str]) -> str:
    weights = sum(layer.weight.numel() for layer in layers.values())
    what = f"{format_percent(settings.share)} of {weights:,} weights in {len(layers)} layers are zero at the end"
    pattern = f", {settings.pattern}" if settings.pattern else ""
    when = f"{settings.schedule} from {settings.begin:g} to {settings.last_update:g} of the steps"
    if settings.schedule == "constant":
        when = f"constant after {settings.begin:g} of the steps"
    shown = ", ".join(dense[:5]) + (f" and {len(dense) - 5} more" if len(dense) > 5 else "")
    rest = f"; dense are {shown}" if dense else ""
    return f"sparsity: {what}{pattern} ({when}{rest}); a checkpoint that is less sparse is not selected"
