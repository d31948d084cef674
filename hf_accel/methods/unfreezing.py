"""`training.gradual_unfreezing`: the classifier learns first, and the layers before it join one by one.

A new classifier is random, and its first gradients would change pretrained layers for the worse. So they begin to learn one
after the other, from the classifier to the stem, in equal intervals over the given share of the steps; until then a layer acts
as in evaluation (no dropout, batch norm keeps its statistics). The optimizer has every parameter from the start, and does
nothing to one without a gradient, so that no state is lost and a resumed run continues where it was.

Source: ULMFiT (https://arxiv.org/abs/1801.06146), which unfreezes a layer per epoch; a share does not depend on the number
of epochs and layers. fastai's `freeze_to` does it by hand.
Recipe: `training: {gradual_unfreezing: 0.5}`; with `model.freeze: N`, those layers never learn. It is refused with
`torch_compile`, which would compile the network once per layer, and under FSDP and DeepSpeed.
Measured: nothing.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.errors import UserError
from hf_accel.models.layers import frozen_modules, keep_in_evaluation, layer_numbers


class GradualUnfreezing(TrainerCallback):
    """Decides before each step which layers learn.

    Args:
        model: with known layers; parameters that do not learn now never will.
        share: share of the steps after which all layers learn, in (0, 1].
    Raises:
        UserError: nothing but the classifier learns.
    """

    def __init__(self, model: PreTrainedModel, share: float) -> None:
        self.model, self.share = model, share
        numbers = layer_numbers(model)
        learning = [(numbers[name], value) for name, value in model.named_parameters() if value.requires_grad]
        # from the classifier to the stem
        order = sorted({number for number, _ in learning}, reverse=True)
        self.layers: list[list[nn.Parameter]] = [[p for n, p in learning if n == number] for number in order]
        self.count = len(self.layers) - 1  # of those that join
        if self.count < 1:
            raise UserError(
                f"training.gradual_unfreezing is {share:g}, but all layers before the classifier are frozen. Expected a smaller "
                "model.freeze, or leave gradual_unfreezing out."
            )
        self.in_evaluation = keep_in_evaluation(model)
        self.note = (
            f"gradual_unfreezing: {share:g} (the classifier learns from the start, and {self.count} layers before it join one "
            "by one)"
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._let_learn(unfrozen(state.global_step, state.max_steps, self.share, self.count))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._let_learn(unfrozen(state.global_step, state.max_steps, self.share, self.count))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """As before training, so that the model can be trained again."""
        self._let_learn(self.count)

    def _let_learn(self, count: int) -> None:
        """The classifier and so many layers before it."""
        wanted = [number <= count for number in range(len(self.layers))]
        if [layer[0].requires_grad for layer in self.layers] == wanted:
            return
        for layer, learns in zip(self.layers, wanted, strict=True):
            for parameter in layer:
                parameter.requires_grad_(learns)
        self.in_evaluation[:] = frozen_modules(self.model)


def unfrozen(step: int, steps: int, share: float, layers: int) -> int:
    """How many of the layers before the classifier learn in a step, counted from 0.

    Args:
        steps: of the whole run.
        share: share of the steps after which all of them learn.

    >>> [unfrozen(step, 10, 0.5, 4) for step in range(6)]
    [0, 0, 1, 2, 3, 4]
    """
    return min(layers, int(layers * step / (share * steps) + 1e-9))
