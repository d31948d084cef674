"""`training.quantization`: the model trains with weights and activations rounded to int8, as an int8 file has them.

From `begin` on every linear layer and convolution computes with a rounded input and a rounded weight; the gradient passes
through the rounding, and is zero outside the range. What learns and what is saved are the fp32 weights; the ranges of the
activations are saved next to them in `quantization.json`. Evaluations during training round, too, so that the best checkpoint
is the best as int8. The saved model and the test scores of the report are of the fp32 weights, and the accuracy with rounding
has a figure of its own.

- Weights: 8 bits, symmetric, one scale per output channel, from the largest magnitude of the present weight. Zero stays zero,
  so a pruned weight does.
- Activations: 8 bits, asymmetric, one range per layer: the mean of the smallest and largest value of a batch, of the
  first 100 steps, and then a moving average with the constant 0.01. A batch is that of all micro-batches and all processes, and
  its range counts from the next step on; so accumulation, processes and repeated forward passes change nothing.
- After `freeze` the ranges stay. Only checkpoints after it may be the model that a run leaves.
- Batch norm is not folded into the weights during training, and need not be: folding multiplies an output channel by a
  number, which multiplies its scale and leaves the rounded weights as they are (up to the sign). So its statistics do not
  disturb the rounding either, and keep learning; the papers freeze them for the sake of folded weights. Frozen after three
  quarters of the steps, they made a run from scratch diverge (a ResNet of 8 layers on the digits, SGD with a rate of 0.1);
  `model.freeze_batch_norm` suits fine-tuning.

The layers of the model stay what they are, with the names of their tensors: their forward passes are replaced within a step.
torch.ao.quantization and torchao put other modules or a captured graph in the place of the model, which changes the names in
every checkpoint.

Source: https://arxiv.org/abs/1712.05877 (rounding in training, delayed start); https://arxiv.org/abs/1806.08342 (one scale per
channel). The rounding is `torch.fake_quantize_per_channel_affine` and `torch.fake_quantize_per_tensor_affine`.
Recipe: `training: {quantization: {begin: 0.5}}`, see `QuantizationSettings`. It is refused with torch_compile, a frozen
backbone, adapters, FSDP and DeepSpeed.
Measured: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.config.quantization_settings import QuantizationSettings
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.models.given import is_peft

Layer = nn.Linear | nn.modules.conv._ConvNd
Layers = dict[str, Layer]  # by name in the model, in its order
Range = tuple[float, float]  # smallest and largest value
RANGES = "quantization.json"  # in the folder of a model
LARGEST_WEIGHT, LEVELS = 127, 255  # of int8 weights, symmetric; of uint8 activations
AVERAGING = 0.01  # of the moving average, as torch's observers have it
OFF, LEARNS, FROZEN = 0, 1, 2


class QuantizationAware(TrainerCallback, AbstractContextManager):
    """Context of a step, in which a model computes with rounded weights and activations.

    Args:
        model: whose layers are rounded.
        settings: of the recipe.
    Raises:
        UserError: the model has no layer that is rounded, or is of PEFT.
    """

    def __init__(self, model: PreTrainedModel, settings: QuantizationSettings) -> None:
        if is_peft(model):
            raise UserError(
                "training.quantization cannot be combined with a PEFT model, whose own weights do not learn. Merge the adapters "
                "first (merge_and_unload), or leave quantization out."
            )
        self.model, self.settings = model, settings
        self.layers = rounded_layers(model)
        self.note = (
            f"quantization: {len(self.layers)} layers compute with int8 weights and activations after {settings.begin:g} of "
            f"the steps; the ranges are final after {settings.freeze:g}, and a checkpoint before that is not selected"
        )
        self.held = ExitStack()
        self._begin_again()

    def _begin_again(self) -> None:
        self.phase = OFF
        self.steps = 0  # that the ranges are of
        self.ranges = self.batch = _no_ranges(len(self.layers))  # (layers, 2): smallest and largest value
        self.known: set[int] = set()  # layers that have a range
        self.called: set[int] = set()  # layers that have one of this step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:  # also where a run begins again with smaller batches
            self._begin_again()
        self.ranges, self.batch = self.ranges.to(args.device), _no_ranges(len(self.layers)).to(args.device)
        self._advance(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.phase == LEARNS:
            self.steps += 1
            batch = self.batch[None] if args.world_size == 1 else gather(self.batch[None])
            self.ranges = averaged(self.ranges, widest(batch), max(AVERAGING, 1 / self.steps))
            self.batch = _no_ranges(len(self.layers)).to(args.device)
            self.known |= self.called
        self._advance(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model that training leaves computes without rounding."""
        self.phase = OFF

    def _advance(self, state: TrainerState) -> None:
        """A run that is made longer does not return to an earlier phase."""
        self.phase = max(self.phase, phase_at(self.settings, state.global_step, state.max_steps))

    def __enter__(self) -> QuantizationAware:
        if self.phase != OFF:
            scales = roundings(self.ranges)
            for number, layer in enumerate(self.layers.values()):
                rounding = (scales[0][number], scales[1][number]) if number in self.known else None
                observe = partial(self._observe, number) if self.phase == LEARNS else None
                self.held.enter_context(_replaced(layer, partial(_rounded, layer, layer.forward, rounding, observe)))
        return self

    def __exit__(self, *_: Any) -> None:
        self.held.close()

    @torch.no_grad()
    def _observe(self, number: int, x: Tensor) -> None:
        if self.model.training:
            self.called.add(number)
            self.batch[number] = widest(torch.stack([self.batch[number], torch.stack(x.detach().aminmax()).float()]))

    def may_be_kept(self) -> bool:
        """Only a checkpoint with the final ranges may be the model that a run leaves."""
        return self.phase == FROZEN

    @contextmanager
    def scored(self) -> Iterator[None]:
        """Evaluations after training round within, as those during training do."""
        self.phase = FROZEN
        try:
            yield
        finally:
            self.phase = OFF

    def learned_ranges(self) -> dict[str, Range]:
        """Layer -> the range of its input; empty for a run that ended before one was seen."""
        values = self.ranges.tolist()
        return {name: tuple(values[number]) for number, name in enumerate(self.layers) if number in self.known}

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self.phase, "steps": self.steps, "ranges": self.ranges, "known": sorted(self.known)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.phase, self.steps, self.ranges = state["phase"], state["steps"], state["ranges"]
        self.known = set(state["known"])


def phase_at(settings: QuantizationSettings, step: int, steps: int) -> int:
    """Whether layers are rounded in the step after this one, and whether the ranges learn.

    >>> [phase_at(QuantizationSettings(), step, 100) for step in (0, 49, 50, 75, 100)]
    [0, 0, 1, 2, 2]
    """
    return (step >= settings.begin * steps) + (step >= settings.freeze * steps)


def rounded_layers(model: nn.Module) -> Layers:
    """The layers that are rounded, by name: linear layers and convolutions.

    Transposed convolutions stay as they are, and so do layers whose weight is computed from other tensors
    (`torch.nn.utils.parametrize`).

    Raises:
        UserError: there is none.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer)
        and not isinstance(module, nn.modules.conv._ConvTransposeNd)
        and not is_parametrized(module, "weight")
    }
    if not layers:
        raise UserError(
            "training.quantization: the model has no linear layer and no convolution. Leave quantization out."
        )
    return layers


def widest(ranges: Tensor) -> Tensor:
    """The range (..., 2) that holds all of (N, ..., 2)."""
    return torch.stack([ranges[..., 0].amin(0), ranges[..., 1].amax(0)], -1)


def averaged(ranges: Tensor, batch: Tensor, constant: float) -> Tensor:
    """The ranges (L, 2) after a step of a moving average; a value of the batch that is not finite changes nothing."""
    moved = torch.where(ranges.isfinite(), ranges + constant * (batch - ranges), batch)
    return torch.where(batch.isfinite(), moved, ranges)


def roundings(ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (L,) float32 and zero points (L,) int32 of activations in 0 to 255; zero is a value that is represented.

    >>> roundings(torch.tensor([[-1.0, 1.55]]))
    (tensor([0.0100]), tensor([100], dtype=torch.int32))
    """
    low, high = ranges[:, 0].clamp(max=0), ranges[:, 1].clamp(min=0)
    scales = ((high - low) / LEVELS).clamp_min(torch.finfo(torch.float32).eps)
    return scales, (-low / scales).round().clamp(0, LEVELS).int()


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight (outputs, ...) as int8 has it, one scale per output."""
    magnitudes = weight.detach().abs().flatten(1).amax(1)
    scales = (magnitudes / LARGEST_WEIGHT).clamp_min(torch.finfo(torch.float32).eps)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)


@contextmanager
def as_int8(model: nn.Module, ranges: dict[str, Range]) -> Iterator[None]:
    """The model computes within as an int8 file with these ranges of its layers' inputs does."""
    layers = rounded_layers(model)
    device = next(model.parameters()).device
    scales, zeros = roundings(torch.tensor(list(ranges.values()), device=device).view(-1, 2))
    with ExitStack() as stack:
        for scale, zero, name in zip(scales, zeros, ranges, strict=True):
            forward = partial(_rounded, layers[name], layers[name].forward, (scale, zero), None)
            stack.enter_context(_replaced(layers[name], forward))
        yield


def save_ranges(folder: Path, ranges: dict[str, Range]) -> None:
    """Write the ranges next to the weights of a model, with the scales and zero points that follow from them."""
    scales, zeros = roundings(torch.tensor(list(ranges.values())).view(-1, 2))
    inputs = {
        name: {"min": low, "max": high, "scale": scale, "zero_point": zero}
        for (name, (low, high)), scale, zero in zip(ranges.items(), scales.tolist(), zeros.tolist(), strict=True)
    }
    about = {
        "weights": "int8, symmetric, one scale per output channel: its largest magnitude / 127",
        "activations": "uint8, one range for the input of each layer",
        "inputs": inputs,
    }
    write_whole(folder / RANGES, json.dumps(about, indent=1) + "\n")


def load_ranges(folder: str | Path) -> dict[str, Range] | None:
    """Layer -> range of its input, of a model that was trained for int8; None for others."""
    file = Path(folder) / RANGES
    if not file.is_file():
        return None
    inputs = json.loads(file.read_text("utf-8"))["inputs"]
    return {name: (values["min"], values["max"]) for name, values in inputs.items()}


def _no_ranges(count: int) -> Tensor:
    return torch.tensor([torch.inf, -torch.inf]).repeat(count, 1)


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The module has another forward pass; one that it had of its own comes back."""
    before = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before


def _rounded(
    layer: Layer,
    forward: Callable[..., Tensor],
    rounding: tuple[Tensor, Tensor] | None,
    observe: Callable[[Tensor], None] | None,
    x: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """The forward pass of a layer with a rounded weight, and a rounded input where its scale and zero point are known.

    Both are rounded as float32; autocast, if there is one, narrows them afterwards.
    """
    if observe is not None:
        observe(x)
    if rounding is not None:
        x = torch.fake_quantize_per_tensor_affine(x.float(), *rounding, 0, LEVELS)
    vars(layer)["weight"] = rounded_weight(layer.weight)  # hides the parameter, which stays where it is
    try:
        return forward(x, *args, **kwargs)
    finally:
        del vars(layer)["weight"]
