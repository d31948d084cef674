"""A network whose classifier alone learns, in two parts: what comes before the classifier, and the classifier.

The place is found by running the network, so that it needs no list of architectures: the learning parameters belong to one
module, whose input is the features. The cut is refused where the network's answer is not that module's output, or where
the features of an image are not the same in every training step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput


class NoSplitError(Exception):
    """Why a network cannot be cut before its classifier, in words."""


@dataclass(frozen=True)
class HeadSplit:
    """The two parts of a network.

    Attributes:
        model: the network.
        head: the module with all parameters that learn; it answers with the logits.
        dropout: rate of the dropout between the features and the head; 0: none.
        shape: of the features of one image, which are the head's input.
    """

    model: PreTrainedModel
    head: nn.Module
    dropout: float
    shape: tuple[int, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the head still has all parameters that learn."""
        return _learning(self.model) == _learning(self.head)

    def features(self, **inputs: Tensor) -> Tensor:
        """(B, *shape), without a graph, from the arguments of a forward pass; the mode of the network is left as it was."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return _run(self.model, self.head, inputs)[0]
        finally:
            self.model.train(was_training)

    def logits(self, features: Tensor) -> Tensor:
        """(B, C) from (B, *shape); in training mode with dropout, as the whole network has it."""
        features = functional.dropout(features, self.dropout, self.model.training)
        return self.head(features).reshape(len(features), -1)

    def install(self) -> None:
        """Let the network be called with `features=` in place of `pixel_values=`, also where a wrapper calls it."""
        whole = self.model.forward
        # a bound method: accelerate wraps and unwraps the function inside
        self.model.forward = MethodType(_with_features(self, whole), self.model)


def _with_features(split: HeadSplit, whole: Callable[..., Any]) -> Callable[..., Any]:
    def forward(model: nn.Module, *args: Any, features: Tensor | None = None, **kwargs: Any) -> Any:
        if features is None:
            return whole(*args, **kwargs)
        return ImageClassifierOutput(logits=split.logits(features))

    return forward


def split_head(model: PreTrainedModel, inputs: dict[str, Tensor]) -> HeadSplit:
    """Find the place.

    The network, its running statistics and the random numbers of this process are left as they were.

    Args:
        inputs: arguments of a forward pass, of at least two different images.
    Raises:
        NoSplitError: the classifier consists of several modules, something follows it, or the backbone is not fixed.
    """
    split = split_before(model, _learning(model), inputs)
    with _left_as_it_was(model):
        features, _ = _run(model.eval(), split.head, inputs)
        return replace(split, dropout=_dropout_before(model, split.head, inputs, features))


def split_before(model: PreTrainedModel, parameters: set[int], inputs: dict[str, Tensor]) -> HeadSplit:
    """The same for any parameters, in evaluation mode: what comes before them may learn, and act differently in training.

    Args:
        parameters: the classifier's, by their `id`.
    """
    head = _owner(model, parameters)
    with _left_as_it_was(model):
        features, logits = _run(model.eval(), head, inputs)
        split = HeadSplit(model, head, 0.0, tuple(features.shape[1:]))
        _require_logits(split, features, logits)
        return split


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    was_training, buffers = model.training, [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        model.train(was_training)
        for buffer, before in buffers:
            buffer.copy_(before)


def _learning(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def _owner(model: nn.Module, parameters: set[int]) -> nn.Module:
    """The smallest module with all these parameters, and with no others."""
    owner = model
    while child := next((child for child in owner.children() if parameters <= _parameters(child)), None):
        owner = child
    if not parameters or _parameters(owner) != parameters:
        raise NoSplitError("the layers of its classifier are not one module")
    return owner


def _parameters(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


def _run(
    model: nn.Module, head: nn.Module, inputs: dict[str, Tensor], reached: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """The input of the head and the logits of one forward pass; `reached` is called in between."""
    found: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        reached()
        found.extend(argument for argument in args if isinstance(argument, Tensor))

    hook = head.register_forward_pre_hook(keep)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    images = len(next(iter(inputs.values())))
    if len(found) != 1 or len(found[0]) != images:
        raise NoSplitError("its classifier does not take one vector for each image")
    return found[0].detach(), logits


class _Dropouts(TorchFunctionMode):
    """Keeps dropout from acting, and remembers the rate and the output of each that would have."""

    def __init__(self) -> None:
        super().__init__()
        self.acting: list[tuple[float, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not functional.dropout:
            return func(*args, **(kwargs or {}))
        call = inspect.signature(functional.dropout).bind(*args, **(kwargs or {}))
        call.apply_defaults()
        output = call.arguments["input"].clone()
        if call.arguments["training"] and call.arguments["p"] > 0:
            self.acting.append((call.arguments["p"], output))
        return output


def _dropout_before(model: nn.Module, head: nn.Module, inputs: dict[str, Tensor], expected: Tensor) -> float:
    """The rate of the dropout just before the head, of a network that otherwise trains on the features `expected`.

    Raises:
        NoSplitError: in training mode the head gets something else.
    """
    device = next(model.parameters()).device
    states, acting = [_random_state(device)], []

    def reached() -> None:
        states.append(_random_state(device))
        acting.extend(dropouts.acting)

    with _Dropouts() as dropouts:
        features, _ = _run(model.train(), head, inputs, reached)
    if not torch.equal(*states) or not torch.allclose(features, expected, rtol=1e-4, atol=1e-5):
        raise NoSplitError("the backbone acts differently in training, although its weights are fixed")
    if not acting:
        return 0.0
    rate, output = acting[-1]
    if len(acting) > 1 or output.data_ptr() != features.data_ptr() or output.numel() != features.numel():
        raise NoSplitError("dropout acts within the backbone")
    return rate


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _require_logits(split: HeadSplit, features: Tensor, logits: Tensor) -> None:
    """Raises NoSplitError: something follows the head; called in evaluation mode."""
    answers = split.logits(features)
    if answers.shape != logits.shape or not torch.allclose(answers, logits, rtol=1e-4, atol=1e-5):
        raise NoSplitError("something follows its classifier")
