"""Which places of an image speak for a class: activation times gradient, in the last layer that still knows places.

The layer is found by running the network, so that it needs no list of architectures: it is the last module whose output has a
grid of places that the class depends on. Of a convolutional network that is its last feature map, where the result is
Grad-CAM's; of a transformer it is the last normalisation before tokens are mixed for the last time.

Sources: https://arxiv.org/abs/1610.02391 (Grad-CAM); https://arxiv.org/abs/2011.08891 (HiResCAM, the product place by place);
https://captum.ai (the product).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_accel.errors import UserError

MOST_PREFIXES = 9  # tokens before those of places: of the class, registers
LEAST_SHARE = 0.5  # of the places that the class must depend on


@dataclass(frozen=True)
class Grid:
    """Where the places are in the output of a layer for one image."""

    height: int
    width: int
    prefixes: int | None = None  # tokens before those of places; None: the output is a map
    channels_last: bool = False  # of a map

    def places(self, output: Tensor) -> Tensor:
        """(1, ...) -> (height, width, C)"""
        if self.prefixes is not None:
            return output[0, self.prefixes :].reshape(self.height, self.width, -1)
        return output[0] if self.channels_last else output[0].permute(1, 2, 0)


@dataclass(frozen=True)
class ExplainedLayer:
    """The layer whose places are shown."""

    name: str
    module: nn.Module
    grid: Grid


def refuse_missing_captum(where: str) -> None:
    """Raises:
    UserError: it is not installed.
    """
    if find_spec("captum") is None:
        raise UserError(f'{where}: captum is not installed. pip install "hf_accel[trust]"')


def explained_layer(model: nn.Module, inputs: dict[str, Tensor]) -> ExplainedLayer:
    """Find the layer.

    Args:
        model: a classifier in evaluation mode.
        inputs: arguments of a forward pass of one image, `pixel_values` (1, 3, H, W) among them.
    Raises:
        UserError: no layer has places that the class depends on.
    """
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    pixel_values = inputs["pixel_values"].detach().requires_grad_()
    with torch.enable_grad(), _recorded(model, outputs):
        logits = model(**{**inputs, "pixel_values": pixel_values}).logits
        score = logits[0].max()
        known = [found for found in outputs if found[2].requires_grad]
        outputs_known = [output for *_, output in known]
        gradients = torch.autograd.grad(score, outputs_known, allow_unused=True) if known else ()
    for (name, module, output), gradient in reversed(list(zip(known, gradients, strict=True))):
        grid = grid_of(output, *pixel_values.shape[-2:])
        if grid is not None and gradient is not None:
            share = (grid.places(gradient) != 0).any(-1).float().mean()
            if share > LEAST_SHARE:
                return ExplainedLayer(name, module, grid)
    raise UserError(
        f"{type(model).__name__}: no layer has places that its answer depends on, so no heat map can be drawn"
    )


@contextmanager
def _recorded(model: nn.Module, outputs: list[tuple[str, nn.Module, Tensor]]) -> Iterator[None]:
    """Within, the outputs of layers that may have places, in the order in which they are done."""

    def record(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            outputs.append((name, module, output))

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
        for name, module in model.named_modules()
        if name and _may_have_places(module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _may_have_places(module: nn.Module) -> bool:
    """Blocks, convolutions and normalisations; dropout of an attention is as square as a map is."""
    is_leaf = next(module.children(), None) is None
    has_weights = next(module.parameters(recurse=False), None) is not None
    return not is_leaf or (has_weights and not isinstance(module, nn.Linear))


def grid_of(output: Tensor, height: int, width: int) -> Grid | None:
    """The grid in the output of a layer for an image of this height and width; None: it has none.

    >>> grid_of(torch.zeros(1, 197, 768), 224, 224)
    Grid(height=14, width=14, prefixes=1, channels_last=False)
    """
    if len(output) != 1:
        return None

    def fits(rows: int, columns: int) -> bool:
        is_grid = rows * columns > 1 and rows <= height and columns <= width
        return is_grid and abs(rows * width / height - columns) < 1  # sides are rounded

    if output.ndim == 4:
        _, first, second, third = output.shape
        if fits(second, third):
            return Grid(second, third)
        return Grid(first, second, channels_last=True) if fits(first, second) else None
    if output.ndim == 3:
        for prefixes in range(MOST_PREFIXES + 1):
            places = output.shape[1] - prefixes
            rows = round((max(places, 0) * height / width) ** 0.5)
            if rows and places % rows == 0 and fits(rows, places // rows):
                return Grid(rows, places // rows, prefixes)
    return None


def heat_map(model: nn.Module, layer: ExplainedLayer, inputs: dict[str, Tensor], label: int) -> Tensor:
    """How much each pixel's place speaks for a class, (H, W) float32 in [0, 1]; all 0 where none does.

    Args:
        model, inputs: as in `explained_layer`.
        label: the number of the class.
    """
    from captum.attr import LayerGradientXActivation

    others = {name: value for name, value in inputs.items() if name != "pixel_values"}

    def logits(pixel_values: Tensor) -> Tensor:
        return model(pixel_values=pixel_values, **others).logits

    pixel_values = inputs["pixel_values"].detach().requires_grad_()
    with torch.enable_grad():
        product = LayerGradientXActivation(logits, layer.module).attribute(pixel_values, target=label)
    heat = layer.grid.places(product.detach()).sum(-1).float().clamp(min=0)
    heat = functional.interpolate(heat[None, None], size=pixel_values.shape[-2:], mode="bilinear")[0, 0]
    return (heat / heat.max()).cpu() if heat.max() > 0 else heat.cpu()
