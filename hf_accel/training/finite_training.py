"""The part of the Trainer that ends a run, or leaves a step out, where a loss, a gradient or a weight is not finite."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from accelerate.utils import gather_object
from torch import Tensor, nn

from hf_accel.errors import RunError
from hf_accel.methods.finite import BadStep, FiniteSteps, broken_tensor
from hf_accel.training.failure import failed_at
from hf_accel.training.feeding import FeedingTrainer
from hf_accel.training.progress import BarCallback

logger = logging.getLogger(__name__)


class FiniteTrainer(FeedingTrainer):
    """A Trainer that looks at every step, and says which one went wrong.

    Attributes:
        finite_steps: knows the losses and gradient norms.
        bar: is closed before a run ends with an error.
    """

    finite_steps: FiniteSteps
    bar: BarCallback

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Tensor | int | None]:
        self._logged_loss_before = self._tr_loss.clone()
        return super().get_batch_samples(*args, **kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """As upstream, which calls it once per optimizer step, before the update."""
        norm = super()._get_grad_norm(model, grad_norm)
        step = self.state.global_step + 1
        self.finite_steps.end_step(step, self._get_learning_rate(), norm)
        if self.finite_steps.every == 1:
            self._end_after_bad_step()
            if self.finite_steps.was_left_out(step):
                self._leave_step_out(model, step)
        return norm

    def _end_after_bad_step(self) -> None:
        bad = self.finite_steps.read(self.accelerator.gather)
        if bad is not None:
            self._fail(bad)

    def _fail(self, bad: BadStep) -> NoReturn:
        message = failed_at(bad, self.args, self.state.max_steps)
        self.bar.close()
        raise RunError(message)

    def _leave_step_out(self, model: nn.Module, step: int) -> None:
        logger.warning("step %d: left out, because its loss or gradient norm is not finite", step)
        model.zero_grad(set_to_none=True)  # an optimizer does nothing to a parameter without a gradient
        self.finite_steps.restore_buffers()
        self._tr_loss.copy_(self._logged_loss_before)
        self._globalstep_last_logged += 1  # the loss that is logged is the mean over the steps that were made

    def _end_with_broken_weights(self) -> None:
        """An update can overflow although its loss and its gradients are finite."""
        found = [name for name in gather_object([broken_tensor(self.model)]) if name is not None]
        if found:
            bad = BadStep(
                self.state.global_step, self._get_learning_rate(), f"{found[0]} holds values that are not finite"
            )
            self._fail(bad)
